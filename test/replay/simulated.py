"""A camera and a microphone that do not exist, with the timing of real ones, and a model that costs nothing.

Messages come as rosbags' records would, with the jitter, the losses and the noise of sensors, so that faults and the
pipeline see what they
see on a robot; the graphs are replaced by a head that says the same whatever it sees.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

from aecf_ros.core.types import NANOSECONDS, StreamState
from aecf_ros.modalities.audio.spec import AudioEntry
from aecf_ros.modalities.image.spec import ImageEntry
from aecf_ros.modalities.messages import UnknownFormatError
from aecf_ros.modalities.registry import MODALITIES
from aecf_ros.replay.bag.reader import RecordedMessage
from aecf_ros.replay.bag.topics import Topics
from aecf_ros.replay.faults.schedule import Fault, FaultInjector
from aecf_ros.replay.scoring.driver import arrivals
from aecf_ros.runtime.base import HeadOutput
from aecf_ros.runtime.pipeline import Pipeline

START_NS = 1_700_000_000 * NANOSECONDS
KINDS = {"camera": "image", "audio": "audio"}
FRAME_S, CHUNK_S, RATE_HZ = 1 / 15, 0.1, 16_000
INFO = SimpleNamespace(channels=1, sample_rate=RATE_HZ, sample_format="S16LE", bitrate=0, coding_format="wave")
TOPICS = Topics({"camera": "/camera", "audio": "/audio"}, {}, None, INFO)
PERIODS_S = {"camera": FRAME_S, "audio": CHUNK_S}
HEIGHT, WIDTH = 48, 64


def raw_record(message: Any, info: Any, received_ns: int) -> Any:
    """The record of a message of a camera or a microphone, told apart by its fields."""
    picture = hasattr(message, "encoding") or (hasattr(message, "format") and not hasattr(message, "sample_rate"))
    return MODALITIES["image" if picture else "audio"].read(message, info, received_ns)


def manifest() -> Any:
    """As much of a manifest as a pipeline looks at: a camera and a microphone, three labels."""
    camera = ImageEntry(name="camera", kind="image", height=HEIGHT, width=WIDTH, encoder="camera.onnx", embedding_dim=2)
    audio = AudioEntry(name="audio", kind="audio", rate_hz=RATE_HZ, window_s=1.0, encoder="audio.onnx", embedding_dim=2)
    return SimpleNamespace(
        name="free",
        labels=["a", "b", "c"],
        names=["camera", "audio"],
        modalities=[camera, audio],
        drift=None,
        calibration=SimpleNamespace(coverage=0.9),
    )


class FreeBackend:
    """Says the same whatever it sees, in no time, and checks that it is never given what is no number."""

    device = "cpu"
    _EMBEDDING = np.zeros(2, np.float32)

    def encode(self, modality: str, sample: np.ndarray) -> np.ndarray:
        assert sample.dtype == (np.uint8 if modality == "camera" else np.float32)
        assert modality == "camera" or np.isfinite(sample).all()
        return self._EMBEDDING

    def fuse(self, embeddings: Mapping[str, np.ndarray], present: Sequence[bool]) -> HeadOutput:
        share = np.array(present, np.float32) / max(1, sum(present))
        return HeadOutput(
            np.array([0.8, 0.1, 0.1], np.float32),
            0.8,
            share,
            0.0,
            1.0,
            np.full((2, 3), 1 / 3, np.float32),
            np.ones(3, bool),
            0 if any(present) else 1,
        )


def stamp(ns: int) -> Any:
    return SimpleNamespace(stamp=SimpleNamespace(sec=ns // NANOSECONDS, nanosec=ns % NANOSECONDS), frame_id="")


class World:
    """A scene with a card moving through it and someone who speaks, as messages; every instance is another draw.

    Args:
        jitter: of the arrival, as a share of the period, uniform around it.
        loss: share of messages that get lost.
        periods_s: of the streams that there are, in seconds.
    """

    def __init__(
        self,
        seed: int,
        jitter: float = 0.2,
        loss: float = 0.01,
        jpeg: bool = False,
        periods_s: Mapping[str, float] = PERIODS_S,
    ) -> None:
        self._rng = np.random.default_rng(seed)
        self._periods_s = periods_s
        self._jitter, self._loss, self._jpeg = jitter, loss, jpeg
        rng = self._rng
        board = rng.integers(60, 200, (6, 8, 3)).astype(np.float32)
        self._scene = cv2.resize(board, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
        self._card = rng.integers(0, 255, (14, 14, 3)).astype(np.float32)
        self._pitch_hz = rng.uniform(85, 220)
        self._noise = [rng.normal(0, 3, (HEIGHT, WIDTH, 3)).astype(np.float32) for _ in range(8)]

    def picture(self, at_s: float) -> np.ndarray:
        """uint8 (HEIGHT, WIDTH, 3): noise is new in each frame."""
        image = self._scene.copy()
        x, y = int(25 + 20 * np.sin(at_s)), int(17 + 12 * np.cos(1.3 * at_s))
        image[y : y + 14, x : x + 14] = self._card
        image += np.roll(self._noise[int(self._rng.integers(8))], int(self._rng.integers(WIDTH * HEIGHT)), axis=1)
        image[0, :8] += self._rng.normal(0, 3, (8, 3))
        return np.clip(image, 0, 255).astype(np.uint8)

    def sound(self, at_s: float) -> np.ndarray:
        """uint8 of S16LE: words of 0.5 s and pauses of 0.5 s over the noise of a microphone."""
        t = at_s + np.arange(round(self._periods_s["audio"] * RATE_HZ)) / RATE_HZ
        cycles = self._pitch_hz * (
            t - 0.15 * np.cos(2 * np.pi * 0.7 * t) / (2 * np.pi * 0.7)
        )  # no voice keeps its pitch
        phase = (2 * np.pi * (cycles % 1.0)).astype(np.float32)
        voice = sum(np.sin(k * phase) / k for k in range(1, 9)) * (np.sin(2 * np.pi * t) > 0) * 0.08
        return (
            np.clip((voice + 0.002 * self._rng.standard_normal(len(t), np.float32)) * 32768, -32768, 32767)
            .astype("<i2")
            .view(np.uint8)
        )

    def _frame(self, at_s: float) -> Any:
        image, header = self.picture(at_s), stamp(START_NS + round(at_s * 1e9))
        if self._jpeg:
            return SimpleNamespace(header=header, format="jpeg", data=cv2.imencode(".jpg", image)[1].ravel())
        return SimpleNamespace(
            header=header,
            height=HEIGHT,
            width=WIDTH,
            encoding="rgb8",
            is_bigendian=0,
            step=3 * WIDTH,
            data=image.ravel(),
        )

    def _chunk(self, at_s: float) -> Any:
        return SimpleNamespace(header=stamp(START_NS + round(at_s * 1e9)), audio=SimpleNamespace(data=self.sound(at_s)))

    def recorded(self, seconds: float, start_s: float = 0.05) -> Iterator[tuple[RecordedMessage, Any]]:
        """Messages in the order of their arrival, each with what it deserializes to."""
        rng = self._rng
        entries = []
        for stream, period_s in self._periods_s.items():
            topic, latency_s = TOPICS.streams[stream], 0.01 if stream == "camera" else period_s + 0.005
            for i in range(int((seconds - start_s) / period_s)):
                late_s = latency_s + rng.uniform(0, self._jitter) * period_s
                if rng.random() >= self._loss:
                    at_s = start_s + i * period_s
                    entries.append((at_s + late_s, topic, at_s))
        last_s = 0.0
        for arrives_s, topic, at_s in sorted(entries):
            last_s = max(arrives_s, last_s + 1e-6)
            message = self._frame(at_s) if topic == TOPICS.streams["camera"] else self._chunk(at_s)
            yield RecordedMessage(topic, topic, START_NS + round(last_s * 1e9), b""), message


@dataclass
class Seen:
    """What a pipeline did: (seconds, states of camera and audio) after each message and each prediction, and the
    times of predictions.
    """

    states: list[tuple[float, StreamState, StreamState]]
    predicted_s: list[float]

    def first(self, stream: str, wanted: set[StreamState], from_s: float, to_s: float = float("inf")) -> float | None:
        """Seconds from ``from_s`` until the stream was in one of the states."""
        i = 1 + list(KINDS).index(stream)
        return next((row[0] - from_s for row in self.states if from_s <= row[0] < to_s and row[i] in wanted), None)

    def alarms(self, stream: str, from_s: float = 0.0, to_s: float = float("inf")) -> list[tuple[float, str]]:
        i = 1 + list(KINDS).index(stream)
        return [
            (row[0], row[i].name)
            for row in self.states
            if from_s <= row[0] < to_s and row[i] not in (StreamState.OK, StreamState.WAITING)
        ]

    def longest_gap_s(self, from_s: float = 0.5) -> float:
        """Of the predictions from ``from_s`` on, when the streams have begun."""
        return float(np.diff([at_s for at_s in self.predicted_s if at_s >= from_s]).max())


Messages = Sequence[tuple[RecordedMessage, Any]]


def run(world: Messages, faults: Sequence[Fault], seconds: float) -> Seen:
    """Drive a pipeline with the messages of a world, as the replay does, one clock for everything."""
    pipeline = Pipeline(manifest(), FreeBackend())
    seen = Seen([], [])

    def note(now_ns: int) -> None:
        seen.states.append(((now_ns - START_NS) / 1e9, *(s.state for s in pipeline.statuses(now_ns))))

    def step(now_ns: int) -> None:
        pipeline.step(now_ns)
        seen.predicted_s.append((now_ns - START_NS) / 1e9)
        note(now_ns)

    def silence(until_ns: int) -> None:
        while (due_ns := pipeline.next_due_ns()) is not None and due_ns < until_ns:
            step(due_ns)

    held = {one.log_ns: message for one, message in world}
    step(START_NS)
    for arrival in arrivals(
        (one for one, _ in world), START_NS, TOPICS, FaultInjector(faults, KINDS), lambda one: held[one.log_ns]
    ):
        silence(arrival.at_ns)
        try:
            due = pipeline.observe(
                arrival.stream, raw_record(arrival.message, arrival.info, arrival.at_ns), arrival.at_ns
            ).due
        except UnknownFormatError as error:
            due = pipeline.reject(arrival.stream, str(error), arrival.at_ns).due
        note(arrival.at_ns)
        if due:
            step(arrival.at_ns)
    silence(START_NS + round(seconds * 1e9))
    return seen
