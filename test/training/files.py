"""Tables of pictures and sound files, small enough to write for each test."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import soundfile

from aecf_ros.modalities.audio.spec import AudioSpec
from aecf_ros.modalities.image.spec import ImageSpec

CAMERA = ImageSpec(name="camera", kind="image", height=8, width=10)
AUDIO = AudioSpec(name="audio", kind="audio", rate_hz=800, window_s=0.5)
BOTH = (CAMERA, AUDIO)
CLASSES = ("low", "middle", "high")


def write_picture(path: Path, seed: int) -> str:
    """A PNG of noise, which no other seed has; gives its name."""
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 255, (16, 20, 3), dtype=np.uint8))
    return path.name


def write_sound(path: Path, seed: int, seconds: float = 0.5, rate_hz: int = 800) -> str:
    """Noise, which no other seed has; gives its name."""
    soundfile.write(path, np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * rate_hz)), rate_hz, "PCM_16")
    return path.name


def write_rows(path: Path, header: str, rows: Sequence[Sequence[object]]) -> Path:
    """A CSV."""
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n", encoding="utf-8")
    return path


def rows_of_files(folder: Path, count: int) -> list[list[str]]:
    """``count`` rows of a picture, a sound and a label, whose files are written."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        [write_picture(folder / f"{i}.png", i), write_sound(folder / f"{i}.wav", i), CLASSES[i % 3]]
        for i in range(count)
    ]


def write_table(folder: Path, count: int = 15) -> Path:
    """A table that has nothing wrong: five rows of each class."""
    return write_rows(folder / "table.csv", "image,sound,label", rows_of_files(folder, count))
