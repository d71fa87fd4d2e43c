"""The camera node over real OpenCV: video files, and an MJPEG stream over HTTP whose server dies and comes back. No
V4L2 device is used.
"""

from __future__ import annotations

import http.server
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402

from aecf_ros.modalities.messages import stamp_to_ns  # noqa: E402
from aecf_ros.nodes.drivers.camera import Camera, CameraSettings, device_properties  # noqa: E402
from aecf_ros.nodes.drivers.camera_node import CAMERA  # noqa: E402
from aecf_ros.nodes.ros.shared_memory import orphans  # noqa: E402

from .conftest import ROOT, WAIT_S, Peer
from .processes import NodeProcess, started_together

HEIGHT, WIDTH, RATE_HZ, FRAMES = 120, 160, 20.0, 40


def picture(number: int) -> np.ndarray:
    """A frame that says its number: three fields of gray levels far enough apart to survive JPEG, and a red corner."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for digit in range(3):
        image[:, digit * 48 : (digit + 1) * 48] = 40 + (number // 4**digit % 4) * 50
    image[:30, 144:] = (0, 0, 255)
    return image


def number_of(image: np.ndarray) -> int:
    """The number that ``picture`` drew; BGR or RGB."""
    return sum(round((float(image[60:, d * 48 + 8 : d * 48 + 40].mean()) - 40) / 50) * 4**d for d in range(3))


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), RATE_HZ, (WIDTH, HEIGHT))
    for number in range(FRAMES):
        writer.write(picture(number))
    writer.release()
    return path


@pytest.fixture
def start(domain: int, tmp_path: Path) -> Iterator[Callable[..., NodeProcess]]:
    started: list[NodeProcess] = []

    def start_one(*parameters: str) -> NodeProcess:
        started.append(
            NodeProcess("aecf_ros.nodes.drivers.camera_node", tmp_path / f"camera{len(started)}.log", *parameters)
        )
        return started[-1]

    yield start_one
    for one in started:
        one.end()


class Viewer:
    """Everything the node says."""

    def __init__(self, peer: Peer, image_type: type = Image) -> None:
        self.peer = peer
        self.images: list = []
        self.received_ns: list[int] = []
        self.diagnostics: list[dict[str, str]] = []
        clock = peer.node.get_clock()

        def on_image(message: object) -> None:
            self.images.append(message)
            self.received_ns.append(clock.now().nanoseconds)

        peer.node.create_subscription(image_type, "camera/image", on_image, 50)
        peer.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 20)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.diagnostics.append(
                {
                    "message": status.message,
                    "level": str(int.from_bytes(status.level, "big")),
                    **{v.key: v.value for v in status.values},
                }
            )

    def wait_for_images(self, more: int) -> list:
        start = len(self.images)
        self.peer.wait_for(lambda: len(self.images) >= start + more, f"{more} more images")
        return self.images[start:]


def pixels(message: Image) -> np.ndarray:
    return (
        np.frombuffer(bytes(message.data), np.uint8)
        .reshape(message.height, message.step)[:, : 3 * message.width]
        .reshape(message.height, message.width, 3)
    )


def test_frames_of_a_file_come_in_order_at_its_pace_and_are_stamped_when_grabbed(
    start, peer: Peer, video: Path
) -> None:
    viewer = Viewer(peer)
    start(f"source:={video}", "loop:=true", "frame_id:=front")
    images = viewer.wait_for_images(FRAMES + 10)  # longer than the file, so that it has started again
    first = images[0]
    assert (first.encoding, first.height, first.width, first.step, first.header.frame_id) == (
        "bgr8",
        HEIGHT,
        WIDTH,
        3 * WIDTH,
        "front",
    )
    steps = np.diff([number_of(pixels(m)) for m in images]) % FRAMES
    stamps = np.array([stamp_to_ns(m.header.stamp) for m in images])
    assert (np.diff(stamps) > 0).all()
    assert (steps > 0).all() and (steps <= np.diff(stamps) / 1e9 * RATE_HZ + 2).all(), (
        steps
    )  # in order; a busy machine may drop some
    assert (
        stamps[-1] - stamps[0]
    ) / 1e9 > 0.8 * steps.sum() / RATE_HZ  # never faster than its pace; a busy machine may be slower
    assert (np.array(viewer.received_ns[-len(images) :]) > stamps).all()
    assert pixels(first)[10, 150, 2] > 150 and pixels(first)[10, 150, 0] < 100  # the corner is red


def test_rgb_is_published_where_it_is_asked_for(start, peer: Peer, video: Path) -> None:
    raw = Viewer(peer)
    start(f"source:={video}", "loop:=true", "encoding:=rgb8")
    message = raw.wait_for_images(1)[0]
    assert message.encoding == "rgb8" and pixels(message)[10, 150, 0] > 150 and pixels(message)[10, 150, 2] < 100


def test_jpeg_is_published_where_it_is_asked_for(start, peer: Peer, video: Path) -> None:
    jpegs = Viewer(peer, CompressedImage)
    start(f"source:={video}", "loop:=true", "transport:=compressed")
    message = jpegs.wait_for_images(1)[0]
    image = cv2.imdecode(np.frombuffer(bytes(message.data), np.uint8), cv2.IMREAD_COLOR)
    assert message.format == "jpeg" and image.shape == (HEIGHT, WIDTH, 3) and image[10, 150, 2] > 150
    assert 0 <= number_of(image) < FRAMES


def test_a_file_that_is_not_looped_ends_the_node_with_0(start, peer: Peer, video: Path) -> None:
    node = start(f"source:={video}", "rate_hz:=100.0")
    assert node.process.wait(WAIT_S) == 0
    assert f"has ended after {FRAMES} frames" in node.output()


def test_diagnostics_say_rate_size_and_drops(start, peer: Peer, video: Path) -> None:
    viewer = Viewer(peer)
    start(f"source:={video}", "loop:=true")
    peer.wait_for(
        lambda: viewer.diagnostics and int(viewer.diagnostics[-1]["grabbed (frames)"]) > 20,
        "diagnostics after 20 frames",
    )
    told = viewer.diagnostics[-1]
    assert told["level"] == "0" and told["size (pixels)"] == f"{WIDTH}x{HEIGHT}" and told["source"] == str(video)
    assert 0.0 < max(float(d["grabbed (Hz)"]) for d in viewer.diagnostics) < 2 * RATE_HZ
    assert 0 <= int(told["dropped (frames)"]) <= int(told["grabbed (frames)"])


class MjpegServer:
    """An IP camera: MJPEG over HTTP."""

    def __init__(self, port: int = 0) -> None:
        going = self._going = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # noqa: N802
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                number = 0
                while not going.wait(0.05):
                    jpeg = cv2.imencode(".jpg", picture(number % FRAMES))[1].tobytes()
                    self.wfile.write(
                        b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(jpeg), jpeg)
                    )
                    number += 1

            def log_message(self, *_: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            allow_reuse_address = True
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def die(self) -> None:
        self._going.set()
        self._server.shutdown()
        self._server.server_close()


def test_a_stream_whose_server_dies_is_opened_again_when_it_is_back(start, peer: Peer) -> None:
    viewer = Viewer(peer)
    server = MjpegServer()
    node = start(f"source:=http://127.0.0.1:{server.port}/video", "reopen_at_most_s:=0.5")
    try:
        viewer.wait_for_images(5)
        server.die()
        peer.wait_for(
            lambda: viewer.diagnostics and viewer.diagnostics[-1]["level"] == "2", "diagnostics to be an ERROR"
        )
        server = MjpegServer(server.port)
        viewer.wait_for_images(5)
        peer.wait_for(lambda: viewer.diagnostics[-1]["level"] == "0", "diagnostics to be well again")
    finally:
        server.die()
    assert int(viewer.diagnostics[-1]["opened (times)"]) >= 2
    assert node.output().count("trying to open it again") >= 1 and node.output().count("is back after") == 1, (
        node.output()
    )


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_node_with_0_and_nothing_in_shared_memory(
    how: signal.Signals, start, domain: int, video: Path
) -> None:
    peer = Peer(domain)
    viewer = Viewer(peer)
    node = start(f"source:={video}", "loop:=true")
    viewer.wait_for_images(2)
    mapped = node.segments()
    peer.close()
    assert node.stop(how) == 0, node.output()
    assert "Traceback" not in node.output()
    assert mapped and not orphans(mapped)


REFUSED = {
    ("source:=/nowhere/video.avi",): "camera '/nowhere/video.avi': no such file",
    ("source:=/dev/video99",): "camera '/dev/video99': no such device",
    ("source:='97'",): "camera '97' does not open",
    ("source:=http://127.0.0.1:9/video",): "camera 'http://127.0.0.1:9/video' does not open",
    ("transport:=theora",): "parameter transport is 'theora'; use one of raw, compressed",
    ("jpeg_quality:=101",): "jpeg_quality is 101; give a value of type int from 1 to 100",
}


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, ...], NodeProcess]]:
    with started_together("aecf_ros.nodes.drivers.camera_node", tmp_path_factory.mktemp("refused"), REFUSED) as nodes:
        yield nodes


@pytest.mark.parametrize("parameters", REFUSED, ids=" ".join)
def test_a_node_that_cannot_start_says_why_in_one_line(
    parameters: tuple[str, ...], refused: dict[tuple[str, ...], NodeProcess]
) -> None:
    node = refused[parameters]
    assert node.process.wait(WAIT_S) == 1
    assert len(node.output().splitlines()) == 1 and REFUSED[parameters] in node.output(), node.output()


def settings(source: Path, **changes: object) -> CameraSettings:
    return CameraSettings(
        **(
            {
                "source": str(source),
                "fourcc": "",
                "width": 0,
                "height": 0,
                "rate_hz": 200.0,
                "loop": True,
                "silent_after_s": 1.0,
                "reopen_after_s": 0.05,
                "reopen_at_most_s": 0.1,
            }
            | changes
        )
    )


def test_one_who_takes_slowly_gets_the_newest_frame_and_the_rest_is_counted(video: Path) -> None:
    camera = Camera(settings(video), time.monotonic_ns, lambda: None)
    camera.start()
    give_up = time.monotonic() + WAIT_S

    def wait_until_grabbed(count: int) -> int:
        while camera.health().grabbed < count and time.monotonic() < give_up:
            time.sleep(0.005)
        return camera.health().grabbed

    some, some_ns = wait_until_grabbed(15), time.monotonic_ns()
    wait_until_grabbed(some + 15)
    shot, health = camera.take(), camera.health()
    camera.stop()
    assert shot is not None and shot.stamp_ns > some_ns
    assert health.grabbed >= 30 and health.dropped >= some


def test_a_device_is_asked_for_its_pixel_format_before_size_and_rate(video: Path) -> None:
    asked = device_properties(settings(video, fourcc="MJPG", width=1280, height=720, rate_hz=30.0))
    assert asked == [
        (cv2.CAP_PROP_FOURCC, cv2.VideoWriter_fourcc(*"MJPG")),
        (cv2.CAP_PROP_FRAME_WIDTH, 1280),
        (cv2.CAP_PROP_FRAME_HEIGHT, 720),
        (cv2.CAP_PROP_FPS, 30.0),
    ]
    assert device_properties(settings(video, rate_hz=0.0)) == []


def test_the_shipped_parameter_file_holds_the_declared_defaults() -> None:
    shipped = yaml.safe_load((ROOT / "config" / "camera_node.yaml").read_text())["/**"]["ros__parameters"]
    assert shipped == {p.name: p.default for p in CAMERA}
