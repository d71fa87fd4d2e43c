"""What befalls vectors in the field: kinds of corruption, severity 1 to 5, as ``field.py`` has them for pictures and
sound.

Nothing is known of what the numbers mean, so that these are faults of transport and of whatever computes them. Every
kind is
a pure function (batch, severity, generator) -> batch: float32 (B, D), severity float32 (B,) in [1, 5]. "Another" is
another
sample of the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _others(rows: Tensor, generator: torch.Generator) -> Tensor:
    """For each row (B,) another one, itself where there is no other."""
    count = len(rows)
    return (rows + torch.randint(1, max(count, 2), (count,), generator=generator)) % count


def zeros(vector: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """20 to 100 % of the numbers are 0."""
    return torch.where(torch.rand(vector.shape, generator=generator) < 0.2 * severity.unsqueeze(1), 0.0, vector)


def spread(vector: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Noise with the covariance of the data, 0.3 to 1.5 times as wide: the difference of two others has twice that
    covariance.
    """
    one = _others(torch.arange(len(vector)), generator)
    return vector + 0.3 * severity.unsqueeze(1) * (vector[one] - vector[_others(one, generator)]) / 2**0.5


def white(vector: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Noise on each number by itself, 0.3 to 1.5 times the root mean square of the vector about its mean."""
    width = (vector - vector.mean(1, keepdim=True)).square().mean(1, keepdim=True).sqrt()
    return vector + 0.3 * severity.unsqueeze(1) * width * torch.randn(vector.shape, generator=generator)


def mixed(vector: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """20 to 100 % of the way to another: two things sensed at once, and at last the wrong one."""
    return torch.lerp(vector, vector[_others(torch.arange(len(vector)), generator)], 0.2 * severity.unsqueeze(1))


def held(vector: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """20 to 100 % of the numbers are those of the sample before: what computes them has not gone on."""
    old = torch.rand(vector.shape, generator=generator) < 0.2 * severity.unsqueeze(1)
    return torch.where(old, torch.roll(vector, 1, 0), vector)


def rescaled(vector: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """1.2 to 2.5 times as large, or as small: another unit, or a step of normalization that was left out."""
    way = torch.where(torch.rand(len(vector), generator=generator) < 0.5, -1.0, 1.0)
    return vector * (1.2 ** (severity * way)).unsqueeze(1)


KINDS = (zeros, spread, white, mixed, held, rescaled)


def to_float(samples: Tensor) -> Tensor:
    """Samples of an encoder as the corruptions take them: float32 (B, D) as they are."""
    return samples


def from_float(vectors: Tensor) -> Tensor:
    """What :func:`to_float` undoes: nothing."""
    return vectors
