"""What a sensor meets in the field: kinds of corruption, severity 1 to 5, for pictures and for sound.

A head that is trained on clean samples alone learns that its sensors are always right. So the samples that a head is
trained on get corrupted copies, each of its own kind and severity, and reliability is fitted on kinds held out.

Every kind is a pure function (batch, severity, generator) -> batch: pictures float32 (B, 3, H, W) in [0, 1], sound
float32 (B, N) in [-1, 1], severity float32 (B,) in [1, 5]. Lengths are shares of the height, or of the window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from aecf_ros.training import vector_field

Corruption = Callable[[Tensor, Tensor, torch.Generator], Tensor]
CLEAN = -1
"""Kind of a sample that is left as it was recorded."""
MILDEST, WORST = 1.0, 5.0
_TAPS = 15


def _rows(value: Tensor, dims: int) -> Tensor:
    """(B,) as (B, 1, ...) with ``dims`` axes."""
    return value.view(-1, *[1] * (dims - 1))


def _random(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)


def _normal(shape: torch.Size, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator)


def sensor_noise(image: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian noise on every channel, standard deviation 0.06 to 0.3 of full scale."""
    return image + 0.06 * _rows(severity, 4) * _normal(image.shape, generator)


def blur(image: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Out of focus: a Gaussian of 1 to 5 % of the height."""
    sigma = 0.01 * image.shape[2] * severity
    reach = min(math.ceil(2.5 * float(sigma.max())), image.shape[2] - 1, image.shape[3] - 1)
    at = torch.arange(-reach, reach + 1)
    kernel = torch.exp(-0.5 * (at / sigma.unsqueeze(1)) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)  # (3B, taps)
    x = image.flatten(0, 1).unsqueeze(0)  # (1, 3B, H, W)
    x = F.conv2d(F.pad(x, (0, 0, reach, reach), mode="replicate"), kernel[:, None, :, None], groups=len(kernel))
    x = F.conv2d(F.pad(x, (reach, reach, 0, 0), mode="replicate"), kernel[:, None, None, :], groups=len(kernel))
    return x.view(image.shape)


def motion(image: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """A streak of 5 to 25 % of the height in any direction."""
    angle = _random(len(image), 0.0, math.pi, generator)
    length = 0.05 * severity * 2.0  # in affine_grid's units, where the height is 2
    aspect = image.shape[2] / image.shape[3]
    total = torch.zeros_like(image)
    for share in torch.linspace(-0.5, 0.5, _TAPS):
        shift = share * length
        total += _moved(image, torch.ones_like(angle), torch.zeros_like(angle), shift * angle.cos() * aspect, shift * angle.sin())
    return total / _TAPS


def low_light(image: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """1/2 to 1/32 of the light, with photon and read noise, left as dark as it is."""
    x = image * 0.5 ** _rows(severity, 4)
    return x + (x / 300.0 + 0.006**2).sqrt() * _normal(image.shape, generator)


def overexposure(image: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Light times 1.5 to 8 over a veil, cut off at white."""
    return image * 1.5 ** _rows(severity, 4) + 0.05 * _rows(severity, 4)


def low_contrast(image: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Haze or a dirty lens: 82 to 10 % of the contrast around a gray, and a little noise."""
    gray = _rows(_random(len(image), 0.3, 0.8, generator), 4)
    return gray + (image - gray) * (1.0 - 0.18 * _rows(severity, 4)) + 0.015 * _normal(image.shape, generator)


def occlusion(image: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Something in front of the lens: a disc of one color, 10 to 50 % of the height in radius."""
    count, _, height, width = image.shape
    radius = 0.1 * severity * height
    row, column = _random(count, 0.15, 0.85, generator) * height, _random(count, 0.15, 0.85, generator) * width
    y, x = torch.arange(height).view(1, -1, 1), torch.arange(width).view(1, 1, -1)
    inside = (y - _rows(row, 3)) ** 2 + (x - _rows(column, 3)) ** 2 < _rows(radius, 3) ** 2
    return torch.where(inside.unsqueeze(1), torch.rand((count, 3, 1, 1), generator=generator), image)


def tilt(image: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Turned by 9 to 45 degrees either way, and up to a third nearer or farther."""
    way = torch.where(torch.rand(len(image), generator=generator) < 0.5, -1.0, 1.0)
    zoom = torch.exp(_random(len(image), -0.06, 0.06, generator) * severity)
    zero = torch.zeros(len(image))
    return _moved(image, zoom, way * severity * math.radians(9.0), zero, zero)


def _moved(image: Tensor, zoom: Tensor, angle: Tensor, shift_x: Tensor, shift_y: Tensor) -> Tensor:
    """Turned and scaled about the middle, then shifted (half-heights and half-widths); the border repeats."""
    aspect = image.shape[2] / image.shape[3]
    cosine, sine = zoom * angle.cos(), zoom * angle.sin()
    top = torch.stack([cosine, -sine * aspect, shift_x], 1)
    matrix = torch.stack([top, torch.stack([sine / aspect, cosine, shift_y], 1)], 1)
    grid = F.affine_grid(matrix, list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _at_ratio(sound: Tensor, noise: Tensor, ratio_db: Tensor) -> Tensor:
    """Sound with noise at a signal-to-noise ratio (B,); silence gets noise at -60 dB of full scale."""
    level = sound.square().mean(1, keepdim=True).sqrt().clamp(min=1e-3)
    unit = noise / noise.square().mean(1, keepdim=True).sqrt().clamp(min=1e-9)
    return sound + level * unit * 10.0 ** (-_rows(ratio_db, 2) / 20.0)


def _filtered(sound: Tensor, response: Callable[[Tensor], Tensor]) -> Tensor:
    """Through a zero-phase filter; ``response`` takes frequency as a share of half the rate, (1, bins)."""
    spectrum = torch.fft.rfft(sound)
    frequency = torch.linspace(0.0, 1.0, spectrum.shape[1]).unsqueeze(0)
    return torch.fft.irfft(spectrum * response(frequency), n=sound.shape[1])


def white_noise(sound: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """White noise at 18 to -6 dB."""
    return _at_ratio(sound, _normal(sound.shape, generator), 24.0 - 6.0 * severity)


def rumble(sound: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Noise whose power falls with frequency, as of wind, motors or rooms, at 15 to -11 dB."""
    slope = _rows(_random(len(sound), 0.4, 1.2, generator), 2)
    noise = _filtered(_normal(sound.shape, generator), lambda f: f.clamp(min=0.004) ** -slope)
    return _at_ratio(sound, noise, 21.5 - 6.5 * severity)


def hum(sound: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """A tone of 40 to 400 periods in the window and its harmonics, at 14 to -10 dB."""
    count, length = sound.shape
    base = torch.exp(_random(count, math.log(40.0), math.log(400.0), generator)).unsqueeze(1)
    time = torch.arange(length).unsqueeze(0) / length
    tone = torch.zeros_like(sound)
    for harmonic in range(1, 9):
        phase, strength = _random(count, 0.0, 2 * math.pi, generator), _random(count, 0.0, 1.0, generator)
        tone += _rows(strength, 2) / harmonic * torch.sin(2 * math.pi * harmonic * base * time + _rows(phase, 2))
    return _at_ratio(sound, tone, 20.0 - 6.0 * severity)


def talk(sound: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Four other samples of the batch at once, shifted in time, at 13 to -3 dB."""
    others = torch.zeros_like(sound)
    for _ in range(4):
        shift = int(torch.randint(sound.shape[1], (), generator=generator))
        others += torch.roll(sound[torch.randint(len(sound), (len(sound),), generator=generator)], shift, dims=1)
    return _at_ratio(sound, others, 17.0 - 4.0 * severity)


def muffled(sound: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Nothing above 33 to 5 % of half the rate (2.6 to 0.4 kHz at 16 kHz)."""
    cut = _rows(0.55 * 0.62**severity, 2)
    return _filtered(sound, lambda f: 1.0 / (1.0 + (f / cut) ** 12))


def clipping(sound: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Cut off at 50 to 3 % of the peak, at any level."""
    peak = sound.abs().amax(1, keepdim=True).clamp(min=1e-4)
    full = (sound / (peak * 0.5 ** _rows(severity, 2))).clamp(-1.0, 1.0)
    return full * _rows(_random(len(sound), 0.05, 1.0, generator), 2)


def dropouts(sound: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """13 to 65 % of the fortieths of the window are silent, as where packets are lost."""
    blocks = 40
    keep = torch.rand((len(sound), blocks), generator=generator) >= 0.13 * severity.unsqueeze(1)
    return sound * keep.repeat_interleave(-(-sound.shape[1] // blocks), 1)[:, : sound.shape[1]]


def echo(sound: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Reverberation that decays within 10 to 50 % of the window, as loud as the direct sound or louder."""
    length = sound.shape[1]
    time = torch.arange(length).unsqueeze(0) / length
    tail = _normal(sound.shape, generator) * torch.exp(-6.9 * time / (0.1 * severity.unsqueeze(1)))
    tail = tail / tail.square().sum(1, keepdim=True).sqrt()
    tail[:, 0] += 1.0 / severity
    wet = torch.fft.irfft(torch.fft.rfft(sound, 2 * length) * torch.fft.rfft(tail, 2 * length), n=2 * length)[:, :length]
    level = sound.square().mean(1, keepdim=True) / wet.square().mean(1, keepdim=True).clamp(min=1e-12)
    return wet * level.sqrt()


def speed(sound: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Another voice: played faster or slower by 8 to 49 %, pitch included, about the middle."""
    way = torch.where(torch.rand(len(sound), generator=generator) < 0.5, -1.0, 1.0)
    factor = torch.exp(0.08 * severity * way).unsqueeze(1)
    at = torch.linspace(-1.0, 1.0, sound.shape[1]).unsqueeze(0) * factor
    grid = torch.stack([at, torch.zeros_like(at)], -1).unsqueeze(1)  # (B, 1, N, 2)
    return F.grid_sample(sound[:, None, None, :], grid, mode="bilinear", padding_mode="zeros", align_corners=True)[:, 0, 0]


def faint(sound: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """From far away: 9 to 45 dB weaker, over a microphone's own noise at -72 dB of full scale."""
    return sound * 10.0 ** (-9.0 * _rows(severity, 2) / 20.0) + 2.5e-4 * _normal(sound.shape, generator)


KINDS: Mapping[str, Mapping[str, Corruption]] = {
    "image": {f.__name__: f for f in (sensor_noise, blur, motion, low_light, overexposure, low_contrast, occlusion, tilt)},
    "audio": {f.__name__: f for f in (white_noise, rumble, hum, talk, muffled, clipping, dropouts, echo, speed, faint)},
    "vector": {f.__name__: f for f in vector_field.KINDS},
}
"""Kind of modality -> name -> corruption. A sample's kind is an index into these."""


@dataclass(frozen=True)
class Field:
    """What befalls each sample.

    Attributes:
        modality_kind: ``image``, ``audio`` or ``vector``.
        kind: int64 ``(N,)``, index into :data:`KINDS` of that, or :data:`CLEAN`.
        severity: float32 ``(N,)`` in [1, 5].
    """

    modality_kind: str
    kind: np.ndarray
    severity: np.ndarray

    def rows(self, rows: slice) -> Field:
        """What befalls some of the samples."""
        return Field(self.modality_kind, self.kind[rows], self.severity[rows])


def draw_field(modality_kind: str, count: int, seed: Sequence[int]) -> Field:
    """Kinds in equal shares, severities uniform."""
    rng = np.random.default_rng(seed)
    kind = rng.permutation(np.arange(count) % len(KINDS[modality_kind]))
    return Field(modality_kind, kind, rng.uniform(MILDEST, WORST, count).astype(np.float32))


def corrupt(samples: Tensor, field: Field, generator: torch.Generator) -> Tensor:
    """Samples as an encoder takes them, corrupted: uint8 (B, H, W, 3), or sound or vectors float32 (B, N); the same type back."""
    picture = field.modality_kind == "image"
    x = samples.permute(0, 3, 1, 2).float() / 255.0 if picture else samples
    out = x.clone()
    for index, change in enumerate(KINDS[field.modality_kind].values()):
        rows = torch.from_numpy(np.flatnonzero(field.kind == index))
        if len(rows):
            out[rows] = change(x[rows], torch.from_numpy(field.severity)[rows], generator)
    if field.modality_kind == "vector":
        return out
    if not picture:
        return out.clamp(-1.0, 1.0)
    return (out.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
