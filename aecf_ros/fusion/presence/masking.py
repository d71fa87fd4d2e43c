"""Presence masks: masked softmax, and subsets of the modalities."""

import itertools

import torch
from torch import Tensor


def keep_present(values: Tensor, present: Tensor) -> Tensor:
    """Replace absent values by zero, before any arithmetic, so that NaN in an absent modality has no effect.

    values: [B, D] of one modality; present: bool [B]. Returns [B, D].
    """
    return torch.where(present.unsqueeze(-1), values, torch.zeros((), dtype=values.dtype, device=values.device))


def masked_softmax(scores: Tensor, present: Tensor) -> Tensor:
    """Softmax over the present entries of the last axis; absent entries get 0, and a row with none present is all 0.

    scores: float [..., M], finite where present; present: bool [..., M]. Returns float [..., M].

    >>> masked_softmax(torch.zeros(1, 3), torch.tensor([[True, False, True]]))
    tensor([[0.5000, 0.0000, 0.5000]])
    """
    lowest = torch.finfo(scores.dtype).min
    filled = torch.where(present, scores, torch.full_like(scores, lowest))
    return torch.where(present, torch.softmax(filled, dim=-1), torch.zeros_like(scores))


def all_subsets(modalities: int) -> list[tuple[bool, ...]]:
    """Every non-empty subset as M flags, smaller ones first. Plain Python, so that a traced graph sees constants."""
    rows = itertools.product([False, True], repeat=modalities)
    return sorted(rows, key=lambda row: (sum(row), row[::-1]))[1:]


def subset_index(present: Tensor) -> Tensor:
    """The presence pattern as a number, modality m counting 2^m: int64 [...] from bool [..., M]."""
    weights = 2 ** torch.arange(present.shape[-1], device=present.device)
    return (present.to(torch.int64) * weights).sum(-1)


def random_subsets(present: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """A uniformly drawn non-empty subset of the present modalities for each row: bool [B, M].

    Rows where nothing is present stay empty. Uniform over subsets, not over modalities: with two modalities each of
    both, first and second has probability 1/3.
    """
    subsets = torch.tensor(all_subsets(present.shape[-1]), device=present.device)  # [2^M - 1, M]
    allowed = ~(subsets.unsqueeze(0) & ~present.unsqueeze(1)).any(-1)  # [B, 2^M - 1]
    noise = torch.rand(allowed.shape, generator=generator, device=present.device)
    pick = torch.where(allowed, noise, torch.full_like(noise, -1.0)).argmax(-1)
    return subsets[pick] & present
