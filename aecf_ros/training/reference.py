"""What the exported head says of the calibration part, for the node to compare with what it meets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from aecf_ros.core.bundle import DriftReference
from aecf_ros.core.types import subset_name
from aecf_ros.fusion.masking import all_subsets
from aecf_ros.training.export import HEAD_OUTPUTS, ExportedHead

LEVELS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@torch.inference_mode()
def drift_reference(
    head: ExportedHead, names: Sequence[str], embeddings: Sequence[np.ndarray], present: np.ndarray
) -> DriftReference:
    """Quantiles of the distance of each modality to training, and of the confidence of each subset.

    Args:
        embeddings: float32 ``(N, D_m)`` of N moments; rows of what is absent may hold anything.
        present: bool ``(N, M)``; a subset is measured on the moments that have all of it.
    """
    distances: dict[str, list[float]] = {}
    confidence: dict[str, list[float]] = {}
    for pattern in reversed(all_subsets(len(names))):
        rows = np.flatnonzero(present[:, np.array(pattern)].all(1))
        outputs = head(*(torch.from_numpy(of[rows]) for of in embeddings), torch.tensor(pattern).expand(len(rows), -1))
        said = dict(zip(HEAD_OUTPUTS, outputs, strict=True))
        confidence[subset_name(names, pattern)] = _quantiles(said["confidence"].numpy())
        if sum(pattern) == 1:
            m = pattern.index(True)
            distances[names[m]] = _quantiles(said["distances"][:, m].numpy())
    return DriftReference(levels=list(LEVELS), distances={name: distances[name] for name in names}, confidence=confidence)


def _quantiles(values: np.ndarray) -> list[float]:
    """Rounded, because a manifest is read by people; still in order."""
    return [round(float(q), 6) for q in np.quantile(values.astype(np.float64), LEVELS)]
