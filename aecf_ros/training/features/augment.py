"""Random changes that training applies to a batch, one function before the encoder's ``represent`` and one after it,
for each kind.

Everything is a pure function of the batch and a generator, so that an epoch can be repeated exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Augmentation:
    """``raw`` acts on what the encoder takes, ``represented`` on what its ``represent`` gives."""

    raw: Callable[[Tensor, torch.Generator], Tensor]
    represented: Callable[[Tensor, torch.Generator], Tensor]


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def _chance(count: int, probability: float, dims: int, generator: torch.Generator) -> Tensor:
    """bool (count, 1, ...) with ``dims`` axes in all."""
    return (torch.rand(count, generator=generator) < probability).view(count, *[1] * (dims - 1))


def _warp(x: Tensor, matrix: Tensor) -> Tensor:
    """Resample (B, 1, H, W) through an affine map (B, 2, 3) in coordinates of [-1, 1], repeating the border."""
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _erase(
    x: Tensor, probability: float, rows: float, columns: float, fill: Tensor, generator: torch.Generator
) -> Tensor:
    """Fill one rectangle of at most ``rows`` x ``columns`` (shares of the height and width) of (B, 1, H, W)."""
    count, _, height, width = x.shape
    tall, wide = _uniform((count, 1), 0, rows, generator) * height, _uniform((count, 1), 0, columns, generator) * width
    top = _uniform((count, 1), 0, 1, generator) * (height - tall)
    left = _uniform((count, 1), 0, 1, generator) * (width - wide)
    row, column = torch.arange(height).view(1, -1), torch.arange(width).view(1, -1)
    inside = ((row >= top) & (row < top + tall))[:, None, :, None] & ((column >= left) & (column < left + wide))[
        :, None, None, :
    ]
    return torch.where(inside & _chance(count, probability, 4, generator), fill, x)


def unchanged(x: Tensor, generator: torch.Generator) -> Tensor:
    """No change: what comes in, of any shape, goes out."""
    return x


def augment_luma(luma: Tensor, generator: torch.Generator) -> Tensor:
    """Small rotations, zooms and shifts, uneven light, gamma, blur, sensor noise and an occlusion.

    ``luma`` float32 (B, 1, H, W) in [0, 1] -> the same shape, in [0, 1].
    """
    count, _, height, width = luma.shape
    angle = _uniform((count,), -0.12, 0.12, generator)
    zoom_x, zoom_y = _uniform((count,), 0.85, 1.12, generator), _uniform((count,), 0.85, 1.12, generator)
    shear = _uniform((count,), -0.15, 0.15, generator)
    aspect = height / width
    shift_x, shift_y = _uniform((count,), -0.06, 0.06, generator), _uniform((count,), -0.06, 0.06, generator)
    cosine, sine = torch.cos(angle), torch.sin(angle)
    matrix = torch.stack(
        [
            torch.stack([zoom_x * cosine, (shear - sine) * aspect, shift_x], 1),
            torch.stack([sine / aspect, zoom_y * cosine, shift_y], 1),
        ],
        1,
    )
    x = _warp(luma, matrix)
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = torch.where(_chance(count, 0.15, 4, generator), blurred, x)
    x = _erase(x, 0.15, 0.3, 0.2, _uniform((count, 1, 1, 1), 0, 1, generator), generator)
    x = x.clamp(1e-3, 1.0) ** torch.exp(_uniform((count, 1, 1, 1), -0.5, 0.5, generator))
    ramp_x = torch.linspace(-1, 1, width).view(1, 1, 1, -1) * _uniform((count, 1, 1, 1), -0.25, 0.25, generator)
    ramp_y = torch.linspace(-1, 1, height).view(1, 1, -1, 1) * _uniform((count, 1, 1, 1), -0.25, 0.25, generator)
    gain = torch.exp(_uniform((count, 1, 1, 1), -0.7, 0.2, generator))
    x = x * gain * (1 + ramp_x + ramp_y) + _uniform((count, 1, 1, 1), -0.05, 0.05, generator)
    deviation = 0.06 * torch.rand((count, 1, 1, 1), generator=generator) ** 3
    return (x + deviation * torch.randn(x.shape, generator=generator)).clamp(0.0, 1.0)


def augment_sound(samples: Tensor, generator: torch.Generator) -> Tensor:
    """Colored noise at 3 to 40 dB under the window, gain, stretches of digital zeros at either end, clipping.

    ``samples`` float32 (B, N) in [-1, 1] -> the same shape and range.
    """
    count, length = samples.shape
    color = _uniform((count, 1), 0.0, 1.2, generator)
    frequency = torch.arange(1, length // 2 + 2).view(1, -1) / length
    spectrum = torch.fft.rfft(torch.randn((count, length), generator=generator)) * frequency**-color
    noise = torch.fft.irfft(spectrum, n=length)
    noise = noise / noise.square().mean(1, keepdim=True).sqrt()
    level = samples.square().mean(1, keepdim=True).sqrt()
    ratio_db = _uniform((count, 1), 3.0, 40.0, generator)
    x = samples + torch.where(_chance(count, 0.6, 2, generator), level * noise * 10 ** (-ratio_db / 20), 0.0)
    time = torch.arange(length).view(1, -1)
    edge = _uniform((count, 1), 0.0, 0.25, generator) * length
    zeros = torch.where(_chance(count, 0.5, 2, generator), time < edge, time >= length - edge)
    x = torch.where(zeros & _chance(count, 0.1, 2, generator), 0.0, x)
    gain_db = _uniform((count, 1), -25.0, 10.0, generator)
    return (x * 10 ** (gain_db / 20)).clamp(-1.0, 1.0)


def augment_log_mel(log_mel: Tensor, generator: torch.Generator) -> Tensor:
    """Vocal tract and tempo warps, equalization, missing high band, and masks of time and frequency (SpecAugment,
    Park et al. 2019).

    ``log_mel`` float32 (B, 1, mels, frames) in nats -> the same shape.
    """
    count, _, mels, frames = log_mel.shape
    tract, tempo = _uniform((count,), 0.88, 1.14, generator), _uniform((count,), 0.8, 1.25, generator)
    shift = _uniform((count,), -0.1, 0.1, generator)
    zero = torch.zeros(count)
    # The low edge of the mel axis stays in place: a longer vocal tract scales frequencies from zero, not the middle.
    matrix = torch.stack([torch.stack([tempo, zero, shift], 1), torch.stack([zero, tract, tract - 1], 1)], 1)
    x = _warp(log_mel, matrix)
    band = torch.linspace(-1, 1, mels).view(1, 1, -1, 1)
    tilt, bend = _uniform((count, 1, 1, 1), -1.2, 1.2, generator), _uniform((count, 1, 1, 1), -0.8, 0.8, generator)
    phase = _uniform((count, 1, 1, 1), 0, 2 * math.pi, generator)
    x = x + tilt * band + bend * torch.cos(math.pi * 1.5 * band + phase)
    quiet = x.amin(dim=(2, 3), keepdim=True)
    cut = torch.arange(mels).view(1, 1, -1, 1) > _uniform((count, 1, 1, 1), 0.7, 1.0, generator) * mels
    x = torch.where(cut & _chance(count, 0.3, 4, generator), quiet, x)
    mean = x.mean(dim=(2, 3), keepdim=True)
    for _ in range(2):
        x = _mask(x, 0.4, 2, 6, mean, generator)
        x = _mask(x, 0.4, 3, 12, mean, generator)
    return x


def _mask(x: Tensor, probability: float, axis: int, widest: int, fill: Tensor, generator: torch.Generator) -> Tensor:
    """Fill one band of up to ``widest`` cells along ``axis`` of (B, 1, rows, columns)."""
    count, size = x.shape[0], x.shape[axis]
    width = _uniform((count, 1, 1, 1), 0, min(widest, size / 3), generator)
    start = _uniform((count, 1, 1, 1), 0, 1, generator) * (size - width)
    shape = [1, 1, 1, 1]
    shape[axis] = size
    at = torch.arange(size).view(shape)
    return torch.where((at >= start) & (at < start + width) & _chance(count, probability, 4, generator), fill, x)


AUGMENTATIONS: Mapping[str, Augmentation] = {
    "image": Augmentation(unchanged, augment_luma),
    "audio": Augmentation(augment_sound, augment_log_mel),
    "none": Augmentation(unchanged, unchanged),
}
