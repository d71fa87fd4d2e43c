"""The fusion node: reads messages, calls the pipeline, publishes predictions."""

from __future__ import annotations

import gc
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter as RosParameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.task import Future
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from aecf_msgs.msg import FusedPrediction
from aecf_ros.core.bundle import Bundle, BundleError, load_bundle
from aecf_ros.core.errors import first_line
from aecf_ros.core.types import NANOSECONDS, Prediction, RawImage, StreamState, StreamStatus
from aecf_ros.modalities.messages import UnknownFormatError
from aecf_ros.nodes.fusion.diagnostics import Complaints, LostShare, to_message
from aecf_ros.nodes.fusion.inputs import LATCHED_QOS, Inputs, Read, UnreadableError
from aecf_ros.nodes.fusion.parameters import (
    AUTOSTART,
    ENABLED,
    NodeParameters,
    ParameterError,
    StreamParameters,
    check_change,
    declare_node_parameters,
    declare_stream_parameters,
)
from aecf_ros.nodes.fusion.vision import ClassificationPublisher
from aecf_ros.nodes.ros.convert import overlay_to_message, prediction_to_message
from aecf_ros.nodes.ros.executor import DirectExecutor
from aecf_ros.nodes.ros.process import run_node
from aecf_ros.nodes.ros.qos import OVERRIDABLE, UNWATCHED
from aecf_ros.runtime.backends import Backend, BackendError, make_backend
from aecf_ros.runtime.diagnostics import diagnose_inference, diagnose_stream
from aecf_ros.runtime.pipeline import Pipeline, PipelineConfig
from aecf_ros.runtime.scheduling import Deadline, DeadlineKeeper, Inline, Schedule, Worker, choose_scheduling

PREDICTION_QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
LEAST_WAIT_NS = 1_000_000
RCLError = rclpy_implementation.RCLError

CANNOT_START = (BundleError, BackendError, ParameterError)


class _DeadlineTimer:
    """Keeps a deadline by a timer of the node, for executors that keep none themselves."""

    def __init__(self, node: LifecycleNode, deadline: Deadline, clock: Clock) -> None:
        self._deadline = deadline
        self._timer = node.create_timer(1.0, deadline.run, clock=clock)
        self._timer.cancel()

    def rearm(self) -> None:
        """Set the timer to the deadline; cancel it where there is none."""
        remaining_s = self._deadline.remaining_s()
        if remaining_s is None:
            self._timer.cancel()
            return
        self._timer.timer_period_ns = max(int(remaining_s * NANOSECONDS), LEAST_WAIT_NS)
        self._timer.reset()


@dataclass(frozen=True, slots=True)
class _Model:
    """The model of a configured node."""

    bundle: Bundle
    backend: Backend
    streams: dict[str, StreamParameters]
    pipeline: Pipeline
    scheduling: str
    cameras: frozenset[str]


class FusionNode(LifecycleNode):
    """Subscribes to every modality of a bundle and publishes ``~/prediction`` and ``/diagnostics``.

    Configuring loads and warms up the model, activating subscribes, deactivating stops inference and keeps the model,
    cleaning up frees it. One executor thread calls everything except the loading of ``~/reload_model`` and, with a
    worker, what touches the pipeline, which is always submitted to ``_schedule``. While no message arrives, the
    pipeline's deadline makes predictions; it is kept by the worker, by the :class:`DirectExecutor` or, under any other
    executor, by a timer.
    """

    _complete = False
    """Whether ``__init__`` has returned: a node that could not be made is destroyed too."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("fusion_node", **kwargs)
        self.failure = ""
        """Why the last configuration or activation failed; empty if it succeeded."""
        self._settings = declare_node_parameters(self)
        self._model: _Model | None = None
        self._active = False
        self._enabled = ENABLED.declare(self)
        self._states: tuple[StreamState, ...] = ()
        self._fault = ""
        self._complaints = Complaints(self)
        self._lost_share = LostShare()
        self._last_ns = 0
        self._activated_ns = 0
        self._step_ns = 0
        self._predictions = 0
        self._frame: RawImage | None = None
        self._simulated = False
        self._schedule: Schedule = Inline()
        self._dropped: Counter[str] = Counter()

        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._inputs = Inputs(self, self._on_message, self._on_publishers)
        self._prediction = self.create_lifecycle_publisher(
            FusedPrediction, "~/prediction", PREDICTION_QOS, qos_overriding_options=OVERRIDABLE
        )
        self._classification = ClassificationPublisher(self)
        self._debug_image = self.create_publisher(
            Image, "~/debug_image", 1, qos_overriding_options=OVERRIDABLE, event_callbacks=UNWATCHED
        )
        self._model_info = self.create_publisher(
            String, "~/model_info", LATCHED_QOS, qos_overriding_options=OVERRIDABLE, event_callbacks=UNWATCHED
        )
        self._diagnostics = self.create_publisher(
            DiagnosticArray, "/diagnostics", PREDICTION_QOS, qos_overriding_options=OVERRIDABLE
        )
        self._deadline = Deadline(self._remaining_s, self._on_deadline)
        self._loop_keeper: DeadlineKeeper = _DeadlineTimer(self, self._deadline, self._steady)
        self._keeper: DeadlineKeeper = self._loop_keeper
        self._diagnostics_timer = self.create_timer(
            self._settings.diagnostics_period_s, self._on_diagnostics_timer, clock=self._steady
        )
        # In a callback group of its own: in a shared one, waiting for the model would hold up every message.
        self.create_service(Trigger, "~/reload_model", self._on_reload, callback_group=MutuallyExclusiveCallbackGroup())
        self.create_service(SetBool, "~/set_enabled", self._on_set_enabled)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._complete = True

    # --- lifecycle ---

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load and warm up the model; if that fails, the node stays unconfigured and ``failure`` says why."""
        try:
            self._settings = declare_node_parameters(self)
            self._model = self._load(self._settings)
            self._diagnostics_timer.timer_period_ns = int(self._settings.diagnostics_period_s * NANOSECONDS)
        except CANNOT_START as error:
            return self._failed(str(error), TransitionCallbackReturn.FAILURE)
        except Exception as error:  # rclpy would drop it, and the reason with it
            return self._failed(_unforeseen(error), TransitionCallbackReturn.ERROR)
        self.failure = ""
        self._announce(self._model)
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and start predicting."""
        assert self._model is not None  # the state machine has configured
        try:
            self._model.streams.update(declare_stream_parameters(self, self._model.bundle.manifest))
            for modality in self._model.bundle.manifest.modalities:
                self._inputs.open(modality, self._model.streams[modality.name])
        except ParameterError as error:
            self._inputs.close()
            return self._failed(str(error), TransitionCallbackReturn.FAILURE)
        except Exception as error:  # as in on_configure
            return self._failed(_unforeseen(error), TransitionCallbackReturn.ERROR)
        self.failure = ""
        result = super().on_activate(state)
        self._activated_ns = time.monotonic_ns()
        self._begin()
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and stop predicting; keep the model."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and its memory on the device."""
        self._model = self._frame = None
        self._states = ()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop from any state."""
        self._stop()
        self._model = None
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Return to unconfigured."""
        self._stop()
        self._model = None
        self.get_logger().error(f"a transition from '{state.label}' failed; the node is unconfigured again")
        return TransitionCallbackReturn.SUCCESS

    def _LifecycleNodeMixin__on_change_state(  # noqa: N802, the name in rclpy
        self, request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        """Refuse an impossible transition, which in rclpy of Jazzy ends the node (ros2/rclpy issue 1209)."""
        try:
            return super()._LifecycleNodeMixin__on_change_state(request, response)
        except RCLError as error:
            self.get_logger().error(
                f"transition {request.transition.id} is not possible: {first_line(error).partition(', at ')[0]} "
                "The node continues as it was"
            )
            response.success = False
            return response

    def direct_executor(self) -> DirectExecutor:
        """An executor that serves this node with the least work between two frames."""
        executor = DirectExecutor(
            self._inputs.direct,
            Deadline(lambda: self._remaining_s() if self._keeper is executor else None, self._on_deadline),
        )
        self._loop_keeper = executor
        return executor

    def _failed(self, reason: str, outcome: TransitionCallbackReturn) -> TransitionCallbackReturn:
        self.failure = reason
        self.get_logger().fatal(reason)
        return outcome

    def destroy_node(self) -> None:
        """Stop inference first, because a worker must not publish through a destroyed publisher."""
        if self._complete:
            self._stop()
        super().destroy_node()

    def _begin(self) -> None:
        """Start predicting with the scheduling of the model in use."""
        assert self._model is not None  # loaded
        self._active = True
        self._look_at_clock()
        self._keeper = self._loop_keeper
        if self._model.scheduling == "worker":
            worker = Worker(self._deadline)
            self._schedule, self._keeper = worker, worker
        self._schedule.submit(self._predict)

    def _pause(self) -> None:
        """Finish the inference under way and stop; the pipeline belongs to this thread again."""
        self._active = False
        self._keeper.rearm()
        self._schedule.stop()
        self._dropped.update(self._schedule.dropped)
        self._schedule = Inline()

    def _stop(self) -> None:
        self._pause()
        self._inputs.close()

    # --- model ---

    def _load(self, settings: NodeParameters) -> _Model:
        bundle = load_bundle(settings.model)
        streams = declare_stream_parameters(self, bundle.manifest)
        backend = make_backend(
            settings.backend,
            bundle,
            settings.device,
            settings.threads,
            half=settings.half,
            cuda_graphs=settings.cuda_graphs,
        )
        config = PipelineConfig(
            {name: s.thresholds for name, s in streams.items()},
            settings.max_gap_s,
            settings.drift_window_s,
            settings.min_confidence,
        )
        pipeline = Pipeline(bundle.manifest, backend, config)
        inference_ns = pipeline.warm_up()
        return _Model(
            bundle,
            backend,
            streams,
            pipeline,
            choose_scheduling(settings.scheduling, inference_ns),
            frozenset(m.name for m in bundle.manifest.modalities if m.paces_predictions),
        )

    def _announce(self, model: _Model) -> None:
        manifest = model.bundle.manifest
        self._model_info.publish(String(data=manifest.model_dump_json()))
        self._classification.announce(manifest)
        self.get_logger().info(
            f"model {manifest.name} from {model.bundle.directory} on {model.backend.device}, {model.scheduling}: "
            f"{', '.join(manifest.names)} -> {len(manifest.labels)} labels"
        )

    async def _on_reload(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Load the model that the parameter ``model`` names in a thread, and swap it in between two messages."""
        if self._model is None:
            response.success, response.message = False, "not configured; configure the node instead"
            return response
        loaded: Future = Future(executor=self.executor)
        loaded.add_done_callback(lambda _: None)  # a callback wakes the executor, which then continues below

        def load() -> None:
            try:
                loaded.set_result(self._load(declare_node_parameters(self)))
            except CANNOT_START as error:
                loaded.set_result(str(error))
            except Exception as error:  # the caller would wait forever
                loaded.set_result(_unforeseen(error))

        threading.Thread(target=load, name="reload_model", daemon=True).start()
        result = await loaded
        if isinstance(result, str):
            self.get_logger().error(f"reload: {result}; the model in use is kept")
            response.success, response.message = False, result
            return response
        self._swap(result)
        response.success, response.message = True, f"{result.bundle.manifest.name} on {result.backend.device}"
        return response

    def _swap(self, model: _Model) -> None:
        was_active = self._active
        self._pause()
        old, self._model = self._model, model
        same_inputs = old is not None and old.bundle.manifest.modalities == model.bundle.manifest.modalities
        if old is not None and same_inputs:
            model.pipeline.take_over(old.pipeline)
        else:
            self._frame = None
            if was_active:
                self._inputs.close()
                for modality in model.bundle.manifest.modalities:
                    self._inputs.open(modality, model.streams[modality.name])
        self._announce(model)
        if was_active:
            self._begin()

    # --- messages and predictions ---

    def _now_ns(self) -> int:
        """Steady time; under ``use_sim_time`` it is ``/clock``, so that a paused clock causes no silence."""
        if not self._simulated:
            return time.monotonic_ns()
        now_ns = self.get_clock().now().nanoseconds
        if now_ns < self._last_ns and self._model is not None:
            self.get_logger().info("/clock went back; all streams are reset")
            self._model.pipeline.reset()
        self._last_ns = now_ns
        return now_ns

    def _node_ns(self) -> int:
        """Time of header stamps: ``/clock`` under ``use_sim_time``, otherwise system time, read without slow rclpy."""
        return self.get_clock().now().nanoseconds if self._simulated else time.time_ns()

    def _look_at_clock(self) -> None:
        """Note whether ``/clock`` is in use; called seldom, because rcl takes a lock for it."""
        self._simulated = self.get_clock().ros_time_is_active

    def _on_message(self, name: str, read: Read, message: Any) -> None:
        model = self._model
        if self._active and model is not None:
            arrived_ns = time.perf_counter_ns()
            received_ns = self._node_ns()
            # Only the newest frame of a camera is kept in the queue; every chunk of sound is.
            slot = name if name in model.cameras else None
            self._schedule.submit(partial(self._take, name, read, message, arrived_ns, received_ns), slot)

    def _take(self, name: str, read: Read, message: Any, arrived_ns: int, received_ns: int) -> None:
        model = self._model
        assert model is not None  # only an active node has messages
        now_ns = self._now_ns()
        try:
            record = read(message, received_ns)
        except (UnknownFormatError, UnreadableError) as error:
            seen = model.pipeline.reject(name, str(error), now_ns)
        else:
            seen = model.pipeline.observe(name, record, now_ns)
            if isinstance(record, RawImage) and seen.rejected is None and name == model.pipeline.manifest.lead_camera:
                self._frame = record
        if seen.rejected is not None:
            self._complaints.say(name, seen.rejected, time.monotonic_ns())
        if seen.due:
            model.pipeline.trace.add("total", self._predict() - arrived_ns)
        else:
            self._note_states(model.pipeline.states(now_ns))
        model.pipeline.settle()

    def _on_publishers(self, name: str, count: int) -> None:
        def note() -> None:
            if self._model is not None:
                self._model.pipeline.publishers(name, count, self._now_ns())

        self._schedule.submit(note)

    def _on_deadline(self) -> None:
        if self._model is None or not self._active:
            return
        self._look_at_clock()
        if self._remaining_s():  # /clock is paused or slow
            self._keeper.rearm()
        else:
            self._predict()

    def _remaining_s(self) -> float | None:
        """Seconds until a prediction is due without a message, 0 if it is due now; ``None`` while inactive."""
        if self._model is None or not self._active:
            return None
        due_ns = self._model.pipeline.next_due_ns()
        return 0.0 if due_ns is None else max(0.0, (due_ns - self._now_ns()) / NANOSECONDS)

    def _predict(self) -> int:
        """Make a prediction and publish it; return ``perf_counter_ns`` after that."""
        assert self._model is not None  # only an active node predicts
        pipeline = self._model.pipeline
        started_ns = time.perf_counter_ns()
        prediction = pipeline.step(self._now_ns(), self._node_ns())
        stepped_ns = time.perf_counter_ns()
        if self._enabled:
            self._publish(prediction)
        published_ns = time.perf_counter_ns()
        pipeline.trace.add("publish", published_ns - stepped_ns)
        self._step_ns = published_ns - started_ns
        self._predictions += 1
        self._note_fault(self._model.backend.fault)
        self._note_states(report.state for report in prediction.modalities)
        self._keeper.rearm()
        return published_ns

    def _publish(self, prediction: Prediction) -> None:
        assert self._model is not None  # a prediction was just made
        frame_id = self._frame.frame_id if self._frame is not None else ""
        self._prediction.publish(prediction_to_message(prediction, self._node_ns(), frame_id))
        self._classification.publish(prediction, frame_id)
        camera = self._model.pipeline.manifest.lead_camera
        if self._frame is not None and camera is not None and self._debug_image.get_subscription_count():
            self._debug_image.publish(overlay_to_message(self._frame, prediction, camera))

    # --- parameters and diagnostics ---

    def _on_set_enabled(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        """Publish predictions or withhold them; streams are monitored either way."""
        self._enabled = request.data
        response.success, response.message = True, "enabled" if request.data else "disabled"
        return response

    def _on_set_parameters(self, parameters: Sequence[RosParameter]) -> SetParametersResult:
        changed = {p.name: p.value for p in parameters}
        try:
            thresholds = check_change(self, self._model.bundle.manifest if self._model else None, changed)
        except ParameterError as error:
            return SetParametersResult(successful=False, reason=str(error))
        if self._model is not None:
            pipeline = self._model.pipeline
            kept = {
                name: changed.get(name, getattr(pipeline.config, name))
                for name in ("max_gap_s", "drift_window_s", "min_confidence")
            }
            config = PipelineConfig(thresholds, **kept)
            self._schedule.submit(lambda: pipeline.configure(config))
        return SetParametersResult(successful=True)

    def _note_states(self, now: Iterable[StreamState]) -> None:
        states = tuple(now)
        if states != self._states:
            self._states = states
            self._publish_diagnostics()

    def _note_fault(self, fault: str) -> None:
        if fault != self._fault:
            self._fault = fault
            if fault:
                self.get_logger().error(fault)
            self._publish_diagnostics()

    def _on_diagnostics_timer(self) -> None:
        self._look_at_clock()
        if self._active:
            self._inputs.look_again()
        self._schedule.submit(self._publish_diagnostics)

    def _publish_diagnostics(self) -> None:
        message = DiagnosticArray(status=self._diagnose())
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    def _diagnose(self) -> list[DiagnosticStatus]:
        name = self.get_name()
        if self._model is None:
            level = DiagnosticStatus.ERROR if self.failure else DiagnosticStatus.WARN
            return [DiagnosticStatus(level=level, name=f"{name}: inference", message=self.failure or "not configured")]
        model = self._model
        grace_ns = int(self.get_parameter("waiting_grace_s").value * NANOSECONDS)
        waited_long = self._active and time.monotonic_ns() - self._activated_ns > grace_ns
        statuses = model.pipeline.statuses(self._now_ns()) if self._active else ()
        return [*(self._diagnose_stream(status, waited_long) for status in statuses), self._diagnose_inference(model)]

    def _diagnose_stream(self, status: StreamStatus, waited_long: bool) -> DiagnosticStatus:
        lost = self._not_served(status.name)
        share = self._lost_share.update(status.name, status.received, lost)
        return to_message(diagnose_stream(status, waited_long, lost, share), self.get_name())

    def _not_served(self, stream: str) -> int:
        """Count messages that were never decoded: lost in transport or replaced while the node was busy."""
        return self._inputs.missed[stream] + self._dropped[stream] + self._schedule.dropped[stream]

    def _diagnose_inference(self, model: _Model) -> DiagnosticStatus:
        activity = "disabled" if not self._enabled else "active" if self._active else "inactive"
        diagnostic = diagnose_inference(
            model.backend.device,
            activity,
            model.backend.fault or self.failure,
            model.pipeline.drift.findings(self._now_ns()),
            {
                "model": model.bundle.manifest.name,
                "device": model.backend.device,
                "scheduling": model.scheduling,
                "predictions (messages)": self._predictions,
            },
            {
                "last step (ms)": f"{self._step_ns / 1e6:.2f}",
                **{f"stage {stage} (ms)": f"{ms:.3f}" for stage, ms in model.pipeline.trace.medians_ms().items()},
            },
        )
        return to_message(diagnostic, self.get_name())


def _unforeseen(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def start(node: FusionNode) -> bool:
    """Configure and activate the node, unless the parameter ``autostart`` is false."""
    if not AUTOSTART.declare(node):
        return True
    started = (
        node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        and node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    )
    gc.freeze()  # searching the loaded model for garbage would delay predictions
    return started


def main(args: list[str] | None = None) -> None:
    """Entry point of ``ros2 run aecf_ros fusion_node``."""
    run_node(FusionNode, "fusion_node", CANNOT_START, args, start, FusionNode.direct_executor)


if __name__ == "__main__":
    main()
