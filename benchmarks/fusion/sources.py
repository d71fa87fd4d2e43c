"""The raw data, and which rows belong to which part. The protocol is that of `../shared/data/README.md`."""

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SOUND_RATE_HZ = 8000
SOUND_SAMPLES = 6400  # 0.8 s: longer than 19 of 20 recordings

PARTS = ("encoders", "fusion", "calibration", "test")


def data_directory() -> Path:
    """Where the archives lie: AECF_BENCH_DATA, or ../shared/data beside the repository. FileNotFoundError says so."""
    repository = Path(__file__).resolve().parents[2]
    directory = Path(os.environ.get("AECF_BENCH_DATA", repository.parent / "shared" / "data"))
    if not (directory / "mnist.npz").is_file():
        raise FileNotFoundError(f"{directory}: no mnist.npz there; set AECF_BENCH_DATA to the folder of the archives")
    return directory


@dataclass(frozen=True)
class Digits:
    """Images and recordings of digits, with their parts.

    images: uint8 [68000, 28, 28]; image_label: int64 [68000]; sounds: float32 [2500, SOUND_SAMPLES] in [-1, 1], each
    recording at the middle of its window and its peak at 0.5; sound_label, speaker: int64 [2500]; image_rows,
    sound_rows: part -> row numbers.
    """

    images: np.ndarray
    image_label: np.ndarray
    sounds: np.ndarray
    sound_label: np.ndarray
    speaker: np.ndarray
    image_rows: dict[str, np.ndarray]
    sound_rows: dict[str, np.ndarray]
    fixed_pairs: object

    def pairs(self, part: str) -> np.ndarray:
        """The fixed recording of each image of `calibration` or `test`: row numbers of `sounds`."""
        rows = self.image_rows[part]
        seed = {"calibration": 11, "test": 12}[part]
        return self.fixed_pairs(rows, self.image_label, self.sound_rows[part], self.sound_label, seed)


def load_digits() -> Digits:
    """Everything in memory: 53 MB of images, 64 MB of sound."""
    directory = data_directory()
    parts = _module(directory / "parts.py")
    with np.load(directory / "mnist.npz", allow_pickle=False) as archive:
        images, image_label = archive["images"], archive["labels"].astype(np.int64)
    with np.load(directory / "fsdd.npz", allow_pickle=False) as archive:
        samples, offsets = archive["samples"], archive["offsets"]
        label, speaker, take = archive["label"], archive["speaker"], archive["take"]
    sounds = np.stack([place(samples[a:b]) for a, b in zip(offsets[:-1], offsets[1:], strict=True)])
    return Digits(
        images=images,
        image_label=image_label,
        sounds=sounds,
        sound_label=label.astype(np.int64),
        speaker=speaker.astype(np.int64),
        image_rows=parts.image_parts(),
        sound_rows=parts.recording_parts(label, speaker, take),
        fixed_pairs=parts.fixed_pairs,
    )


def place(recording: np.ndarray) -> np.ndarray:
    """One int16 recording at the middle of a float32 window of SOUND_SAMPLES, its peak at 0.5."""
    sound = recording.astype(np.float32)
    sound *= 0.5 / max(np.abs(sound).max(), 1.0)
    surplus = len(sound) - SOUND_SAMPLES
    if surplus > 0:
        return sound[surplus // 2 : surplus // 2 + SOUND_SAMPLES]
    return np.pad(sound, (-surplus // 2, -surplus - -surplus // 2))


def _module(path: Path):
    spec = importlib.util.spec_from_file_location("aecf_bench_parts", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
