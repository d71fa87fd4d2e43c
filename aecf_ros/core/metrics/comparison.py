"""Two models on the same samples, subset by subset: their metrics, and the differences with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from aecf_ros.core.metrics.bootstrap import LEAST_CLUSTERS, Interval, paired_differences
from aecf_ros.core.metrics.classification import subset_metrics

METRICS = {"accuracy": "accuracy", "nll": "NLL", "ece": "ECE"}
HEADER = ("subset", "samples", "spans", "metric", "first", "second", "difference", "95 % interval", "")


@dataclass(frozen=True)
class Said:
    """What a model says of N samples: probabilities and prediction sets, float and bool ``(N, C)``."""

    probabilities: np.ndarray
    members: np.ndarray

    def at(self, rows: np.ndarray) -> Said:
        """Some of them."""
        return Said(self.probabilities[rows], self.members[rows])


@dataclass(frozen=True)
class Comparison:
    """Of one subset: METRICS of ``summary.json`` of each model, and differences (second less first) by metric, none where there are too few clusters."""

    first: dict[str, float | int]
    second: dict[str, float | int]
    clusters: int
    differences: dict[str, Interval]


def compare(first: Said, second: Said, labels: np.ndarray, clusters: np.ndarray) -> Comparison:
    """Compare two models on the samples of one subset; samples that share a cluster are not independent.

    Args:
        labels: int ``(N,)``.
        clusters: ``(N,)``.
    """
    count = len(np.unique(clusters))
    differences = (
        paired_differences(first.probabilities, second.probabilities, labels, clusters)
        if count >= LEAST_CLUSTERS
        else {}
    )
    return Comparison(
        subset_metrics(first.probabilities, labels, first.members),
        subset_metrics(second.probabilities, labels, second.members),
        count,
        differences,
    )


def finding(metric: str, of: Interval) -> str:
    """Which of the two an interval shows to be better, in words."""
    if not of.shows_a_difference:
        return "no difference shown"
    return "second is better" if (of.estimate > 0) == (metric == "accuracy") else "first is better"


def rows(found: Mapping[str, Comparison]) -> list[list[str]]:
    """For a table under HEADER; subsets without a sample are left out."""
    lines = []
    for subset, of in found.items():
        if not of.first["n"]:
            continue
        for metric, title in METRICS.items():
            start = [subset, str(of.first["n"]), str(of.clusters)] if metric == "accuracy" else ["", "", ""]
            values = [
                f"{of.first[metric]:.4f}",
                f"{of.second[metric]:.4f}",
                f"{of.second[metric] - of.first[metric]:+.4f}",
            ]
            if metric in of.differences:
                interval = of.differences[metric]
                end = [f"[{interval.low:+.4f}, {interval.high:+.4f}]", finding(metric, interval)]
            else:
                end = ["", f"fewer than {LEAST_CLUSTERS} spans"]
            lines.append([*start, title, *values, *end])
    return lines


def as_json(found: Mapping[str, Comparison]) -> dict:
    """Serializable, by subset."""
    return {
        name: {
            "first": of.first,
            "second": of.second,
            "clusters": of.clusters,
            "differences": {
                metric: asdict(interval) | {"finding": finding(metric, interval)}
                for metric, interval in of.differences.items()
            },
        }
        for name, of in found.items()
    }
