"""Contrastive expert calibration: confidence should not fall when a modality is added.

For subsets A of B, the squared hinge max(0, c(A) - c(B))^2 (arXiv 2505.15417, section 3; the principle is that of CML,
Ma et al. 2023, who use a plain hinge on one removed modality). Up to four modalities all pairs are used, above that
sampled ones.
"""

import torch
from torch import Tensor

from aecf_ros.fusion.presence.masking import all_subsets

ALL_PAIRS_UP_TO = 4


def subset_pairs(modalities: int) -> Tensor:
    """Every (A, B) with A a proper non-empty subset of B, as rows of all_subsets: int64 [P, 2]."""
    subsets = all_subsets(modalities)
    pairs = [
        (i, j)
        for i, a in enumerate(subsets)
        for j, b in enumerate(subsets)
        if i != j and all(x <= y for x, y in zip(a, b, strict=True))
    ]
    return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)


def sampled_pairs(modalities: int, generator: torch.Generator | None = None) -> Tensor:
    """All pairs up to ALL_PAIRS_UP_TO modalities, as many random ones as four modalities have above: int64 [P, 2]."""
    pairs = subset_pairs(modalities)
    if modalities <= ALL_PAIRS_UP_TO:
        return pairs
    keep = len(subset_pairs(ALL_PAIRS_UP_TO))
    return pairs[torch.randperm(len(pairs), generator=generator)[:keep]]


def cec_term(confidence: Tensor, pairs: Tensor, valid: Tensor) -> Tensor:
    """Mean over valid pairs of max(0, c(A) - c(B))^2: scalar.

    confidence: [B, S], a column for each of all_subsets; pairs: int64 [P, 2]; valid: bool [B, S], whether every
    modality of the subset is present in the row (a pair counts where B is valid: then A is too).
    """
    excess = (confidence[:, pairs[:, 0]] - confidence[:, pairs[:, 1]]).clamp(min=0.0).square()
    counted = valid[:, pairs[:, 1]].to(excess.dtype)
    return (excess * counted).sum() / counted.sum().clamp(min=1.0)
