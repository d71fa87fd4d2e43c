"""The node as a robot meets it: its own process, real DDS, messages good and bad."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest
import yaml
from audio_common_msgs.msg import AudioData, AudioDataStamped, AudioInfo
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.duration import Duration
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from aecf_msgs.msg import FusedPrediction
from aecf_msgs.msg import ModalityReport as ReportMsg
from aecf_ros.core.bundle import load_bundle
from aecf_ros.core.types import NANOSECONDS, StreamState, subset_name
from aecf_ros.nodes.fusion.diagnostics import LOG_PERIOD_NS
from aecf_ros.nodes.fusion.inputs import LATCHED_QOS
from aecf_ros.nodes.fusion.node import PREDICTION_QOS
from aecf_ros.nodes.ros.shared_memory import files_of, orphans

from .conftest import MODEL, PATIENT, ROOT, UNPACED, FusionProcess, Peer
from .processes import NodeProcess, started_together

CHUNK_NS = 100_000_000
NOISE = np.random.default_rng(0)


def card() -> np.ndarray:
    """A bright card before a sensor, whose noise is never twice the same."""
    return NOISE.integers(195, 206, (120, 160, 3), np.uint8)


class Robot:
    """The sensors, and everything the node under test publishes."""

    def __init__(self, peer: Peer, image_type: type) -> None:
        self.peer = peer
        self.predictions: list[FusedPrediction] = []
        self.diagnostics: list[DiagnosticArray] = []
        node = peer.node
        self.images = node.create_publisher(image_type, "camera/image", 5)
        self.audio = node.create_publisher(AudioDataStamped, "audio", 5)
        self.audio_info = node.create_publisher(AudioInfo, "audio_info", LATCHED_QOS)
        node.create_subscription(FusedPrediction, "/fusion_node/prediction", self.predictions.append, PREDICTION_QOS)
        node.create_subscription(DiagnosticArray, "/diagnostics", self.diagnostics.append, 20)

    def header(self, frame_id: str = "front_camera") -> Header:
        return Header(stamp=self.peer.node.get_clock().now().to_msg(), frame_id=frame_id)

    def image(self, **changes: object) -> Image:
        fields = {
            "header": self.header(),
            "encoding": "rgb8",
            "height": 120,
            "width": 160,
            "step": 480,
            "data": card().tobytes(),
        }
        return Image(**(fields | changes))

    def jpeg(self, cut: int = 0) -> CompressedImage:
        data = cv2.imencode(".jpg", card())[1].tobytes()
        return CompressedImage(header=self.header(), format="jpeg", data=data[: len(data) - cut])

    def chunk(self, size: int = 3200) -> AudioDataStamped:
        message = AudioDataStamped(header=self.header("head_microphone"))
        message.header.stamp = (self.peer.node.get_clock().now() - Duration(nanoseconds=CHUNK_NS)).to_msg()
        message.audio.data = NOISE.integers(0, 256, size, np.uint8).tobytes()
        return message

    def tell_format(self, **changes: object) -> None:
        self.audio_info.publish(
            AudioInfo(
                **({"channels": 1, "sample_rate": 16000, "sample_format": "S16LE", "coding_format": "wave"} | changes)
            )
        )

    def state(self, name: str) -> StreamState | None:
        """State of a stream in the newest prediction."""
        if not self.predictions:
            return None
        return StreamState(next(m.state for m in self.predictions[-1].modalities if m.name == name))

    def diagnosis(self, name: str) -> str:
        """Newest diagnostic text of a stream, with its level."""
        for array in reversed(self.diagnostics):
            for status in array.status:
                if status.name.endswith(f": {name}"):
                    return f"{int.from_bytes(status.level, 'big')} {status.message}"
        return ""

    def until(self, name: str, state: StreamState, between) -> None:
        self.peer.wait_for(
            lambda: self.state(name) is state, f"{name} to become {state.name}; it is {self.state(name)}", between
        )


@pytest.fixture
def start_node(start_node: Callable[..., FusionProcess]) -> Callable[..., FusionProcess]:
    return lambda *parameters: start_node(*UNPACED, *parameters)


@pytest.fixture
def robot(peer: Peer) -> Robot:
    return Robot(peer, Image)


@pytest.fixture
def phone(peer: Peer) -> Robot:
    """A robot whose camera sends JPEG."""
    return Robot(peer, CompressedImage)


def test_every_frame_delivered_gets_one_prediction_of_its_own(start_node, robot: Robot) -> None:
    start_node(*PATIENT)
    robot.until("camera", StreamState.OK, lambda: robot.images.publish(robot.image()))
    for _ in range(20):
        message = robot.image()
        robot.images.publish(message)
        robot.peer.wait_for(
            lambda stamp=message.header.stamp: any(p.header.stamp == stamp for p in robot.predictions),
            "the prediction of a frame",
        )
    stamps = [(p.header.stamp.sec, p.header.stamp.nanosec) for p in robot.predictions if p.modalities[0].used]
    assert len(set(stamps)) >= 20


def test_a_prediction_is_complete_and_consistent(start_node, robot: Robot) -> None:
    start_node(*PATIENT)
    robot.tell_format()

    def feed() -> None:
        robot.images.publish(robot.image())
        robot.audio.publish(robot.chunk())

    robot.until("audio", StreamState.OK, feed)
    robot.until("camera", StreamState.OK, feed)
    manifest = load_bundle(MODEL).manifest
    prediction = robot.predictions[-1]
    assert prediction.header.frame_id == "front_camera"
    assert prediction.model == manifest.name
    assert prediction.label == manifest.labels[prediction.class_id]
    assert len(prediction.probabilities) == len(manifest.labels)
    assert sum(prediction.probabilities) == pytest.approx(1.0, abs=1e-4)
    assert max(prediction.probabilities) == pytest.approx(prediction.confidence, abs=1e-5)
    assert sum(m.gate_weight for m in prediction.modalities) == pytest.approx(1.0, abs=1e-4)
    assert [m.name for m in prediction.modalities] == manifest.names
    assert prediction.latency.sec >= 0
    assert prediction.coverage == pytest.approx(manifest.calibration.coverage, abs=1e-6)
    assert set(prediction.prediction_set) <= set(manifest.labels)


def test_microphone_alone_keeps_predictions_coming_and_its_loss_leaves_an_abstaining_prior(
    start_node, robot: Robot
) -> None:
    start_node()
    robot.tell_format()
    robot.until("audio", StreamState.OK, lambda: robot.audio.publish(robot.chunk()))
    robot.peer.wait_for(
        lambda: [m.used for m in robot.predictions[-1].modalities] == [False, True],
        "a prediction of audio alone",
        lambda: robot.audio.publish(robot.chunk()),
    )
    robot.until("audio", StreamState.DROPPED, lambda: None)
    last = robot.predictions[-1]
    assert last.abstain and last.abstain_reason == "no usable stream"
    names = [m.name for m in last.modalities]
    assert subset_name(names, [m.used for m in last.modalities]) == "none"
    assert [m.gate_weight for m in last.modalities] == [0.0] * len(names)


def test_a_publisher_that_goes_away_is_noticed_at_once_and_its_successor_is_taken(start_node, robot: Robot) -> None:
    start_node(
        "camera.stale_after_s:=60.0", "camera.dropped_after_s:=60.0"
    )  # so that silence cannot be what is noticed
    robot.until("camera", StreamState.OK, lambda: robot.images.publish(robot.image()))
    robot.peer.node.destroy_publisher(robot.images)
    robot.until("camera", StreamState.DROPPED, lambda: None)
    robot.peer.wait_for(
        lambda: "last publisher is gone" in robot.diagnosis("camera"), "diagnostics to say that the publisher is gone"
    )
    robot.images = robot.peer.node.create_publisher(Image, "camera/image", 5)
    robot.until("camera", StreamState.OK, lambda: robot.images.publish(robot.image()))


BAD_IMAGES = {
    "empty image data": ({"data": b""}, "image data is empty"),
    "wrong step": ({"step": 100}, "step 100 is shorter than a row"),
    "unknown encoding": ({"encoding": "thermal12"}, "encoding 'thermal12' is not supported"),
}
BAD_FORMATS = {
    "unknown sample format": ({"sample_format": "ULAW"}, "sample format 'ULAW' is not supported"),
    "zero sample rate": ({"sample_rate": 0}, "sample rate 0 Hz is out of bounds"),
}


def assert_rejected_and_recovered(
    robot: Robot, node: FusionProcess, name: str, reason: str, send_bad, send_good
) -> None:
    """Bad messages make the stream REJECTED, a log line every five seconds says why, diagnostics say why, and good
    ones end it.
    """
    robot.until(name, StreamState.OK, send_good)
    robot.until(name, StreamState.REJECTED, send_bad)
    robot.peer.wait_for(
        lambda: reason in robot.diagnosis(name),
        f"diagnostics to say '{reason}'; they say '{robot.diagnosis(name)}'",
        send_bad,
    )
    assert robot.diagnosis(name).startswith(str(int.from_bytes(DiagnosticStatus.ERROR, "big")))
    before = len(robot.predictions)
    robot.peer.wait_for(lambda: len(robot.predictions) > before + 2, "predictions to go on", send_bad)
    robot.until(name, StreamState.OK, send_good)
    said_s = [float(re.search(r"\[(\d+\.\d+)\]", line)[1]) for line in node.output().splitlines() if reason in line]
    assert said_s and (np.diff(said_s) > 0.99 * LOG_PERIOD_NS / NANOSECONDS).all(), node.output()
    assert node.process.poll() is None


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_image_is_named_once_and_nothing_dies(case: str, start_node, robot: Robot) -> None:
    changes, reason = BAD_IMAGES[case]
    assert_rejected_and_recovered(
        robot,
        start_node(),
        "camera",
        reason,
        lambda: robot.images.publish(robot.image(**changes)),
        lambda: robot.images.publish(robot.image()),
    )


def test_truncated_jpeg_is_named_once_and_nothing_dies(start_node, phone: Robot) -> None:
    assert_rejected_and_recovered(
        phone,
        start_node("camera.transport:=compressed"),
        "camera",
        "is truncated",
        lambda: phone.images.publish(phone.jpeg(cut=100)),
        lambda: phone.images.publish(phone.jpeg()),
    )


def test_odd_length_pcm_is_named_once_and_nothing_dies(start_node, robot: Robot) -> None:
    robot.tell_format()
    assert_rejected_and_recovered(
        robot,
        start_node(),
        "audio",
        "is not a whole number of 2-byte samples",
        lambda: robot.audio.publish(robot.chunk(size=3201)),
        lambda: robot.audio.publish(robot.chunk()),
    )


@pytest.mark.parametrize("case", BAD_FORMATS)
def test_bad_audio_format_is_named_once_and_nothing_dies(case: str, start_node, robot: Robot) -> None:
    changes, reason = BAD_FORMATS[case]

    def send(**format_changes: object) -> None:
        robot.tell_format(**format_changes)
        robot.audio.publish(robot.chunk())

    assert_rejected_and_recovered(robot, start_node(), "audio", reason, lambda: send(**changes), send)


def test_a_compressed_camera_that_appears_later_is_found_by_itself(start_node, phone: Robot) -> None:
    phone.peer.node.destroy_publisher(phone.images)
    start_node()
    phone.peer.wait_for(lambda: phone.predictions, "predictions before any camera is there")
    phone.images = phone.peer.node.create_publisher(CompressedImage, "camera/image", 5)
    phone.until("camera", StreamState.OK, lambda: phone.images.publish(phone.jpeg()))


def test_audio_without_a_header_is_found_and_its_stamps_said_to_be_arrivals(start_node, robot: Robot) -> None:
    robot.peer.node.destroy_publisher(robot.audio)
    robot.audio = robot.peer.node.create_publisher(AudioData, "audio", 5)
    robot.tell_format()
    noise = np.random.default_rng(0)
    start_node()
    robot.until(
        "audio",
        StreamState.OK,
        lambda: robot.audio.publish(AudioData(data=noise.integers(-2000, 2000, 1600, np.int16).tobytes())),
    )


def test_a_publisher_whose_qos_does_not_fit_is_named_with_both_profiles(start_node, robot: Robot) -> None:
    robot.peer.node.destroy_publisher(robot.audio_info)
    node = start_node()
    robot.peer.wait_for(lambda: robot.predictions, "the node")
    robot.peer.node.create_publisher(
        AudioInfo, "audio_info", QoSProfile(depth=1)
    )  # volatile, where a latched one is asked for
    robot.peer.wait_for(
        lambda: "/audio_info: the publisher's QoS does not fit" in node.output(), "a line that names the profiles"
    )
    (line,) = [line for line in node.output().splitlines() if "does not fit" in line]
    assert "we ask for reliability RELIABLE, durability TRANSIENT_LOCAL" in line
    assert "it offers " in line and ": reliability RELIABLE, durability VOLATILE" in line
    assert "UNKNOWN" not in line


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_node_cleanly_with_nothing_left_in_shared_memory(
    how: signal.Signals, start_node, domain: int
) -> None:
    peer = Peer(domain)
    robot = Robot(peer, Image)
    node = start_node()
    robot.until("camera", StreamState.OK, lambda: robot.images.publish(robot.image()))
    # Its own segments. Ports are counted by every participant of a host, and Fast DDS itself now and then leaves one.
    files = {path for path in files_of(node.process.pid) if "_port" not in path.name}
    assert files
    assert node.stop(how) == 0
    assert "Traceback" not in node.output()
    peer.close()
    assert not orphans(files)


REFUSED = {
    ("model:=/nowhere/model",): "no such model directory",
    ("device:=cuda",): "device 'cuda' is not in this onnxruntime",
    ("backend:=tflite",): "parameter backend is 'tflite'",
    ("camera.stale_after_s:=5.0",): "stale_after_s <= dropped_after_s",
    ("camera.stale_after_s:=-1.0",): "camera.stale_after_s is -1.0; give a value of type float from 0.01 to 60",
    ("threads:=many",): "threads is 'many'; give a value of type int from 1 to 64",
}


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, ...], NodeProcess]]:
    with started_together("aecf_ros.nodes.fusion.node", tmp_path_factory.mktemp("refused"), REFUSED) as nodes:
        yield nodes


@pytest.mark.parametrize("parameters", REFUSED, ids=" ".join)
def test_a_node_that_cannot_start_says_why_in_one_line(
    parameters: tuple[str, ...], refused: dict[tuple[str, ...], NodeProcess]
) -> None:
    if parameters == ("device:=cuda",):
        import onnxruntime

        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            pytest.skip("this machine's onnxruntime has CUDA")
    node = refused[parameters]
    assert node.process.wait(60) == 1
    assert "Traceback" not in node.output()
    assert len([line for line in node.output().splitlines() if REFUSED[parameters] in line]) == 1, node.output()


def test_the_shipped_parameter_file_holds_the_declared_defaults() -> None:
    from aecf_ros.nodes.fusion.parameters import NODE, STREAM, options_of

    shipped = yaml.safe_load((ROOT / "config" / "fusion_node.yaml").read_text())["/**"]["ros__parameters"]
    declared = {p.name: p.default for p in NODE}
    declared["camera"] = {p.name: p.default for p in (*STREAM, *options_of("image"))}
    declared["audio"] = {p.name: p.default for p in (*STREAM, *options_of("audio"))}
    assert shipped == declared


def test_states_have_the_numbers_of_the_message() -> None:
    assert {state.name: getattr(ReportMsg, state.name) for state in StreamState} == {
        state.name: int(state) for state in StreamState
    }
