"""A table of collages: one to three digits of scikit-learn in a picture, the tones of the same digits in a sound;
now and then none.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import numpy as np
import onnx
import soundfile
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from aecf_ros.training.export.head_graph import export_onnx
from test.training.files import write_rows

NAMES = ["zero", "one", "two", "three", "four"]
SLOTS, SIDE, RATE_HZ, WINDOW_S = 3, 8, 800, 0.5
TONES_HZ = (50.0, 90.0, 140.0, 200.0, 280.0)


class DigitsInSlots(nn.Module):
    """The largest log-odds of each digit over the slots of a collage: a linear reader of single digits, frozen."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("weight", torch.from_numpy(weight.astype(np.float32)))
        self.register_buffer("bias", torch.from_numpy(bias.astype(np.float32)))

    def forward(self, image: Tensor) -> Tensor:
        """uint8 (B, SIDE, SLOTS * SIDE, 3) -> float32 (B, 5)."""
        slots = (
            image[..., 0].float().reshape(-1, SIDE, SLOTS, SIDE).transpose(1, 2).reshape(-1, SLOTS, SIDE * SIDE) / 16.0
        )
        return (slots @ self.weight.T + self.bias).amax(1)


class Tones(nn.Module):
    """The logarithm of the power of each tone."""

    def __init__(self) -> None:
        super().__init__()
        phase = 2 * np.pi * np.outer(np.arange(round(RATE_HZ * WINDOW_S)) / RATE_HZ, TONES_HZ)
        self.register_buffer("cos", torch.from_numpy(np.cos(phase).astype(np.float32)))
        self.register_buffer("sin", torch.from_numpy(np.sin(phase).astype(np.float32)))

    def forward(self, samples: Tensor) -> Tensor:
        """float32 (B, samples) -> float32 (B, 5)."""
        return ((samples @ self.cos).square() + (samples @ self.sin).square() + 1e-3).log()


@cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    return load_digits(return_X_y=True)


def write_encoders(folder: Path) -> list[str]:
    """Both encoders as ONNX files; words of a command line that name them."""
    images, digits = _digits()
    few = digits < len(NAMES)
    reader = LogisticRegression(C=0.01, max_iter=200).fit(images[few][::2] / 16.0, digits[few][::2])
    picture = torch.zeros((2, SIDE, SLOTS * SIDE, 3), dtype=torch.uint8)
    export_onnx(
        DigitsInSlots(reader.coef_, reader.intercept_).eval(),
        [picture],
        ["image"],
        ["embedding"],
        folder / "camera.onnx",
    )
    export_onnx(
        Tones().eval(), [torch.zeros(2, round(RATE_HZ * WINDOW_S))], ["samples"], ["embedding"], folder / "audio.onnx"
    )
    model = onnx.load(folder / "audio.onnx")
    onnx.helper.set_model_props(
        model, {"aecf.kind": "audio", "aecf.rate_hz": str(RATE_HZ), "aecf.window_s": str(WINDOW_S)}
    )
    onnx.save(model, folder / "audio.onnx")
    return [f"encoders.{name}.onnx={folder / name}.onnx" for name in ("camera", "audio")]


def draw_collage(shown: list[int], rng: np.random.Generator) -> np.ndarray:
    """Digits in random slots of noise, of which a quarter is hidden: uint8 (SIDE, SLOTS * SIDE)."""
    images, digits = _digits()
    collage = rng.uniform(0, 4, (SIDE, SLOTS * SIDE))
    for slot, digit in zip(rng.permutation(SLOTS), shown, strict=False):
        picture = images[rng.choice(np.flatnonzero(digits == digit))].reshape(SIDE, SIDE)
        collage[:, slot * SIDE : (slot + 1) * SIDE] += picture * (rng.random((SIDE, SIDE)) < 0.75)
    return (collage * 8).clip(0, 255).astype(np.uint8)


def draw_sound(shown: list[int], rng: np.random.Generator) -> np.ndarray:
    """A tone for each digit, some of them faint, in noise: float64 (samples,)."""
    time = np.arange(round(RATE_HZ * WINDOW_S)) / RATE_HZ
    sound = rng.normal(0, 0.15, len(time))
    for digit in shown:
        sound += rng.uniform(0.01, 0.2) * np.sin(2 * np.pi * TONES_HZ[digit] * time + rng.uniform(0, 6))
    return sound.clip(-1, 1)


def write_collages(folder: Path, count: int) -> Path:
    """A table of ``count`` rows, with some cells empty."""
    rng, rows = np.random.default_rng(0), []
    for i in range(count):
        shown = rng.choice(len(NAMES), rng.integers(0, 4), replace=False, p=[0.3, 0.25, 0.2, 0.15, 0.1]).tolist()
        cv2.imwrite(str(folder / f"{i}.png"), draw_collage(shown, rng))
        soundfile.write(folder / f"{i}.wav", draw_sound(shown, rng), RATE_HZ, "PCM_16")
        image, sound = "" if i % 13 == 0 else f"{i}.png", "" if i % 17 == 1 else f"{i}.wav"
        rows.append([image, sound, "|".join(NAMES[digit] for digit in shown) or "none"])
    return write_rows(folder / "table.csv", "image,sound,label", rows)
