"""Intervals of paired differences: as wide as clusters make them, and around the truth as often as they promise."""

import numpy as np
import pytest

from aecf_ros.core.metrics.bootstrap import Interval, paired_differences
from aecf_ros.core.metrics.classification import expected_calibration_error, negative_log_likelihood


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
    assert found["accuracy"].estimate == pytest.approx(
        (second.argmax(1) == labels).mean() - (first.argmax(1) == labels).mean()
    )
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


def test_a_difference_is_shown_where_zero_lies_outside() -> None:
    assert Interval(0.1, 0.05, 0.2).shows_a_difference and not Interval(0.1, -0.05, 0.2).shows_a_difference
