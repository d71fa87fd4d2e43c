"""Random numbers for a batch of samples, and one number for each sample in the shape of the batch."""

from __future__ import annotations

import torch
from torch import Tensor


def rows(value: Tensor, dims: int) -> Tensor:
    """(B,) as (B, 1, ...) with ``dims`` axes."""
    return value.view(-1, *[1] * (dims - 1))


def uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """float32 (count,) in [low, high)."""
    return low + (high - low) * torch.rand(count, generator=generator)


def normal(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """float32 of ``shape``, mean 0 and variance 1."""
    return torch.randn(shape, generator=generator)
