"""Accuracy and calibration of the probabilities of independent labels (multi-label classification).

All functions take ``probabilities`` float ``(N, C)`` in [0, 1] and ``targets`` bool ``(N, C)``.
"""

from __future__ import annotations

import numpy as np

from aecf_ros.core.metrics.classification import ece_noise_floor, expected_calibration_error

_TINY = 1e-12
SHOWN = {
    "multiclass": {
        "accuracy": "accuracy",
        "nll": "NLL",
        "ece": "ECE",
        "ece_noise_floor": "floor",
        "coverage": "coverage",
    },
    "multilabel": {
        "map": "macro mAP",
        "subset_accuracy": "all right",
        "nll": "NLL",
        "ece": "ECE",
        "ece_noise_floor": "floor",
        "coverage": "coverage",
    },
}
"""By task: the metrics shown in tables, and their titles."""


def average_precision(scores: np.ndarray, target: np.ndarray) -> float:
    """Average precision of one label, equal scores taken together; NaN if no sample has the label.

    Args:
        scores: float ``(N,)``.
        target: bool ``(N,)``.

    >>> round(average_precision(np.array([0.9, 0.8, 0.7, 0.1]), np.array([True, False, True, False])), 4)
    0.8333
    """
    if not target.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(target[order])
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # of each run of equal scores
    precision, recall = hits[last] / (last + 1), hits[last] / hits[-1]
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def label_scores(probabilities: np.ndarray, targets: np.ndarray) -> list[dict[str, float | int]]:
    """Metrics of each label: n, the samples that have it; average_precision, unless n is 0; ece and its noise floor."""
    rows = []
    for p, t in zip(np.asarray(probabilities, np.float64).T, targets.T, strict=True):
        scores = {"n": int(t.sum()), "ece": expected_calibration_error(p, t), "ece_noise_floor": ece_noise_floor(p)}
        rows.append(scores | ({"average_precision": average_precision(p, t)} if t.any() else {}))
    return rows


def multilabel_metrics(
    probabilities: np.ndarray, targets: np.ndarray, prediction_sets: np.ndarray
) -> dict[str, float | int]:
    """The METRICS record of ``summary.json`` for one subset of modalities, with independent labels.

    Args:
        prediction_sets: bool ``(N, C)``.

    Returns:
        ``{"n": 0}`` without samples, else n; map, the average precision averaged over the labels that occur (macro);
        subset_accuracy, the share of samples with every label on the right side of one half; nll (binary), brier, ece
        and ece_noise_floor, each averaged over labels; coverage, the share of true labels in the prediction sets;
        set_size.
    """
    n = len(targets)
    if n == 0:
        return {"n": 0}
    p = np.asarray(probabilities, np.float64)
    scores = label_scores(p, targets)
    precision = [row["average_precision"] for row in scores if "average_precision" in row]
    likelihood = np.where(targets, p, 1.0 - p)
    return {
        "n": n,
        "map": float(np.mean(precision)) if precision else 0.0,
        "subset_accuracy": float(((p >= 0.5) == targets).all(1).mean()),
        "nll": float(-np.log(np.maximum(likelihood, _TINY)).mean()),
        "ece": float(np.mean([row["ece"] for row in scores])),
        "ece_noise_floor": float(np.mean([row["ece_noise_floor"] for row in scores])),
        "brier": float(((p - targets) ** 2).mean()),
        "coverage": float(prediction_sets[targets].mean()) if targets.any() else 1.0,
        "set_size": float(prediction_sets.sum(1).mean()),
    }
