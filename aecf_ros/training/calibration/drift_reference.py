"""Outputs of the exported head on the calibration part, against which the node measures drift."""

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
    """Quantiles of each modality's distance to training, and of its confidence alone where it recognizes a label.

    Args:
        embeddings: float32 ``(N, D_m)`` of N moments; rows of absent modalities are ignored.
        present: bool ``(N, M)``.
    """
    outputs = head(*map(torch.from_numpy, embeddings), torch.from_numpy(np.ascontiguousarray(present)))
    by_name = dict(zip(HEAD_OUTPUTS, outputs, strict=True))
    distances, alone = by_name["distances"].numpy(), by_name["modality_probabilities"].amax(2).numpy()
    recognized = present & (alone >= RECOGNIZED)
    return DriftReference(
        levels=list(LEVELS),
        distances={name: _quantiles(distances[present[:, m], m]) for m, name in enumerate(names)},
        confidence={name: _quantiles(alone[recognized[:, m], m]) for m, name in enumerate(names)},
    )


def _quantiles(values: np.ndarray) -> list[float]:
    """Quantiles at :data:`LEVELS`, rounded for the manifest; zeros where there is no value."""
    return (
        [round(float(q), 6) for q in np.quantile(values.astype(np.float64), LEVELS)]
        if len(values)
        else [0.0] * len(LEVELS)
    )
