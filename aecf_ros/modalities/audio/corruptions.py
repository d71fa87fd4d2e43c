"""What befalls sound in the field: kinds of corruption, severity 1 to 5, each as ``field.py`` says.

Every kind is a pure function (batch, severity, generator) -> batch: float32 (B, N) in [-1, 1], severity float32 (B,)
in [1, 5];
what comes back may leave [-1, 1]. Lengths are shares of the window.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from aecf_ros.modalities.corruptions import normal, rows, uniform


def _at_ratio(sound: Tensor, noise: Tensor, ratio_db: Tensor) -> Tensor:
    """Sound with noise at a signal-to-noise ratio (B,); silence gets noise at -60 dB of full scale."""
    level = sound.square().mean(1, keepdim=True).sqrt().clamp(min=1e-3)
    unit = noise / noise.square().mean(1, keepdim=True).sqrt().clamp(min=1e-9)
    return sound + level * unit * 10.0 ** (-rows(ratio_db, 2) / 20.0)


def _filtered(sound: Tensor, response: Callable[[Tensor], Tensor]) -> Tensor:
    """Through a zero-phase filter; ``response`` takes frequency as a share of half the rate, (1, bins)."""
    spectrum = torch.fft.rfft(sound)
    frequency = torch.linspace(0.0, 1.0, spectrum.shape[1]).unsqueeze(0)
    filtered: Tensor = torch.fft.irfft(spectrum * response(frequency), n=sound.shape[1])
    return filtered


def white_noise(sound: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """White noise at 18 to -6 dB."""
    return _at_ratio(sound, normal(sound.shape, generator), 24.0 - 6.0 * severity)


def rumble(sound: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Noise whose power falls with frequency, as of wind, motors or rooms, at 15 to -11 dB."""
    slope = rows(uniform(len(sound), 0.4, 1.2, generator), 2)
    noise = _filtered(normal(sound.shape, generator), lambda f: f.clamp(min=0.004) ** -slope)
    return _at_ratio(sound, noise, 21.5 - 6.5 * severity)


def hum(sound: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """A tone of 40 to 400 periods in the window and its harmonics, at 14 to -10 dB."""
    count, length = sound.shape
    base = torch.exp(uniform(count, math.log(40.0), math.log(400.0), generator)).unsqueeze(1)
    time = torch.arange(length).unsqueeze(0) / length
    tone = torch.zeros_like(sound)
    for harmonic in range(1, 9):
        phase, strength = uniform(count, 0.0, 2 * math.pi, generator), uniform(count, 0.0, 1.0, generator)
        tone += rows(strength, 2) / harmonic * torch.sin(2 * math.pi * harmonic * base * time + rows(phase, 2))
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
    cut = rows(0.55 * 0.62**severity, 2)
    return _filtered(sound, lambda f: 1.0 / (1.0 + (f / cut) ** 12))


def clipping(sound: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Cut off at 50 to 3 % of the peak, at any level."""
    peak = sound.abs().amax(1, keepdim=True).clamp(min=1e-4)
    full = (sound / (peak * 0.5 ** rows(severity, 2))).clamp(-1.0, 1.0)
    return full * rows(uniform(len(sound), 0.05, 1.0, generator), 2)


def dropouts(sound: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """13 to 65 % of the fortieths of the window are silent, as where packets are lost."""
    blocks = 40
    keep = torch.rand((len(sound), blocks), generator=generator) >= 0.13 * severity.unsqueeze(1)
    return sound * keep.repeat_interleave(-(-sound.shape[1] // blocks), 1)[:, : sound.shape[1]]


def echo(sound: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Reverberation that decays within 10 to 50 % of the window, as loud as the direct sound or louder."""
    length = sound.shape[1]
    time = torch.arange(length).unsqueeze(0) / length
    tail = normal(sound.shape, generator) * torch.exp(-6.9 * time / (0.1 * severity.unsqueeze(1)))
    tail = tail / tail.square().sum(1, keepdim=True).sqrt()
    tail[:, 0] += 1.0 / severity
    wet: Tensor = torch.fft.irfft(torch.fft.rfft(sound, 2 * length) * torch.fft.rfft(tail, 2 * length), n=2 * length)[
        :, :length
    ]
    level = sound.square().mean(1, keepdim=True) / wet.square().mean(1, keepdim=True).clamp(min=1e-12)
    return wet * level.sqrt()


def speed(sound: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Another voice: played faster or slower by 8 to 49 %, pitch included, about the middle."""
    way = torch.where(torch.rand(len(sound), generator=generator) < 0.5, -1.0, 1.0)
    factor = torch.exp(0.08 * severity * way).unsqueeze(1)
    at = torch.linspace(-1.0, 1.0, sound.shape[1]).unsqueeze(0) * factor
    grid = torch.stack([at, torch.zeros_like(at)], -1).unsqueeze(1)  # (B, 1, N, 2)
    return functional.grid_sample(
        sound[:, None, None, :], grid, mode="bilinear", padding_mode="zeros", align_corners=True
    )[:, 0, 0]


def faint(sound: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """From far away: 9 to 45 dB weaker, over a microphone's own noise at -72 dB of full scale."""
    return sound * 10.0 ** (-9.0 * rows(severity, 2) / 20.0) + 2.5e-4 * normal(sound.shape, generator)


KINDS = (white_noise, rumble, hum, talk, muffled, clipping, dropouts, echo, speed, faint)


def to_float(samples: Tensor) -> Tensor:
    """Samples of an encoder as the corruptions take them: float32 (B, N) as they are."""
    return samples


def from_float(sound: Tensor) -> Tensor:
    """What :func:`to_float` undoes; values are cut off at [-1, 1]."""
    return sound.clamp(-1.0, 1.0)
