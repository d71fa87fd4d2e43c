"""The fusion node: reads a message, calls the pipeline, publishes."""
from __future__ import annotations

import inspect
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

import rclpy
from aecf_msgs.msg import FusedPrediction
from audio_common_msgs.msg import AudioData, AudioDataStamped, AudioInfo
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image

from aecf_ros.core.bundle import BundleError, Modality, load_bundle
from aecf_ros.core.messages import FormatUnknown, read_compressed_image, read_image, read_plain_audio, read_stamped_audio
from aecf_ros.core.types import NANOSECONDS, StreamState
from aecf_ros.nodes import convert
from aecf_ros.nodes.parameters import ParameterError, StreamParameters, declare_node_parameters, declare_stream_parameters
from aecf_ros.runtime.backends import BackendError, make_backend
from aecf_ros.runtime.pipeline import Observation, Pipeline, PipelineConfig

CAMERA_QOS = QoSProfile(depth=1, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)
"""Depth 1: under overload an old frame is worth less than a new one. Best effort matches every publisher."""
AUDIO_QOS = QoSProfile(depth=20, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED_QOS = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL, reliability=ReliabilityPolicy.RELIABLE)
PREDICTION_QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)

LOG_PERIOD_NS = 5 * NANOSECONDS
MAX_KINDS = 64


class FusionNode(Node):
    """Subscribes to every modality of a bundle and publishes ``~/prediction`` and ``/diagnostics``.

    One executor thread calls everything. Inference runs inline in the callback of the message that makes a prediction due;
    a timer set to the pipeline's next deadline covers the time when no message comes.

    Raises:
        BundleError, BackendError, ParameterError: the node cannot start; one line says why.
    """

    def __init__(self, **kwargs: object) -> None:
        super().__init__("fusion_node", **kwargs)
        self._settings = declare_node_parameters(self)
        bundle = load_bundle(self._settings.model)
        streams = declare_stream_parameters(self, bundle.manifest)
        backend = make_backend(self._settings.backend, bundle, self._settings.device, self._settings.threads)
        config = PipelineConfig({name: s.thresholds for name, s in streams.items()}, self._settings.max_gap_s)
        self._pipeline = Pipeline(bundle.manifest, backend, config)
        self._pipeline.warm_up()
        self._device = backend.device
        self._states: tuple[StreamState, ...] = ()
        self._complaints = _Complaints(self)
        self._audio_info: dict[str, AudioInfo] = {}
        self._started_ns = time.monotonic_ns()
        self._last_inference_ns = 0
        self._predictions = 0

        overridable = QoSOverridingOptions.with_default_policies()
        self._prediction = self.create_publisher(FusedPrediction, "~/prediction", PREDICTION_QOS, qos_overriding_options=overridable)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", PREDICTION_QOS)
        for modality in bundle.manifest.modalities:
            self._subscribe(modality, streams[modality.name])
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._deadline = self.create_timer(self._settings.max_gap_s, self._predict, clock=steady)
        self.create_timer(self._settings.diagnostics_period_s, self._publish_diagnostics, clock=steady)
        self.get_logger().info(f"model {bundle.manifest.name} from {bundle.directory} on {backend.device}: "
                               f"{', '.join(bundle.manifest.names)} -> {len(bundle.manifest.labels)} labels")

    def _subscribe(self, modality: Modality, parameters: StreamParameters) -> None:
        name, options = modality.name, parameters.options
        if modality.kind == "image":
            compressed = options["transport"] == "compressed"
            self._listen(name, CompressedImage if compressed else Image, f"{name}/image",
                         read_compressed_image if compressed else read_image, CAMERA_QOS)
            return
        if options["sample_format"]:
            self._audio_info[name] = AudioInfo(channels=options["channels"], sample_rate=options["rate_hz"],
                                               sample_format=options["sample_format"], coding_format="wave")
        self.create_subscription(AudioInfo, f"{name}_info", partial(self._audio_info.__setitem__, name), LATCHED_QOS,
                                 qos_overriding_options=QoSOverridingOptions.with_default_policies())
        stamped = options["message"] == "stamped"
        read = read_stamped_audio if stamped else read_plain_audio
        self._listen(name, AudioDataStamped if stamped else AudioData, name,
                     lambda message, received_ns: read(message, self._audio_info.get(name), received_ns), AUDIO_QOS)

    def _listen(self, name: str, message_type: type, topic: str, read: Callable, qos: QoSProfile) -> None:
        self.create_subscription(
            message_type, topic, partial(self._on_message, name, read), qos, event_callbacks=self._matched(name),
            qos_overriding_options=QoSOverridingOptions.with_default_policies())

    def _matched(self, name: str) -> SubscriptionEventCallbacks:
        # Humble's middleware has no matched event; silence then says that a publisher is gone.
        if "matched" not in inspect.signature(SubscriptionEventCallbacks).parameters:
            return SubscriptionEventCallbacks()
        return SubscriptionEventCallbacks(
            matched=lambda info: self._pipeline.publishers(name, info.current_count, time.monotonic_ns()))

    def _on_message(self, name: str, read: Callable, message: object) -> None:
        now_ns = time.monotonic_ns()
        try:
            record = read(message, self.get_clock().now().nanoseconds)
        except FormatUnknown as error:
            seen = self._pipeline.reject(name, str(error), now_ns)
        else:
            seen = self._pipeline.observe(name, record, now_ns)
        self._react(name, seen, now_ns)

    def _react(self, name: str, seen: Observation, now_ns: int) -> None:
        if seen.rejected is not None:
            self._complaints.say(name, seen.rejected, now_ns)
        if seen.due:
            self._predict()
        else:
            self._note_states(now_ns)

    def _predict(self) -> None:
        started_ns = time.monotonic_ns()
        prediction = self._pipeline.step(started_ns, self.get_clock().now().nanoseconds)
        self._prediction.publish(convert.prediction_to_message(prediction, self.get_clock().now().nanoseconds))
        now_ns = time.monotonic_ns()
        self._last_inference_ns = now_ns - started_ns
        self._predictions += 1
        self._note_states(now_ns)
        self._set_deadline(now_ns)

    def _set_deadline(self, now_ns: int) -> None:
        due_ns = self._pipeline.next_due_ns()
        assert due_ns is not None  # a step has just been made
        self._deadline.timer_period_ns = max(due_ns - now_ns, 1_000_000)
        self._deadline.reset()

    def _note_states(self, now_ns: int) -> None:
        states = tuple(s.state for s in self._pipeline.statuses(now_ns))
        if states != self._states:
            self._states = states
            self._publish_diagnostics()

    def _publish_diagnostics(self) -> None:
        now_ns = time.monotonic_ns()
        waited_long = now_ns - self._started_ns > self._settings.waiting_grace_s * NANOSECONDS
        statuses = [convert.status_to_diagnostic(s, self.get_name(), waited_long) for s in self._pipeline.statuses(now_ns)]
        statuses.append(DiagnosticStatus(
            level=DiagnosticStatus.OK, name=f"{self.get_name()}: inference", message=f"running on {self._device}",
            hardware_id=self._device, values=convert.key_values({
                "model": self._pipeline.manifest.name, "device": self._device, "predictions (messages)": self._predictions,
                "last step (ms)": f"{self._last_inference_ns / 1e6:.2f}"})))
        message = DiagnosticArray(status=statuses)
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


class _Complaints:
    """Logs rejected messages: each kind of reason at once, then at most one line in five seconds for each stream and kind."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._said_ns: dict[tuple[str, str], int] = {}
        self._unsaid: Counter[tuple[str, str]] = Counter()

    def say(self, stream: str, reason: str, now_ns: int) -> None:
        kind = (stream, re.sub(r"\d+", "#", reason))
        if now_ns - self._said_ns.get(kind, -LOG_PERIOD_NS) < LOG_PERIOD_NS:
            self._unsaid[kind] += 1
            return
        if len(self._said_ns) >= MAX_KINDS:  # reasons quote what was found, so a hostile publisher could make any number
            self._said_ns.clear()
            self._unsaid.clear()
        more = self._unsaid.pop(kind, 0)
        self._said_ns[kind] = now_ns
        self._node.get_logger().warning(f"{stream}: {reason}" + (f" ({more} more like it since the last line)" if more else ""))


def main(args: list[str] | None = None) -> None:
    """Run the node until SIGINT or SIGTERM; exit code 0 then, 1 when it cannot start."""
    rclpy.init(args=args)
    try:
        node = FusionNode()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        try:
            executor.spin()
        finally:
            executor.shutdown()
            node.destroy_node()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (BundleError, BackendError, ParameterError) as error:
        rclpy.logging.get_logger("fusion_node").fatal(str(error))
        sys.exit(1)
    finally:
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
