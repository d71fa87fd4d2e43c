"""Accuracy and calibration of class probabilities.

All functions take ``probabilities`` float ``(N, C)`` with rows summing to 1 and ``labels`` int ``(N,)``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ECE_BINS = 15
_FLOOR_DRAWS = 200
_TINY = 1e-12


def negative_log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -log p(label), in nats.

    >>> round(negative_log_likelihood(np.array([[0.5, 0.5]]), np.array([0])), 4)
    0.6931
    """
    picked = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(picked, _TINY)).mean())


def brier_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean squared distance to the one-hot label, summed over classes (Brier 1950), in [0, 2].

    >>> round(brier_score(np.array([[0.9, 0.1]]), np.array([0])), 4)
    0.02
    """
    squared = (probabilities**2).sum(1) + 1.0 - 2.0 * probabilities[np.arange(len(labels)), labels]
    return float(squared.mean())


def confidence_bins(confidence: np.ndarray) -> np.ndarray:
    """The bin of each confidence: int ``(N,)`` from float ``(N,)`` in [0, 1]."""
    return np.clip((confidence * ECE_BINS).astype(np.int64), 0, ECE_BINS - 1)


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """ECE over 15 equal-width bins of top-label confidence (Naeini et al. 2015; Guo et al. 2017, section 2).

    Args:
        confidence: float ``(N,)`` in [0, 1].
        correct: bool or float ``(N,)``.

    >>> round(expected_calibration_error(np.array([0.95, 0.95]), np.array([True, False])), 2)
    0.45
    """
    gap = np.bincount(confidence_bins(confidence), weights=np.asarray(correct, float) - confidence, minlength=ECE_BINS)
    return float(np.abs(gap).sum() / len(confidence))


def ece_noise(confidence: np.ndarray, draws: int = _FLOOR_DRAWS, seed: int = 0) -> np.ndarray:
    """ECE of a perfectly calibrated model with the same confidences, ``draws`` times: float ``(draws,)``.

    Outcomes are drawn as Bernoulli(confidence). The ECE of a finite sample is never 0.
    """
    rng = np.random.default_rng(seed)
    return np.array(
        [expected_calibration_error(confidence, rng.random(len(confidence)) < confidence) for _ in range(draws)]
    )


def ece_noise_floor(confidence: np.ndarray, draws: int = _FLOOR_DRAWS, seed: int = 0) -> float:
    """Mean of :func:`ece_noise`; report it beside every ECE."""
    return float(ece_noise(confidence, draws, seed).mean())


def subset_metrics(
    probabilities: np.ndarray, labels: np.ndarray, prediction_sets: np.ndarray
) -> dict[str, float | int]:
    """The METRICS record of ``summary.json`` for one subset of modalities.

    Args:
        probabilities: float ``(N, C)``.
        labels: int ``(N,)``.
        prediction_sets: bool ``(N, C)``.

    Returns:
        ``{"n": 0}`` without samples, else n, accuracy, nll, ece, ece_noise_floor, brier, mean_confidence, coverage,
        set_size.
    """
    n = len(labels)
    if n == 0:
        return {"n": 0}
    probabilities = np.asarray(probabilities, np.float64)
    confidence = np.clip(probabilities.max(1), 0.0, 1.0)
    correct = probabilities.argmax(1) == labels
    return {
        "n": n,
        "accuracy": float(correct.mean()),
        "nll": negative_log_likelihood(probabilities, labels),
        "ece": expected_calibration_error(confidence, correct),
        "ece_noise_floor": ece_noise_floor(confidence),
        "brier": brier_score(probabilities, labels),
        "mean_confidence": float(confidence.mean()),
        "coverage": float(prediction_sets[np.arange(n), labels].mean()),
        "set_size": float(prediction_sets.sum(1).mean()),
    }


def monotonicity_violations(
    pairs: Sequence[tuple[float, float]] | np.ndarray, tolerance: float = 0.0
) -> dict[str, float | int]:
    """Rate at which adding a modality lowers the confidence.

    Args:
        pairs: float ``(N, 2)``, confidence of a subset and of a larger subset on the same sample.
        tolerance: a decrease of up to this is not counted.

    >>> monotonicity_violations([(0.5, 0.9), (0.8, 0.7)])
    {'violation_rate': 0.5, 'pairs': 2}
    """
    pairs = np.asarray(pairs, np.float64).reshape(-1, 2)
    rate = float((pairs[:, 0] > pairs[:, 1] + tolerance).mean()) if len(pairs) else 0.0
    return {"violation_rate": rate, "pairs": len(pairs)}
