"""Calibration of a head: a temperature and a conformal threshold for each presence pattern, and when to abstain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aecf_ros.core.labeled_samples import NOTHING
from aecf_ros.core.types import subset_name
from aecf_ros.fusion.calibration.conformal import conformal_threshold
from aecf_ros.fusion.calibration.temperature import fit_temperature
from aecf_ros.fusion.gates.reliability import EvidenceGate
from aecf_ros.fusion.layer import AECF
from aecf_ros.fusion.objective import label_loss
from aecf_ros.fusion.presence.agreement import agreement
from aecf_ros.fusion.presence.masking import all_subsets, subset_index
from aecf_ros.training.config import CalibrationConfig
from aecf_ros.training.head.pairing import Pairs

TEMPERATURES = (0.05, 20.0)
"""Bounds of a temperature, reached only if every sample is right, or none is."""


class CalibrationError(ValueError):
    """A calibration that cannot be trusted; one line with what was found and what to do."""


@dataclass(frozen=True)
class SubsetFit:
    """One presence pattern: ``samples`` pairs (``distinct`` samples of its rarest modality), temperature, least
    probability in a set."""

    name: str
    samples: int
    distinct: int
    temperature: float
    set_threshold: float


@dataclass(frozen=True)
class Calibration:
    """Tables of the exported head.

    Patterns are numbered as :func:`aecf_ros.fusion.presence.masking.subset_index`.

    Attributes:
        coverage: share of samples whose prediction set is to hold the label.
        temperatures: float32 ``(2**M,)``, 1 for the empty pattern.
        set_thresholds: float32 ``(2**M,)``; a label is in the set where its probability reaches this. 0 for the empty
            pattern.
        conflict_below: agreement under which modalities conflict; below 0 for never.
        abstain_below: confidence under which the head abstains.
        centers: float32 ``(K, D_m)`` for each modality, the mean embedding of each class and of nothing.
        whiteners: float32 ``(D_m, D_m)`` for each modality; the distance is the norm of (e - center) @ whitener.
        outlier_above: float32 ``(M,)``, squared distance to the nearest center over which a modality is out of
            distribution.
        fits: how each pattern but the empty one was fitted.
    """

    coverage: float
    temperatures: np.ndarray
    set_thresholds: np.ndarray
    conflict_below: float
    abstain_below: float
    centers: list[np.ndarray]
    whiteners: list[np.ndarray]
    outlier_above: np.ndarray
    fits: list[SubsetFit]


def bounded_temperature(logits: Tensor, labels: np.ndarray) -> float:
    """The temperature T within :data:`TEMPERATURES` that minimizes the NLL of softmax(logits / T).

    Args:
        logits: ``(N, C)``.
        labels: int ``(N,)``.
    """
    scale = float(fit_temperature(logits, torch.from_numpy(labels)))
    return float(np.clip(1.0 / scale, *TEMPERATURES))


def distance_model(embeddings: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class centers and the whitening of the shared within-class covariance (Lee et al. 2018, section 2.1).

    Args:
        embeddings: float32 (N, D).
        labels: int (N,), -1 counting as a class of its own.

    Returns:
        centers float32 (K, D) and whitener float32 (D, D).
    """
    values, index = np.unique(labels, return_inverse=True)
    centers = np.stack([embeddings[index == k].mean(0) for k in range(len(values))])
    residual = (embeddings - centers[index]).astype(np.float64)
    covariance = residual.T @ residual / len(residual)
    covariance += 1e-3 * np.trace(covariance) / len(covariance) * np.eye(len(covariance)) + 1e-9 * np.eye(
        len(covariance)
    )
    whitener = np.linalg.cholesky(np.linalg.inv(covariance))
    return centers.astype(np.float32), whitener.astype(np.float32)


def nearest_center(embeddings: Tensor, centers: Tensor, whitener: Tensor) -> Tensor:
    """Squared Mahalanobis distance to the nearest center: (B, D), (K, D), (D, D) -> (B,)."""
    white, white_centers = embeddings @ whitener, centers @ whitener
    squared = white.square().sum(1, keepdim=True) + white_centers.square().sum(1) - 2.0 * white @ white_centers.T
    return squared.amin(1)


def calibrate(
    head: AECF,
    names: Sequence[str],
    embeddings: Sequence[np.ndarray],
    pairs: Pairs,
    config: CalibrationConfig,
    reference: Sequence[tuple[np.ndarray, np.ndarray]],
) -> Calibration:
    """Fit everything that the exported head adds to the fusion layer.

    A pattern is fitted on the pairs in which one of its modalities shows the label. An evidence gate was recalibrated
    already and gets no temperature: one fitted on seen kinds of data undoes part of its doubt about unseen kinds.

    Args:
        head: the trained fusion layer, in evaluation mode.
        names: modality names.
        embeddings: float32 (N_m, D_m) of each modality's calibration part.
        pairs: fixed pairs of the calibration part.
        config: coverage and rates.
        reference: embeddings and labels of each modality's training part, for the distance model.

    Raises:
        CalibrationError: fewer distinct samples than ``config.minimum_samples``, or too few for the coverage.
    """
    count = len(names)
    temperatures, thresholds = np.ones(2**count, np.float32), np.zeros(2**count, np.float32)
    inputs = [torch.from_numpy(column[pairs.rows[:, m]]) for m, column in enumerate(embeddings)]
    calibrated_itself = isinstance(head.gate, EvidenceGate)
    fits = []
    for pattern in all_subsets(count):
        used = np.array(pattern)
        name = subset_name(names, pattern)
        rows = shown_rows(pairs, pattern)
        distinct = min(len(np.unique(pairs.rows[rows, m])) for m in np.flatnonzero(used))
        require_samples(name, distinct, config)
        logits = subset_logits(head, [column[rows] for column in inputs], pattern)
        labels = pairs.labels[rows]
        temperature = 1.0 if calibrated_itself else bounded_temperature(logits, labels)
        probabilities = torch.softmax(logits / temperature, dim=1)
        threshold = float(
            conformal_threshold(probabilities[torch.arange(len(labels)), torch.from_numpy(labels)], config.coverage)
        )
        at = int(subset_index(torch.tensor(pattern)))
        temperatures[at], thresholds[at] = temperature, threshold
        fits.append(SubsetFit(name, len(rows), distinct, temperature, threshold))
    models = [distance_model(*samples) for samples in reference]
    return Calibration(
        coverage=config.coverage,
        temperatures=temperatures,
        set_thresholds=thresholds,
        conflict_below=_conflict_threshold(head, inputs, pairs, temperatures, config.conflict_rate),
        abstain_below=config.abstain_below,
        centers=[centers for centers, _ in models],
        whiteners=[whitener for _, whitener in models],
        outlier_above=outlier_limits(embeddings, models, config.outlier_rate),
        fits=fits,
    )


def outlier_limits(
    embeddings: Sequence[np.ndarray], models: Sequence[tuple[np.ndarray, np.ndarray]], rate: float
) -> np.ndarray:
    """The squared distance that a share ``rate`` of the samples of each modality exceeds: float32 ``(M,)``.

    ``models``: see :func:`distance_model`.
    """
    distances = [
        nearest_center(*map(torch.from_numpy, (part, *model))).numpy()
        for part, model in zip(embeddings, models, strict=True)
    ]
    return np.array([np.quantile(column, 1.0 - rate) for column in distances], np.float32)


def shown_rows(pairs: Pairs, pattern: Sequence[bool]) -> np.ndarray:
    """Rows, int64, of the pairs in which all modalities of ``pattern`` are present and one of them shows the label."""
    used = np.array(pattern)
    return np.flatnonzero((pairs.labels != NOTHING) & pairs.shows[:, used].any(1) & pairs.present[:, used].all(1))


def subset_nll(head: AECF, embeddings: Sequence[np.ndarray], pairs: Pairs, sets: np.ndarray | None = None) -> float:
    """Negative log-likelihood in nats on :func:`shown_rows`, averaged over the subsets of modalities that have rows.

    Args:
        head: in evaluation mode.
        embeddings: float32 ``(N_m, D_m)`` of each modality.
        sets: bool ``(K, C)``, the labels of each class index of a multilabel corpus; the likelihood is then binary and
            averaged over labels.
    """
    targets = torch.from_numpy(pairs.labels if sets is None else sets[pairs.labels])
    losses = []
    for pattern in all_subsets(len(embeddings)):
        rows = shown_rows(pairs, pattern)
        if len(rows):
            logits = subset_logits(
                head, [torch.from_numpy(column[pairs.rows[rows, m]]) for m, column in enumerate(embeddings)], pattern
            )
            losses.append(label_loss(head, logits, targets[rows]).mean().item())
    return float(np.mean(losses))


def require_samples(name: str, distinct: int, config: CalibrationConfig) -> None:
    """Refuse a subset of modalities with too few samples to calibrate.

    Raises:
        CalibrationError: it has fewer distinct samples than ``config`` asks for, or than its coverage needs.
    """
    needed = max(config.minimum_samples, math.ceil(1.0 / (1.0 - config.coverage) - 1e-9))
    if distinct < needed:
        raise CalibrationError(
            f"calibration of {name}: {distinct} distinct samples where {needed} are needed "
            f"for a coverage of {config.coverage:g}; "
            "add samples to the calibration part, or lower calibration.coverage or calibration.minimum_samples"
        )


@torch.inference_mode()
def subset_logits(head: AECF, embeddings: Sequence[Tensor], pattern: Sequence[bool]) -> Tensor:
    """Logits (N, C) of a head when only the modalities of ``pattern`` (M flags) are present."""
    return head(embeddings, torch.tensor(pattern).expand(len(embeddings[0]), -1)).logits


def alone_probabilities(modality_logits: Tensor, temperatures: Tensor) -> Tensor:
    """Calibrated probabilities of each modality alone: logits (B, M, C) and temperatures (2**M,) -> (B, M, C)."""
    single = 2 ** torch.arange(modality_logits.shape[1])
    return torch.softmax(modality_logits / temperatures[single].view(1, -1, 1), dim=-1)


@torch.inference_mode()
def _conflict_threshold(
    head: AECF, inputs: Sequence[Tensor], pairs: Pairs, temperatures: np.ndarray, rate: float
) -> float:
    """The ``rate`` quantile of agreement over labeled pairs, including those in which one modality shows nothing."""
    several = (pairs.labels != NOTHING) & (pairs.present.sum(1) > 1)
    if rate == 0 or not several.any():
        return -1.0
    present = torch.from_numpy(pairs.present)
    alone = alone_probabilities(head(inputs, present).modality_logits, torch.from_numpy(temperatures))
    return float(np.quantile(agreement(alone, present).numpy()[several], rate))
