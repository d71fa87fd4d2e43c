"""Differences between two models on the same samples, with intervals that know which samples are not independent.

The clustered bootstrap: whole clusters (a labelled span, a recording) are drawn with replacement, as often as there are, and both models
are measured on the same draws (Field and Welsh, "Bootstrapping clustered data", 2007). Intervals are percentiles, 95 %.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aecf_ros.core.metrics.classification import ECE_BINS, confidence_bins

DRAWS = 2000
LEAST_CLUSTERS = 10
"""With fewer an interval says nothing."""
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its 95 % interval."""

    estimate: float
    low: float
    high: float

    @property
    def shows_a_difference(self) -> bool:
        """Whether zero lies outside."""
        return not self.low <= 0.0 <= self.high


def draw_clusters(count: int, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """How often each of ``count`` clusters is in each draw: int ``(draws, count)``."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)


def paired_differences(
    first: np.ndarray, second: np.ndarray, labels: np.ndarray, clusters: np.ndarray, draws: int = DRAWS
) -> dict[str, Interval]:
    """``accuracy``, ``nll`` in nats and ``ece``, each of the second model less the first.

    Args:
        first, second: float ``(N, C)``, what they say of the same samples.
        labels: int ``(N,)``.
        clusters: ``(N,)``.
    """
    index = np.unique(clusters, return_inverse=True)[1]
    size = np.bincount(index)
    weight = draw_clusters(len(size), draws)
    drawn = weight @ size
    correct = [(of.argmax(1) == labels).astype(np.float64) for of in (first, second)]
    nll = [-np.log(np.maximum(of[np.arange(len(labels)), labels].astype(np.float64), _TINY)) for of in (first, second)]
    found = {}
    for name, (before, after) in (("accuracy", correct), ("nll", nll)):
        difference = after - before
        found[name] = _interval(float(difference.mean()), (weight @ np.bincount(index, difference)) / drawn)
    gaps = [_gaps(of, right, index, len(size)) for of, right in zip((first, second), correct, strict=True)]
    before, after = (np.abs(gap.sum(0)).sum() / len(labels) for gap in gaps)
    before_drawn, after_drawn = (np.abs(weight @ gap).sum(1) / drawn for gap in gaps)
    return found | {"ece": _interval(float(after - before), after_drawn - before_drawn)}


def _gaps(probabilities: np.ndarray, correct: np.ndarray, index: np.ndarray, clusters: int) -> np.ndarray:
    """Sum over each cluster and bin of correctness less confidence, float (clusters, bins): what ECE is made of."""
    confidence = np.clip(probabilities.max(1).astype(np.float64), 0.0, 1.0)
    flat = index * ECE_BINS + confidence_bins(confidence)
    return np.bincount(flat, correct - confidence, clusters * ECE_BINS).reshape(clusters, ECE_BINS)


def _interval(estimate: float, drawn: np.ndarray) -> Interval:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(estimate, float(low), float(high))
