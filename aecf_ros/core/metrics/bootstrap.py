"""Differences between two models on the same samples, with clustered bootstrap intervals.

Whole clusters of dependent samples (a labeled span, a recording) are drawn with replacement, as many as there are, and
both models are measured on the same draws (Field and Welsh, "Bootstrapping clustered data", 2007). Intervals are 95 %
percentile intervals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aecf_ros.core.metrics.classification import ECE_BINS, confidence_bins

DRAWS = 2000
MIN_CLUSTERS = 10
"""With fewer clusters an interval means nothing."""
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its 95 % interval."""

    estimate: float
    low: float
    high: float

    @property
    def shows_a_difference(self) -> bool:
        """Whether the interval excludes zero."""
        return not self.low <= 0.0 <= self.high


def draw_clusters(count: int, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Number of times each of ``count`` clusters is in each draw: int ``(draws, count)``."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)


def paired_differences(
    first: np.ndarray, second: np.ndarray, labels: np.ndarray, clusters: np.ndarray, draws: int = DRAWS
) -> dict[str, Interval]:
    """Differences in ``accuracy``, ``nll`` (nats) and ``ece``, second model minus first.

    Args:
        first, second: float ``(N, C)``, probabilities of the same samples.
        labels: int ``(N,)``.
        clusters: ``(N,)``, the cluster of each sample.
    """
    index = np.unique(clusters, return_inverse=True)[1]
    size = np.bincount(index)
    weight = draw_clusters(len(size), draws)
    drawn = weight @ size
    rows = np.arange(len(labels))
    correct = [(p.argmax(1) == labels).astype(np.float64) for p in (first, second)]
    nll = [-np.log(np.maximum(p[rows, labels].astype(np.float64), _TINY)) for p in (first, second)]
    differences = {}
    for name, (before, after) in (("accuracy", correct), ("nll", nll)):
        difference = after - before
        differences[name] = _interval(float(difference.mean()), (weight @ np.bincount(index, difference)) / drawn)
    gaps = [_gaps(p, right, index, len(size)) for p, right in zip((first, second), correct, strict=True)]
    before, after = (np.abs(gap.sum(0)).sum() / len(labels) for gap in gaps)
    before_drawn, after_drawn = (np.abs(weight @ gap).sum(1) / drawn for gap in gaps)
    return differences | {"ece": _interval(float(after - before), after_drawn - before_drawn)}


def _gaps(probabilities: np.ndarray, correct: np.ndarray, index: np.ndarray, clusters: int) -> np.ndarray:
    """Sum of correctness minus confidence over each cluster and bin: float (clusters, bins). ECE is their sum."""
    confidence = np.clip(probabilities.max(1).astype(np.float64), 0.0, 1.0)
    flat = index * ECE_BINS + confidence_bins(confidence)
    return np.bincount(flat, correct - confidence, clusters * ECE_BINS).reshape(clusters, ECE_BINS)


def _interval(estimate: float, drawn: np.ndarray) -> Interval:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(estimate, float(low), float(high))
