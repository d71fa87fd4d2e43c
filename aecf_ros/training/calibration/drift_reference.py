"""What the exported head says of the calibration part, for the node to compare with what it meets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from aecf_ros.core.bundle import DriftReference
from aecf_ros.core.drift import RECOGNIZED
from aecf_ros.training.export.head_graph import HEAD_OUTPUTS, CalibratedHead

LEVELS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@torch.inference_mode()
def drift_reference(
    head: CalibratedHead, names: Sequence[str], embeddings: Sequence[np.ndarray], present: np.ndarray
) -> DriftReference:
    """Quantiles of the distance of each modality to training, and of its confidence alone where it recognizes something.

    Args:
        embeddings: float32 ``(N, D_m)`` of N moments; rows of what is absent may hold anything.
        present: bool ``(N, M)``.
    """
    outputs = head(*map(torch.from_numpy, embeddings), torch.from_numpy(np.ascontiguousarray(present)))
    said = dict(zip(HEAD_OUTPUTS, outputs, strict=True))
    distances, alone = said["distances"].numpy(), said["modality_probabilities"].amax(2).numpy()
    recognized = present & (alone >= RECOGNIZED)
    return DriftReference(
        levels=list(LEVELS),
        distances={name: _quantiles(distances[present[:, m], m]) for m, name in enumerate(names)},
        confidence={name: _quantiles(alone[recognized[:, m], m]) for m, name in enumerate(names)},
    )


def _quantiles(values: np.ndarray) -> list[float]:
    """Rounded, because a manifest is read by people; still in order. Zeros where there is no value: nothing is below them."""
    return (
        [round(float(q), 6) for q in np.quantile(values.astype(np.float64), LEVELS)]
        if len(values)
        else [0.0] * len(LEVELS)
    )
