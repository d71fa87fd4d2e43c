"""Metrics of many recordings from sums over each: a kilobyte for a recording of any length, added in any order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aecf_ros.core.bundle import Manifest
from aecf_ros.core.metrics.classification import ECE_BINS, confidence_bins
from aecf_ros.replay.scoring.score import Scored

_TINY = 1e-12
_BINS = ("count", "confidence", "correct", "variance")
_SUMS = ("correct", "nll", "brier", "confidence", "covered", "set_size")
LATENCY_STEP = 0.01
"""A latency is counted in bins this wide, as a share of it."""
_LEAST_LATENCY_MS = 1e-3


@dataclass(slots=True)
class Sums:
    """Of N predictions: their number, sums over them, and ``(4, 15)`` sums by bin of confidence."""

    n: int
    sums: np.ndarray  # float64 (6,), as _SUMS
    bins: np.ndarray  # float64 (4, ECE_BINS), as _BINS

    @staticmethod
    def none() -> Sums:
        """Of no predictions."""
        return Sums(0, np.zeros(len(_SUMS)), np.zeros((len(_BINS), ECE_BINS)))

    @staticmethod
    def of(probabilities: np.ndarray, labels: np.ndarray, members: np.ndarray) -> Sums:
        """Of class probabilities ``(N, C)``, labels int ``(N,)`` and prediction sets bool ``(N, C)``."""
        n, at = len(labels), np.arange(len(labels))
        probabilities = np.asarray(probabilities, np.float64)
        if not n:
            return Sums.none()
        confidence, picked = np.clip(probabilities.max(1), 0.0, 1.0), probabilities[at, labels]
        correct = (probabilities.argmax(1) == labels).astype(np.float64)
        brier = (probabilities**2).sum(1) + 1.0 - 2.0 * picked
        sums = np.array(
            [
                correct.sum(),
                -np.log(np.maximum(picked, _TINY)).sum(),
                brier.sum(),
                confidence.sum(),
                members[at, labels].sum(),
                members.sum(),
            ],
            np.float64,
        )
        bin_of = confidence_bins(confidence)
        weights = (np.ones(n), confidence, correct, confidence * (1.0 - confidence))
        return Sums(n, sums, np.stack([np.bincount(bin_of, weights=w, minlength=ECE_BINS) for w in weights]))

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.n + other.n, self.sums + other.sums, self.bins + other.bins)

    def metrics(self) -> dict[str, float | int]:
        """METRICS of all predictions, see :func:`aecf_ros.core.metrics.classification.subset_metrics`.

        The noise floor assumes many predictions: in a bin of variance v the outcomes of a calibrated model differ
        from its
        confidence by sqrt(2 v / pi) on average.
        """
        if not self.n:
            return {"n": 0}
        correct, nll, brier, confidence, covered, set_size = (self.sums / self.n).tolist()
        _, confidences, rights, variances = self.bins
        return {
            "n": self.n,
            "accuracy": correct,
            "nll": nll,
            "ece": float(np.abs(rights - confidences).sum() / self.n),
            "ece_noise_floor": min(float(np.sqrt(2.0 * variances / math.pi).sum() / self.n), 1.0),
            "brier": brier,
            "mean_confidence": confidence,
            "coverage": covered,
            "set_size": set_size,
        }

    def to_json(self) -> dict[str, Any]:
        """As :meth:`from_json` takes it."""
        return {"n": self.n, "sums": self.sums.tolist(), "bins": self.bins.tolist()}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Sums:
        """From what :meth:`to_json` gave."""
        return Sums(int(data["n"]), np.array(data["sums"], np.float64), np.array(data["bins"], np.float64))


def metric_sums(scored: Scored, manifest: Manifest) -> dict[str, Sums]:
    """Of one recording: ``overall``, ``settling``, and each subset under its name."""

    def of(mask: np.ndarray) -> Sums:
        return Sums.of(scored.log.column("probabilities")[mask], scored.label[mask], scored.log.column("members")[mask])

    return {
        "overall": of(scored.settled),
        "settling": of(scored.settling),
        **{name: of(scored.settled & (scored.subset == name)) for name in manifest.subset_names},
    }


def latency_counts(latency_s: np.ndarray) -> dict[str, int]:
    """How many latencies, float ``(N,)``, fall into each bin, by its number as text; NaN counts for nothing."""
    ms = np.maximum(latency_s[~np.isnan(latency_s)] * 1e3, _LEAST_LATENCY_MS)
    numbers, counts = np.unique(
        np.floor(np.log(ms / _LEAST_LATENCY_MS) / math.log1p(LATENCY_STEP)).astype(np.int64), return_counts=True
    )
    return {str(number): count for number, count in zip(numbers.tolist(), counts.tolist(), strict=True)}


def latency_quantile_ms(counts: Sequence[Mapping[str, int]], q: float) -> float:
    """A quantile of all latencies in milliseconds, within 0.5 % of it; 0 for none."""
    total: dict[int, int] = {}
    for bins in counts:
        for key, count in bins.items():
            total[int(key)] = total.get(int(key), 0) + count
    below, wanted = 0, q * (sum(total.values()) - 1)
    for number in sorted(total):
        below += total[number]
        if below > wanted:
            return _LEAST_LATENCY_MS * math.exp((number + 0.5) * math.log1p(LATENCY_STEP))
    return 0.0
