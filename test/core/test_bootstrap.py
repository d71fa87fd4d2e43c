"""Intervals of paired differences: as wide as clusters make them, and around the truth as often as they promise."""

import numpy as np
import pytest

from aecf_ros.core.metrics.bootstrap import Interval, mean_interval, paired_differences
from aecf_ros.core.metrics.classification import accuracy, expected_calibration_error, negative_log_likelihood


def two_models(seed: int, spans: int = 60, per_span: int = 5, sharper: float = 1.0) -> tuple:
    """The second says the same as the first with logits ``sharper`` times as large; the first is calibrated."""
    rng = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(spans), per_span)
    logits = rng.normal(0, 2, (spans, 4))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(1)[clusters]
    logits = logits[clusters] + 0.1 * rng.normal(size=(len(clusters), 4))
    return softmax(logits), softmax(sharper * logits), labels, clusters


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_estimates_are_the_differences_of_the_metrics() -> None:
    first, second, labels, clusters = two_models(0, sharper=2.0)
    found = paired_differences(first, second, labels, clusters)
    assert found["accuracy"].estimate == pytest.approx(accuracy(second, labels) - accuracy(first, labels))
    assert found["nll"].estimate == pytest.approx(
        negative_log_likelihood(second, labels) - negative_log_likelihood(first, labels)
    )
    ece = [expected_calibration_error(of.max(1), of.argmax(1) == labels) for of in (first, second)]
    assert found["ece"].estimate == pytest.approx(ece[1] - ece[0])
    assert all(of.low <= of.estimate <= of.high for of in (found["accuracy"], found["nll"]))


def test_the_same_model_twice_shows_no_difference() -> None:
    first, _, labels, clusters = two_models(1)
    found = paired_differences(first, first, labels, clusters)
    assert all((of.estimate, of.low, of.high) == (0, 0, 0) and not of.shows_a_difference for of in found.values())


def test_a_model_that_is_far_too_sure_is_shown_to_be_worse() -> None:
    found = paired_differences(*two_models(2, spans=200, sharper=4.0))
    assert found["nll"].shows_a_difference and found["nll"].low > 0
    assert found["ece"].shows_a_difference and found["ece"].low > 0
    assert not found["accuracy"].shows_a_difference


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
    assert Interval(0.1, 0.05, 0.2).shows_a_difference and not Interval(0.1, -0.05, 0.2).shows_a_difference
