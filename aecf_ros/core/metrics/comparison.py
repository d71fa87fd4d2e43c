"""Compare two models on the same samples, for each subset of modalities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from aecf_ros.core.metrics.bootstrap import MIN_CLUSTERS, Interval, paired_differences
from aecf_ros.core.metrics.classification import subset_metrics

METRICS = {"accuracy": "accuracy", "nll": "NLL", "ece": "ECE"}
HEADER = ("subset", "samples", "spans", "metric", "first", "second", "difference", "95 % interval", "")


@dataclass(frozen=True)
class ModelOutputs:
    """Outputs of a model for N samples."""

    probabilities: np.ndarray  # float (N, C)
    prediction_sets: np.ndarray  # bool (N, C)

    def at(self, rows: np.ndarray) -> ModelOutputs:
        """The outputs for some of the samples."""
        return ModelOutputs(self.probabilities[rows], self.prediction_sets[rows])


@dataclass(frozen=True)
class Comparison:
    """METRICS of both models on one subset, and the differences (second minus first) by metric.

    There are no differences with fewer than ``MIN_CLUSTERS`` clusters.
    """

    first: dict[str, float | int]
    second: dict[str, float | int]
    clusters: int
    differences: dict[str, Interval]


def compare(first: ModelOutputs, second: ModelOutputs, labels: np.ndarray, clusters: np.ndarray) -> Comparison:
    """Compare two models on the samples of one subset.

    Args:
        labels: int ``(N,)``.
        clusters: ``(N,)``; samples that share a cluster are not independent.
    """
    count = len(np.unique(clusters))
    differences = (
        paired_differences(first.probabilities, second.probabilities, labels, clusters) if count >= MIN_CLUSTERS else {}
    )
    return Comparison(
        subset_metrics(first.probabilities, labels, first.prediction_sets),
        subset_metrics(second.probabilities, labels, second.prediction_sets),
        count,
        differences,
    )


def finding(metric: str, difference: Interval) -> str:
    """The better of the two models, in words."""
    if not difference.shows_a_difference:
        return "no difference shown"
    return "second is better" if (difference.estimate > 0) == (metric == "accuracy") else "first is better"


def rows(comparisons: Mapping[str, Comparison]) -> list[list[str]]:
    """Rows of a table with HEADER; subsets without samples are left out."""
    lines = []
    for subset, comparison in comparisons.items():
        if not comparison.first["n"]:
            continue
        for metric, title in METRICS.items():
            start = (
                [subset, str(comparison.first["n"]), str(comparison.clusters)] if metric == "accuracy" else ["", "", ""]
            )
            values = [
                f"{comparison.first[metric]:.4f}",
                f"{comparison.second[metric]:.4f}",
                f"{comparison.second[metric] - comparison.first[metric]:+.4f}",
            ]
            if metric in comparison.differences:
                interval = comparison.differences[metric]
                end = [f"[{interval.low:+.4f}, {interval.high:+.4f}]", finding(metric, interval)]
            else:
                end = ["", f"fewer than {MIN_CLUSTERS} spans"]
            lines.append([*start, title, *values, *end])
    return lines


def as_json(comparisons: Mapping[str, Comparison]) -> dict[str, Any]:
    """The comparisons as values for JSON, by subset."""
    return {
        name: {
            "first": comparison.first,
            "second": comparison.second,
            "clusters": comparison.clusters,
            "differences": {
                metric: asdict(interval) | {"finding": finding(metric, interval)}
                for metric, interval in comparison.differences.items()
            },
        }
        for name, comparison in comparisons.items()
    }
