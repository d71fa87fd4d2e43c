"""How good probabilities of independent labels are, where a moment may have several, for each subset of modalities.

Everything takes ``probabilities`` float ``(N, C)`` in [0, 1] and ``targets`` bool ``(N, C)``.
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
"""By the task of a bundle: which of its metrics a table on the terminal has, and what they are called there."""


def average_precision(scores: np.ndarray, target: np.ndarray) -> float:
    """Area under the precision-recall steps of one label, equal scores taken together; NaN where no sample has it.

    Args:
        scores: float ``(N,)``.
        target: bool ``(N,)``.

    >>> round(average_precision(np.array([0.9, 0.8, 0.7, 0.1]), np.array([True, False, True, False])), 4)
    0.8333
    """
    if not target.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(target[order])
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # of each run of equal scores
    precision, recall = found[last] / (last + 1), found[last] / found[-1]
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def label_scores(probabilities: np.ndarray, targets: np.ndarray) -> list[dict[str, float | int]]:
    """Of each label: n (samples that have it), average_precision (left out where none has it), ece and its noise floor."""
    found = []
    for p, t in zip(np.asarray(probabilities, np.float64).T, targets.T, strict=True):
        scores = {"n": int(t.sum()), "ece": expected_calibration_error(p, t), "ece_noise_floor": ece_noise_floor(p)}
        found.append(scores | ({"average_precision": average_precision(p, t)} if t.any() else {}))
    return found


def multilabel_metrics(
    probabilities: np.ndarray, targets: np.ndarray, prediction_sets: np.ndarray
) -> dict[str, float | int]:
    """METRICS of one subset of modalities where labels are independent.

    Args:
        prediction_sets: bool ``(N, C)``.

    Returns:
        ``{"n": 0}`` for no samples, else n; map, the mean over the labels that occur of their average precision (macro, not
        flattened); subset_accuracy, the share of samples of which every label is on the right side of one half; nll (binary), brier,
        ece and ece_noise_floor, each the mean over labels; coverage, the share of the labels that are there that the set holds; set_size.
    """
    n = len(targets)
    if n == 0:
        return {"n": 0}
    p = np.asarray(probabilities, np.float64)
    scores = label_scores(p, targets)
    precision = [of["average_precision"] for of in scores if "average_precision" in of]
    said = np.where(targets, p, 1.0 - p)
    return {
        "n": n,
        "map": float(np.mean(precision)) if precision else 0.0,
        "subset_accuracy": float(((p >= 0.5) == targets).all(1).mean()),
        "nll": float(-np.log(np.maximum(said, _TINY)).mean()),
        "ece": float(np.mean([of["ece"] for of in scores])),
        "ece_noise_floor": float(np.mean([of["ece_noise_floor"] for of in scores])),
        "brier": float(((p - targets) ** 2).mean()),
        "coverage": float(prediction_sets[targets].mean()) if targets.any() else 1.0,
        "set_size": float(prediction_sets.sum(1).mean()),
    }
