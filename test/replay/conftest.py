"""Small real recordings, written by rosbags with the message definitions of dev/interfaces. Times are seconds from
the start.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

INTERFACES = Path(__file__).resolve().parents[2] / "dev" / "interfaces"
START_NS = 1_700_000_000_000_000_000
COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
TONES_HZ = {"red": 50.0, "green": 100.0, "blue": 200.0}


class Recording:
    """Collects messages for the tiny bundle of ``test/conftest.py`` and writes them as a bag."""

    def __init__(self) -> None:
        self.store = get_typestore(Stores.ROS2_JAZZY)
        for file in sorted((INTERFACES / "audio_common_msgs" / "msg").glob("*.msg")):
            self.store.register(get_types_from_msg(file.read_text(), f"audio_common_msgs/msg/{file.stem}"))
        self.messages: list[tuple[float, str, Any]] = []
        self.noise = np.random.default_rng(0)

    def make(self, name: str, *fields: object) -> Any:
        return self.store.types[name](*fields)

    def header(self, stamp_s: float, frame_id: str = "") -> Any:
        ns = START_NS + round(stamp_s * 1e9)
        return self.make(
            "std_msgs/msg/Header", self.make("builtin_interfaces/msg/Time", ns // 10**9, ns % 10**9), frame_id
        )

    def add(self, at_s: float, topic: str, message: Any) -> "Recording":
        self.messages.append((at_s, topic, message))
        return self

    def picture(self, label: str) -> np.ndarray:
        """The color of a label with the noise of a sensor, which is never twice the same."""
        return np.abs(COLORS[label] - np.abs(self.noise.normal(0, 3, (8, 8, 3)))).astype(np.uint8)

    def image(self, at_s: float, label: str, topic: str = "/camera/image", late_s: float = 0.0) -> "Recording":
        data = self.picture(label).ravel()
        return self.add(
            at_s,
            topic,
            self.make("sensor_msgs/msg/Image", self.header(at_s - late_s, "lens"), 8, 8, "rgb8", 0, 24, data),
        )

    def jpeg(self, at_s: float, label: str, topic: str = "/camera/image") -> "Recording":
        data = cv2.imencode(".jpg", np.ascontiguousarray(self.picture(label)[..., ::-1]))[1]
        return self.add(at_s, topic, self.make("sensor_msgs/msg/CompressedImage", self.header(at_s), "jpeg", data))

    def pcm(self, at_s: float, label: str) -> Any:
        tone = 30_000 * np.sin(2 * np.pi * TONES_HZ[label] * (at_s + np.arange(80) / 800)) + self.noise.normal(
            0, 30, 80
        )
        return self.make("audio_common_msgs/msg/AudioData", np.round(tone).astype("<i2").view(np.uint8))

    def sound(self, at_s: float, label: str, topic: str = "/audio") -> "Recording":
        """0.1 s of sound that has been heard by ``at_s``."""
        return self.add(
            at_s,
            topic,
            self.make("audio_common_msgs/msg/AudioDataStamped", self.header(at_s - 0.1), self.pcm(at_s - 0.1, label)),
        )

    def plain_sound(self, at_s: float, label: str, topic: str = "/audio") -> "Recording":
        return self.add(at_s, topic, self.pcm(at_s - 0.1, label))

    def info(self, at_s: float, topic: str = "/audio_info", rate_hz: int = 800) -> "Recording":
        return self.add(at_s, topic, self.make("audio_common_msgs/msg/AudioInfo", 1, rate_hz, "S16LE", 12_800, "wave"))

    def label(self, at_s: float, name: str, topic: str = "/label") -> "Recording":
        return self.add(at_s, topic, self.make("std_msgs/msg/String", name))

    def scene(self, start_s: float, end_s: float, label: str) -> "Recording":
        """Frames at 10 Hz, sound, and the label each second."""
        for i in range(round((end_s - start_s) * 10)):
            at_s = start_s + i * 0.1
            if i % 10 == 0:
                self.label(at_s, label)
            self.image(at_s, label, late_s=0.004).sound(at_s + 0.05, label)
        return self

    def write(self, path: Path, storage: StoragePlugin = StoragePlugin.MCAP, version: int = 9) -> Path:
        """Write the bag directory ``path``, in log order; gives ``path``."""
        with Writer(path, version=version, storage_plugin=storage) as writer:
            connections = {}
            for at_s, topic, message in sorted(self.messages, key=lambda m: m[0]):
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, message.__msgtype__, typestore=self.store)
                writer.write(
                    connections[topic],
                    START_NS + round(at_s * 1e9),
                    self.store.serialize_cdr(message, message.__msgtype__),
                )
        return path


@pytest.fixture(scope="session")
def new_recording() -> Callable[[], Recording]:
    """Makes empty recordings."""
    return Recording


@pytest.fixture(scope="session")
def red_then_blue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds: red until second 5, then blue."""
    return (
        Recording()
        .info(0)
        .scene(0, 5, "red")
        .scene(5, 10, "blue")
        .write(tmp_path_factory.mktemp("bags") / "red_then_blue")
    )
