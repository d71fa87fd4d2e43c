"""The benchmark's data sets as they lie in NumPy archives: digits and scenes, each divided into parts as its
protocol says.

``digits``: ``mnist.npz`` (``images`` uint8 (N, 28, 28), ``labels``) and ``fsdd.npz`` (``samples`` int16 at 8 kHz,
all recordings end
to end, recording i from ``offsets[i]`` to ``offsets[i + 1]``; ``label``, ``speaker``, ``take``). ``scenes``:
``scenes_image.npz``
(``jpeg``, all files end to end, with ``offsets``; ``labels``, ``split`` (1 for test), ``classes``) and
``scenes_sound.npz``
(``samples`` int16 at 16 kHz with ``offsets``; ``label``, ``fold`` 1 to 4).
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aecf_ros.core.types import RawImage
from aecf_ros.modalities.image.decode import decode_image
from aecf_ros.training.data.npy_dataset import PARTS, DatasetError

RATE_HZ = 16_000
SPOKEN_HZ = 8_000
FLOOR_DB, MARGIN_S = -38.0, 0.012
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SCENE_ENCODERS, SCENE_FUSION = 8000, 3000
FOLDS = {"fusion": (1, 2), "calibration": (3,), "test": (4,)}
"""Of the sounds of scenes. None trains encoders: 64 clips train none that would be honest."""


@dataclass(frozen=True)
class Made:
    """One modality of one part: samples (n, ...), labels (n,) and what is of one recording (n,)."""

    samples: np.ndarray
    labels: np.ndarray
    clusters: np.ndarray


@dataclass(frozen=True)
class Protocol:
    """A data set: its archives, the side of a picture, its parts, and where it comes from."""

    archives: tuple[str, ...]
    side: int
    make: Callable[[Path, str], dict[str, Made]]
    parts: tuple[str, ...]
    labels: Callable[[Path], list[str]]
    sources: tuple[str, ...]


def image_rows(part: str) -> np.ndarray:
    """Row numbers of mnist.npz in a part: int64, ascending."""
    middle = np.random.default_rng(10).permutation(np.arange(40000, 60000))
    return {
        "encoders": np.arange(40000),
        "fusion": np.sort(middle[:15000]),
        "calibration": np.sort(middle[15000:]),
        "test": np.arange(60000, 68000),
    }[part]


def recording_rows(part: str, label: np.ndarray, speaker: np.ndarray, take: np.ndarray) -> np.ndarray:
    """Recording numbers of fsdd.npz in a part: int64, ascending."""
    if part == "encoders":
        return np.flatnonzero(take >= 18)
    if part == "test":
        return np.flatnonzero(take <= 4)
    rng = np.random.default_rng(10)
    rows: dict[str, list[int]] = {"fusion": [], "calibration": []}
    for s in range(int(speaker.max()) + 1):
        for digit in range(10):
            clips = rng.permutation(np.flatnonzero((speaker == s) & (label == digit) & (take >= 5) & (take <= 17)))
            rows["fusion"].extend(clips[:8])
            rows["calibration"].extend(clips[8:])
    return np.sort(np.array(rows[part]))


def scene_rows(part: str, split: np.ndarray) -> np.ndarray:
    """Row numbers of scenes_image.npz in a part: int64."""
    train = np.random.default_rng(20).permutation(np.flatnonzero(split == 0))
    return {
        "encoders": train[:SCENE_ENCODERS],
        "fusion": train[SCENE_ENCODERS : SCENE_ENCODERS + SCENE_FUSION],
        "calibration": train[SCENE_ENCODERS + SCENE_FUSION :],
        "test": np.flatnonzero(split == 1),
    }[part]


def trim(samples: np.ndarray) -> np.ndarray:
    """Cut what is 38 dB weaker than the loudest 10 ms, or more, off both ends of float32 (n,) at RATE_HZ, keeping a
    margin of 12 ms.
    """
    frame = RATE_HZ // 100
    count = len(samples) // frame
    power = np.square(samples[: count * frame].reshape(count, frame)).mean(axis=1) if count else np.zeros(0)
    loud = np.flatnonzero(power > power.max(initial=0.0) * 10.0 ** (FLOOR_DB / 10.0))
    if len(loud) == 0:
        return samples[:0]
    margin = round(MARGIN_S * RATE_HZ)
    return samples[max(loud[0] * frame - margin, 0) : (loud[-1] + 1) * frame + margin]


def windows(clip: np.ndarray) -> list[np.ndarray]:
    """The 1 s windows of int16 (n,) at RATE_HZ, half overlapping, whose loudness is at least a tenth of the loudest
    one's; none of silence.
    """
    cut = [clip[i : i + RATE_HZ] for i in range(0, len(clip) - RATE_HZ + 1, RATE_HZ // 2)]
    loudness = [float(np.sqrt(np.square(window.astype(np.float64)).mean())) for window in cut]
    return [window for window, level in zip(cut, loudness, strict=True) if level > 0 and level >= 0.1 * max(loudness)]


def last_second(word: np.ndarray) -> np.ndarray:
    """The end of float32 (n,) sound at RATE_HZ, at a peak of 0.9, as an int16 window of 1 s, zeros before it."""
    window = np.zeros(RATE_HZ, np.int16)
    kept = word[-RATE_HZ:] * (0.9 * 32767.0 / max(float(np.abs(word).max(initial=0.0)), 1e-9))
    window[RATE_HZ - len(kept) :] = np.round(kept)
    return window


def _arrays(path: Path, *names: str) -> list[np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            lacking = [name for name in names if name not in archive.files]
            if lacking:
                raise DatasetError(f"{path}: has no array '{lacking[0]}'; docs/data.md says what such archives hold")
            return [archive[name] for name in names]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{path}: not an archive of NumPy arrays; write it with numpy.savez") from None


def _digits(folder: Path, part: str) -> dict[str, Made]:
    """28x28 pictures as RGB, and words."""
    import soxr

    images, image_labels = _arrays(folder / "mnist.npz", "images", "labels")
    samples, offsets, label, speaker, take = _arrays(
        folder / "fsdd.npz", "samples", "offsets", "label", "speaker", "take"
    )
    rows = image_rows(part)
    if len(images) <= rows.max():
        raise DatasetError(
            f"{folder / 'mnist.npz'}: {len(images)} pictures where the protocol has 68000; make it again"
        )
    pictures = np.repeat(images[rows][..., None], 3, axis=3)
    clips = recording_rows(part, label, speaker, take)
    words = [
        trim(soxr.resample(samples[offsets[c] : offsets[c + 1]].astype(np.float32) / 32768.0, SPOKEN_HZ, RATE_HZ))
        for c in clips
    ]
    return {
        "camera": Made(pictures, image_labels[rows], np.arange(len(pictures))),
        "audio": Made(np.stack([last_second(word) for word in words]), label[clips], np.arange(len(words))),
    }


def _scenes(folder: Path, part: str) -> dict[str, Made]:
    """32x32 pictures, and the windows of clips that hold sound."""
    jpeg, offsets, label, split = _arrays(folder / "scenes_image.npz", "jpeg", "offsets", "labels", "split")
    samples, edges, sound_label, fold = _arrays(folder / "scenes_sound.npz", "samples", "offsets", "label", "fold")
    rows = scene_rows(part, split)
    pictures = np.stack(
        [decode_image(RawImage(0, 0, "jpeg", 0, 0, 0, jpeg[offsets[i] : offsets[i + 1]])).image for i in rows]
    )
    cut = [
        (window, clip)
        for clip in np.flatnonzero(np.isin(fold, FOLDS[part]))
        for window in windows(samples[edges[clip] : edges[clip + 1]])
    ]
    clips = np.array([clip for _, clip in cut])
    return {
        "camera": Made(pictures, label[rows], np.arange(len(pictures))),
        "audio": Made(np.stack([window for window, _ in cut]), sound_label[clips], clips),
    }


def _scene_labels(folder: Path) -> list[str]:
    return [str(name) for name in _arrays(folder / "scenes_image.npz", "classes")[0]]


PROTOCOLS: Mapping[str, Protocol] = {
    "digits": Protocol(
        ("mnist.npz", "fsdd.npz"),
        28,
        _digits,
        PARTS,
        lambda folder: list(DIGITS),
        (
            "MNIST (LeCun, Cortes, Burges), commonly stated CC BY-SA 3.0",
            "Free Spoken Digit Dataset (Jackson et al.), CC BY-SA 4.0",
        ),
    ),
    "scenes": Protocol(
        ("scenes_image.npz", "scenes_sound.npz"),
        32,
        _scenes,
        PARTS[1:],
        _scene_labels,
        ("CIFAR-10 (Krizhevsky 2009)", "ESC-10 (Piczak 2015), CC BY 3.0, authors by file name in its README"),
    ),
}
"""By the name that ``data.protocol`` has."""
