"""Where inference runs, what it drops and what it says of itself: worker and inline, overload, several sensors, a
GPU that fails.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import rclpy
from audio_common_msgs.msg import AudioDataStamped, AudioInfo
from lifecycle_msgs.msg import Transition
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from aecf_msgs.msg import FusedPrediction
from aecf_ros.core.types import StreamState
from aecf_ros.modalities.messages import stamp_to_ns
from aecf_ros.nodes.fusion.inputs import LATCHED_QOS, Inputs
from aecf_ros.nodes.fusion.node import FusionNode, start
from aecf_ros.runtime import onnx_backend
from aecf_ros.runtime.onnx_backend import BoundEncoder

from .conftest import PATIENT, Peer
from .test_fusion_node import NOISE, Robot
from .test_lifecycle import call, change

STAGES = ("transport camera", "decode camera", "preprocess camera", "encoder camera", "head", "publish", "total")


@pytest.fixture
def robot(peer: Peer) -> Robot:
    return Robot(peer, Image)


def values(robot: Robot, name: str) -> dict[str, str]:
    """Key-values of the newest diagnosis of a stream or of the inference."""
    for array in reversed(robot.diagnostics):
        for status in array.status:
            if status.name.endswith(f": {name}"):
                return {v.key: v.value for v in status.values}
    return {}


def answered(robot: Robot, message: Image) -> bool:
    return any(p.header.stamp == message.header.stamp for p in robot.predictions)


@pytest.mark.parametrize("scheduling", ["inline", "worker"])
def test_every_frame_is_answered_stages_are_published_and_the_node_ends_cleanly(
    scheduling: str, start_node, robot: Robot
) -> None:
    node = start_node(*PATIENT, f"scheduling:={scheduling}")
    robot.until("camera", StreamState.OK, lambda: robot.images.publish(robot.image()))
    for _ in range(10):
        message = robot.image()
        robot.images.publish(message)
        robot.peer.wait_for(lambda: answered(robot, message), "the prediction of a frame")  # noqa: B023
    robot.peer.wait_for(lambda: "stage total (ms)" in values(robot, "inference"), "diagnostics with stages")
    said = values(robot, "inference")
    assert said["scheduling"] == scheduling and said["device"] == "cpu"
    assert all(float(said[f"stage {stage} (ms)"]) > 0 for stage in STAGES)
    assert float(said["stage encoder camera (ms)"]) < float(said["stage total (ms)"])
    assert any(
        key.startswith("drift camera embeddings (% of ") and 0 <= float(value) <= 100 for key, value in said.items()
    )
    assert node.stop(signal.SIGINT) == 0 and "Traceback" not in node.output()


def test_silence_is_noticed_and_the_lifecycle_is_gone_through_with_a_worker(start_node, robot: Robot) -> None:
    node = start_node("scheduling:=worker")
    robot.until("camera", StreamState.OK, lambda: robot.images.publish(robot.image()))
    robot.until("camera", StreamState.DROPPED, lambda: None)  # nothing but the worker's own deadline can tell
    assert call(robot.peer, Trigger, "reload_model", Trigger.Request()).success
    robot.until("camera", StreamState.OK, lambda: robot.images.publish(robot.image()))
    assert change(robot.peer, Transition.TRANSITION_DEACTIVATE) and change(robot.peer, Transition.TRANSITION_CLEANUP)
    assert change(robot.peer, Transition.TRANSITION_CONFIGURE) and change(robot.peer, Transition.TRANSITION_ACTIVATE)
    robot.until("camera", StreamState.OK, lambda: robot.images.publish(robot.image()))
    assert node.stop(signal.SIGTERM) == 0 and "Traceback" not in node.output()


@pytest.mark.parametrize("scheduling", ["inline", "worker"])
def test_frames_that_cannot_be_served_are_dropped_undecoded_and_counted(
    scheduling: str, start_node, robot: Robot
) -> None:
    start_node(*PATIENT, f"scheduling:={scheduling}")
    robot.until("camera", StreamState.OK, lambda: robot.images.publish(robot.image()))

    sent: list[Image] = []

    def send(message: Image) -> None:
        robot.images.publish(message)
        sent.append(message)

    def counted() -> tuple[int, int]:
        """Frames decoded and frames not served, by a diagnosis made after the newest frame was answered."""
        again_s = 0.0

        def send_one() -> None:
            nonlocal again_s
            if time.monotonic() > again_s:
                again_s = time.monotonic() + 2.0
                send(robot.image())

        robot.peer.wait_for(lambda: again_s and answered(robot, sent[-1]), "the prediction of a frame", send_one)
        answered_ns = robot.peer.node.get_clock().now().nanoseconds
        robot.peer.wait_for(
            lambda: robot.diagnostics and stamp_to_ns(robot.diagnostics[-1].header.stamp) > answered_ns,
            "a diagnosis made after that",
        )
        said = values(robot, "camera")
        return int(said["received (messages)"]), int(said["not served (messages)"])

    decoded_before, lost_before = counted()
    sent_before = len(sent)
    small = {"height": 12, "width": 16, "step": 48}
    for _ in range(60):  # much faster than any encoder
        send(robot.image(**small, data=NOISE.integers(190, 210, 576, np.uint8).tobytes()))
    decoded, lost = counted()
    assert decoded + lost - decoded_before - lost_before == len(sent) - sent_before
    assert lost > lost_before


class Ring:
    """Two cameras and two microphones that see and hear red."""

    def __init__(self, peer: Peer, rng: np.random.Generator) -> None:
        self._peer, self._rng = peer, rng
        self.cameras = [peer.node.create_publisher(Image, f"{name}/image", 5) for name in ("front", "rear")]
        self.microphones = [peer.node.create_publisher(AudioDataStamped, name, 5) for name in ("left", "right")]
        infos = [peer.node.create_publisher(AudioInfo, f"{name}_info", LATCHED_QOS) for name in ("left", "right")]
        for publisher in infos:
            publisher.publish(AudioInfo(channels=1, sample_rate=800, sample_format="S16LE", coding_format="wave"))

    def play(self) -> None:
        now_ns = self._peer.node.get_clock().now().nanoseconds
        for camera in self.cameras:
            picture = np.clip(np.array([230, 20, 20]) + self._rng.integers(-9, 10, (60, 80, 3)), 0, 255).astype(
                np.uint8
            )
            message = Image(encoding="rgb8", height=60, width=80, step=240, data=picture.tobytes())
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(now_ns, 10**9)
            camera.publish(message)
        for microphone in self.microphones:
            tone = 20_000 * np.sin(2 * np.pi * 50 * (now_ns / 1e9 + np.arange(80) / 800)) + self._rng.normal(0, 300, 80)
            message = AudioDataStamped()
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(now_ns - 100_000_000, 10**9)
            message.audio.data = tone.astype("<i2").tobytes()
            microphone.publish(message)


def test_two_cameras_and_two_microphones_are_fused(start_node, peer: Peer, make_bundle: Callable[..., Path]) -> None:
    bundle = make_bundle({"front": "image", "rear": "image", "left": "audio", "right": "audio"})
    start_node(f"model:={bundle}")
    predictions: list[FusedPrediction] = []
    peer.node.create_subscription(FusedPrediction, "/fusion_node/prediction", predictions.append, 10)
    ring = Ring(peer, np.random.default_rng(0))
    peer.wait_for(
        lambda: predictions and all(m.used for m in predictions[-1].modalities), "a prediction of all four", ring.play
    )
    fused = predictions[-1]
    assert [m.name for m in fused.modalities] == ["front", "rear", "left", "right"]
    assert fused.label == "red" and {m.label for m in fused.modalities[:2]} == {"red"}
    peer.node.destroy_publisher(ring.cameras.pop(0))
    peer.wait_for(
        lambda: [m.used for m in predictions[-1].modalities] == [False, True, True, True],
        "a prediction of the three that are left",
        ring.play,
    )


class FailingGpuSession:
    """A session that says it runs on CUDA; once ``broken`` is set, its GPU has fallen off the bus."""

    broken = False

    def __init__(self, path: str, options: ort.SessionOptions) -> None:
        self._session = _REAL_SESSION(path, options, providers=["CPUExecutionProvider"])

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def run_with_iobinding(self, binding: ort.IOBinding) -> None:
        if FailingGpuSession.broken:
            raise RuntimeError("CUDA failure 719: unspecified launch failure")
        self._session.run_with_iobinding(binding)

    def __getattr__(self, name: str) -> object:
        return getattr(self._session, name)


_REAL_SESSION = ort.InferenceSession


@pytest.fixture
def node_on_a_gpu(domain: int, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SingleThreadedExecutor]:
    """A fusion node in this process whose GPU is a FailingGpuSession; the executor that spins it."""

    def session(path: str, options: ort.SessionOptions, providers: list[str]) -> object:
        return (
            _REAL_SESSION(path, options, providers=providers)
            if providers == ["CPUExecutionProvider"]
            else FailingGpuSession(path, options)
        )

    monkeypatch.setattr(FailingGpuSession, "broken", False)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(ort, "InferenceSession", session)
    monkeypatch.setattr(onnx_backend, "BoundEncoder", partial(BoundEncoder, device="cpu"))
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    limits = [Parameter(name, value=float(value)) for name, _, value in (limit.partition(":=") for limit in PATIENT)]
    node = FusionNode(
        context=context,
        parameter_overrides=[Parameter("model", value=str(tiny_bundle)), Parameter("device", value="cuda"), *limits],
    )
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    assert start(node)
    yield executor
    executor.shutdown()
    node.destroy_node()
    context.try_shutdown()


def test_a_gpu_that_fails_costs_no_prediction_and_is_an_error_in_diagnostics(
    node_on_a_gpu: SingleThreadedExecutor, robot: Robot
) -> None:
    def spin_node() -> None:
        node_on_a_gpu.spin_once(timeout_sec=0.01)

    def send() -> None:
        robot.images.publish(robot.image())
        spin_node()

    robot.until("camera", StreamState.OK, send)
    robot.peer.wait_for(
        lambda: values(robot, "inference").get("device") == "cuda", "diagnostics to name the device", spin_node
    )
    assert robot.diagnosis("inference") == "0 active on cuda"
    FailingGpuSession.broken = True
    for _ in range(5):
        message = robot.image()
        robot.images.publish(message)
        robot.peer.wait_for(
            lambda message=message: answered(robot, message),
            "the prediction of a frame, the one at which the GPU failed too",
            spin_node,
        )  # noqa: B023
    robot.peer.wait_for(
        lambda: values(robot, "inference").get("device") == "cpu", "diagnostics to name the device", spin_node
    )
    assert re.match(r"2 cuda failed and was given up for the CPU \(CUDA failure 719", robot.diagnosis("inference"))
    assert robot.predictions[-1].modalities[0].used


def out_of_memory(*args: object, **kwargs: object) -> None:
    raise RuntimeError("CUDA out of memory\nTried to allocate 2 GiB")


@pytest.fixture
def unconfigured(domain: int, tiny_bundle: Path) -> Iterator[FusionNode]:
    """A fusion node in this process that nobody has configured."""
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    node = FusionNode(context=context, parameter_overrides=[Parameter("model", value=str(tiny_bundle))])
    yield node
    node.destroy_node()
    context.try_shutdown()


def test_what_nobody_foresaw_goes_through_the_error_state_with_a_reason(
    unconfigured: FusionNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("aecf_ros.nodes.fusion.node.make_backend", out_of_memory)
        assert unconfigured.trigger_configure() == TransitionCallbackReturn.ERROR
        assert unconfigured.failure == "RuntimeError: CUDA out of memory"
    assert unconfigured.trigger_configure() == TransitionCallbackReturn.SUCCESS  # which only an unconfigured node can
    with monkeypatch.context() as patch:
        patch.setattr(Inputs, "open", out_of_memory)
        assert unconfigured.trigger_activate() == TransitionCallbackReturn.ERROR
    assert unconfigured.failure == "RuntimeError: CUDA out of memory"
    assert unconfigured.trigger_configure() == unconfigured.trigger_activate() == TransitionCallbackReturn.SUCCESS
    assert unconfigured.failure == ""


def test_a_reload_that_breaks_is_answered_and_the_model_stays(
    node_on_a_gpu: SingleThreadedExecutor, robot: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aecf_ros.nodes.fusion.node.make_backend", out_of_memory)
    client = robot.peer.node.create_client(Trigger, "/fusion_node/reload_model")

    def spin_node() -> None:
        node_on_a_gpu.spin_once(timeout_sec=0.01)

    answer = robot.peer.ask(client, Trigger.Request(), spin_node)
    assert not answer.success and answer.message == "RuntimeError: CUDA out of memory"
    before = len(robot.predictions)
    robot.peer.wait_for(lambda: len(robot.predictions) > before, "predictions of the model in use", spin_node)
