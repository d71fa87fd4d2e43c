"""Recordings that need no recording: moments of a tiny camera and microphone, for encoders that are known by heart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from aecf_ros.core.labeled_samples import NOTHING, Batch
from aecf_ros.modalities.audio.spec import AudioSpec
from aecf_ros.modalities.image.spec import ImageSpec
from aecf_ros.training.data.corpus import Corpus
from test.conftest import LABELS, RATE_HZ, SIDE, TONES_HZ, WINDOW_S

CAMERA = ImageSpec(name="camera", kind="image", height=SIDE, width=SIDE)
MICROPHONE = AudioSpec(name="audio", kind="audio", rate_hz=RATE_HZ, window_s=WINDOW_S)


def draw_color(label: int, rng: np.random.Generator) -> np.ndarray:
    """The label's color on a gray that varies; uint8 (SIDE, SIDE, 3)."""
    image = rng.integers(20, 160) + rng.normal(0, 30, (SIDE, SIDE, 3)) + rng.normal(0, 12, 3)
    if label != NOTHING:
        image[..., label] += 60
    return image.clip(0, 255).astype(np.uint8)


def draw_tone(label: int, rng: np.random.Generator) -> np.ndarray:
    """The label's tone in noise; int16 (samples,)."""
    time = np.arange(round(RATE_HZ * WINDOW_S)) / RATE_HZ
    sound = rng.normal(0, 0.2, len(time))
    for tone, hz in enumerate(TONES_HZ):
        sound += (rng.uniform(0.3, 0.6) if tone == label else rng.uniform(0, 0.35)) * np.sin(
            2 * np.pi * hz * time + rng.uniform(0, 6)
        )
    return (sound.clip(-1, 1) * 32767).astype(np.int16)


@dataclass
class DrawnUnit:
    """A recording of labeled spans, one moment after the other; a :class:`aecf_ros.core.labeled_samples.Unit`."""

    name: str
    seed: int
    labels: np.ndarray
    clusters: np.ndarray
    present: np.ndarray
    problems: list[str] = field(default_factory=list)
    read: int = 0
    modality: str = ""
    sources: np.ndarray | None = None
    duration_s: float | None = None

    @property
    def recording(self) -> str:
        return self.name

    @property
    def digest(self) -> str:
        return f"{self.seed:08x}{len(self.labels):08x}{int(self.present.sum()):08x}"

    def batches(self, size: int) -> Iterator[Batch]:
        for start in range(0, len(self.labels), size):
            labels, present = self.labels[start : start + size], self.present[start : start + size]
            draws = [
                [
                    (label, np.random.default_rng([self.seed, start + i, m]))
                    for i, label in enumerate(labels)
                    if present[i, m]
                ]
                for m in range(2)
            ]
            images, sounds = [draw_color(*of) for of in draws[0]], [draw_tone(*of) for of in draws[1]]
            self.read += len(labels)
            camera = np.array(images, np.uint8).reshape(-1, *CAMERA.sample_shape)
            audio = np.array(sounds, np.int16).reshape(-1, *MICROPHONE.sample_shape)
            yield Batch({"camera": camera, "audio": audio}, present)


def recording(
    name: str, seed: int, spans: Sequence[tuple[int, int]], absent: Sequence[tuple[int, int]] = ()
) -> DrawnUnit:
    """``spans`` of (label, moments); the camera is absent in each of ``absent``, (first moment, last but one)."""
    labels = np.concatenate([np.full(count, label) for label, count in spans])
    clusters = np.concatenate([np.full(count, number) for number, (_, count) in enumerate(spans)])
    present = np.ones((len(labels), 2), bool)
    for first, end in absent:
        present[first:end, 0] = False
    return DrawnUnit(name, seed, labels, clusters, present)


def recorded_corpus(moments: int = 12, fusion: int = 3, imbalance: int = 1) -> Corpus:
    """Three (or more) recordings to train on, one to calibrate on, one to test on; without a camera for a while in
    each.

    The first label has ``imbalance`` times the spans of the others.
    """
    once = [(0, moments)] * imbalance + [(1, moments), (NOTHING, moments // 2), (2, moments)]
    spans = once * 3
    parts = {"fusion": range(fusion), "calibration": [50], "test": [60]}
    units = {
        part: [recording(f"{part}_{seed}", seed, spans, [(5, 12), (40, 52)]) for seed in seeds]
        for part, seeds in parts.items()
    }
    return Corpus("drawn", LABELS, (CAMERA, MICROPHONE), units, paired=True, sources=["drawn by the tests, CC0"])
