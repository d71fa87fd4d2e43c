"""Intervals of a mean: as wide as clusters make them, and around the truth as often as they promise."""

import numpy as np

from aecf_ros.core.metrics.bootstrap import Interval
from benchmarks.fusion.intervals import mean_interval


def test_two_clusters_of_two() -> None:
    values, clusters = np.array([1.0, 1.0, 3.0, 3.0]), np.array([0, 0, 1, 1])
    assert mean_interval(values, clusters) == Interval(estimate=2.0, low=1.0, high=3.0)


def test_samples_of_one_span_do_not_count_as_many() -> None:
    rng = np.random.default_rng(3)
    spans = np.repeat(np.arange(40), 25)
    values = rng.normal(size=40)[spans]
    clustered, alone = mean_interval(values, spans), mean_interval(values, np.arange(len(values)))
    assert clustered.high - clustered.low > 3 * (alone.high - alone.low)


def test_intervals_hold_the_truth_as_often_as_they_promise() -> None:
    held = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        spans = np.repeat(np.arange(50), 4)
        of = mean_interval(rng.normal(size=50)[spans] + 0.3 * rng.normal(size=200), spans, draws=400)
        held += of.low <= 0 <= of.high
    assert 0.89 <= held / 200 <= 0.99


def test_names_of_clusters_do_not_matter() -> None:
    values = np.random.default_rng(4).normal(size=30)
    spans = np.repeat(np.arange(10), 3)
    assert mean_interval(values, spans) == mean_interval(values, 7 + 10 * spans)
