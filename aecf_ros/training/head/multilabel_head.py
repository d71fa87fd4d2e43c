"""The exported head of a multilabel model: probabilities of independent labels, and their calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from aecf_ros.core.types import subset_name
from aecf_ros.fusion.calibration.conformal import conformal_threshold
from aecf_ros.fusion.layer import AECF
from aecf_ros.fusion.presence.agreement import agreement
from aecf_ros.fusion.presence.masking import all_subsets, keep_present, subset_index
from aecf_ros.training.calibration.calibrate import (
    SubsetFit,
    distance_model,
    outlier_limits,
    require_samples,
    shown_rows,
    subset_logits,
)
from aecf_ros.training.config import CalibrationConfig
from aecf_ros.training.export.head_graph import CalibratedHead
from aecf_ros.training.head.feature_tables import PartFeatures

STEEPEST = 3.0
"""Bound of the logarithm of a scale."""


@dataclass(frozen=True)
class LabelCalibration:
    """Tables of a multilabel head. Patterns are numbered as :func:`aecf_ros.fusion.presence.masking.subset_index`.

    Attributes:
        coverage: share of the true labels that a prediction set is to hold.
        scales, shifts: float32 ``(2**M, C)`` of each label's log-odds; 1 and 0 for the empty pattern.
        set_thresholds: float32 ``(2**M, C)``; a label is in the set where its probability reaches this. 0 for the
            empty pattern and for labels of too few calibration samples.
        conflict_below: agreement under which modalities conflict; below 0 for never.
        centers, whiteners, outlier_above: see :class:`aecf_ros.training.calibration.calibrate.Calibration`; each
            modality has one center.
        fits: of each pattern but the empty one, with the median over labels of 1 / scale and of the threshold.
        positives: int ``(C,)``, calibration samples that have each label.
    """

    coverage: float
    scales: np.ndarray
    shifts: np.ndarray
    set_thresholds: np.ndarray
    conflict_below: float
    centers: list[np.ndarray]
    whiteners: list[np.ndarray]
    outlier_above: np.ndarray
    fits: list[SubsetFit]
    positives: np.ndarray


class LabelHead(CalibratedHead):
    """The fusion layer with its calibration, for independent labels; the outputs are those of every head."""

    scales: Tensor
    shifts: Tensor
    set_thresholds: Tensor

    def __init__(self, fusion: AECF, calibration: LabelCalibration) -> None:
        super().__init__(fusion, calibration)
        for name in ("scales", "shifts", "set_thresholds"):
            self.register_buffer(name, torch.from_numpy(getattr(calibration, name)))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """An embedding float32 (B, D_m) for each modality, then ``present`` bool (B, M); gives ``export.HEAD_OUTPUTS``.

        The confidence is the largest probability. What is most probable need not be in the set: nothing may be there.
        """
        *raw, present = inputs
        embeddings = [keep_present(e, present[:, m]) for m, e in enumerate(raw)]
        out = self.fusion(embeddings, present)
        pattern = subset_index(present)
        probabilities = torch.sigmoid(out.logits * self.scales[pattern] + self.shifts[pattern])  # (B, C)
        confidence = probabilities.amax(dim=1)
        alone = torch.sigmoid(calibrated_alone(out.modality_logits, present, self.scales, self.shifts))  # (B, M, C)
        agreed = label_agreement(alone, present)
        prediction_set = probabilities >= self.set_thresholds[pattern]
        distances = torch.where(present, self.distances(embeddings), 0.0)
        code = self.abstain_code(distances, present, torch.ones_like(confidence), agreed)
        return probabilities, confidence, out.gate_weights, out.entropy, agreed, alone, prediction_set, code, distances


def calibrated_alone(modality_logits: Tensor, present: Tensor, scales: Tensor, shifts: Tensor) -> Tensor:
    """Calibrated log-odds of each modality alone, (B, M, C); the prior where it is absent."""
    single = 2 ** torch.arange(modality_logits.shape[1])
    return torch.where(present.unsqueeze(-1), modality_logits * scales[single] + shifts[single], modality_logits)


def label_agreement(alone: Tensor, present: Tensor) -> Tensor:
    """Agreement of the modalities, averaged over labels: (B,) from probabilities (B, M, C)."""
    batch, modalities, classes = alone.shape
    either = torch.stack([alone, 1.0 - alone], dim=-1).transpose(1, 2).reshape(-1, modalities, 2)
    each = agreement(either, present.unsqueeze(1).expand(-1, classes, -1).reshape(-1, modalities))
    return each.reshape(-1, classes).mean(dim=1)


def fit_scaling(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift of each label's log-odds by its likelihood, (C,) each (Platt 1999, section 2.2).

    The targets are Platt's: (N+ + 1) / (N+ + 2) for positives and 1 / (N- + 2) for negatives, which keep both finite
    for a label that is separated without an error, or that has no positives.

    Args:
        logits: float (N, C).
        targets: bool (N, C).
    """
    logits = logits.clone()  # tensors of inference mode take no part in autograd
    positives = targets.sum(0)
    soft = torch.where(targets, (positives + 1) / (positives + 2), 1 / (len(targets) - positives + 2))
    log_scale, shift = (torch.zeros(logits.shape[1], requires_grad=True) for _ in range(2))
    optimizer = torch.optim.LBFGS([log_scale, shift], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        scaled = logits * log_scale.clamp(-STEEPEST, STEEPEST).exp() + shift
        loss = F.binary_cross_entropy_with_logits(scaled, soft, reduction="none").mean(0).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return log_scale.detach().clamp(-STEEPEST, STEEPEST).exp(), shift.detach()


def calibrate_labels(
    head: AECF, names: Sequence[str], part: PartFeatures, reference: Sequence[np.ndarray], config: CalibrationConfig
) -> LabelCalibration:
    """Fit the tables on a calibration part.

    Args:
        part: moments that may have several labels.
        reference: float32 ``(N_m, D_m)`` of the part that was trained on, which distances are measured from.

    Raises:
        CalibrationError: a subset has too few samples.
    """
    assert part.moments is not None and part.sets is not None, "multilabel samples are moments of recordings or tables"
    pairs, classes = part.moments, part.sets.shape[1]
    shape = (2 ** len(names), classes)
    scales, shifts, thresholds = np.ones(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    fits = []
    inputs = [torch.from_numpy(column[pairs.rows[:, m]]) for m, column in enumerate(part.embeddings)]
    targets = torch.from_numpy(part.sets[pairs.labels])
    for pattern in all_subsets(len(names)):
        rows, name = shown_rows(pairs, pattern), subset_name(names, pattern)
        require_samples(name, len(rows), config)
        logits = subset_logits(head, [column[rows] for column in inputs], pattern)
        scale, shift = fit_scaling(logits, targets[rows])
        probabilities = torch.sigmoid(logits * scale + shift)
        least = [_threshold(probabilities[targets[rows, c], c], config.coverage) for c in range(classes)]
        at = int(subset_index(torch.tensor(pattern)))
        scales[at], shifts[at], thresholds[at] = scale.numpy(), shift.numpy(), least
        fits.append(
            SubsetFit(name, len(rows), len(rows), float(1.0 / np.median(scales[at])), float(np.median(thresholds[at])))
        )
    models = [distance_model(column, np.zeros(len(column), np.int64)) for column in reference]
    return LabelCalibration(
        coverage=config.coverage,
        scales=scales,
        shifts=shifts,
        set_thresholds=thresholds,
        conflict_below=_conflict_below(
            head, inputs, torch.from_numpy(pairs.present), scales, shifts, config.conflict_rate
        ),
        centers=[centers for centers, _ in models],
        whiteners=[whitener for _, whitener in models],
        outlier_above=outlier_limits(part.embeddings, models, config.outlier_rate),
        fits=fits,
        positives=part.sets[pairs.labels].sum(0),
    )


def _threshold(scores: Tensor, coverage: float) -> float:
    """Threshold of one label, from its probabilities on positives; 0 (in every set) for too few positives."""
    try:
        return float(conformal_threshold(scores, coverage))
    except ValueError:
        return 0.0


@torch.inference_mode()
def _conflict_below(
    head: AECF, inputs: Sequence[Tensor], present: Tensor, scales: np.ndarray, shifts: np.ndarray, rate: float
) -> float:
    several = present.sum(1) > 1
    if rate == 0 or not several.any():
        return -1.0
    logits = head([column[several] for column in inputs], present[several]).modality_logits
    alone = torch.sigmoid(
        calibrated_alone(logits, present[several], torch.from_numpy(scales), torch.from_numpy(shifts))
    )
    return float(np.quantile(label_agreement(alone, present[several]).numpy(), rate))
