"""Metrics against other people's implementations and hand-computed numbers."""

import doctest

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss
from torchmetrics.classification import MulticlassCalibrationError

from aecf_ros.core import types
from aecf_ros.core.metrics import classification as metrics


def random_answers(n: int, classes: int = 10, sharpness: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities float64 (n, classes) of every confidence, and labels, half of them drawn independently."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, sharpness, (n, classes)) * rng.uniform(0.1, 4, (n, 1))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.where(rng.random(n) < 0.5, probabilities.argmax(1), rng.integers(0, classes, n))
    return probabilities, labels


def truthful_labels(probabilities: np.ndarray, seed: int = 1) -> np.ndarray:
    """Labels drawn from the probabilities themselves: the model is perfectly calibrated."""
    return (probabilities.cumsum(1) > np.random.default_rng(seed).random((len(probabilities), 1))).argmax(1)


@pytest.mark.parametrize("module", [metrics, types])
def test_the_examples_in_docstrings_hold(module: object) -> None:
    result = doctest.testmod(module, extraglobs={"np": np})
    assert result.attempted > 0 and result.failed == 0


@pytest.mark.parametrize("seed", range(5))
def test_ece_equals_torchmetrics(seed: int) -> None:
    probabilities, labels = random_answers(3000, seed=seed)
    due = MulticlassCalibrationError(num_classes=10, n_bins=15, norm="l1")(
        torch.tensor(probabilities), torch.tensor(labels)
    ).item()
    ours = metrics.expected_calibration_error(probabilities.max(1), probabilities.argmax(1) == labels)
    assert ours == pytest.approx(due, abs=1e-6)
    assert ours > 0.05


def test_ece_at_the_edges_of_the_bins() -> None:
    assert metrics.expected_calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0
    assert metrics.expected_calibration_error(np.array([1.0]), np.array([False])) == 1


def test_ece_within_a_bin_cancels_and_between_bins_does_not() -> None:
    assert metrics.expected_calibration_error(np.array([0.5, 0.5]), np.array([True, False])) == pytest.approx(0)
    assert metrics.expected_calibration_error(np.array([0.25, 0.75]), np.array([True, False])) == pytest.approx(0.75)


@pytest.mark.parametrize("seed", range(3))
def test_nll_equals_scikit_learn(seed: int) -> None:
    probabilities, labels = random_answers(1000, seed=seed)
    assert metrics.negative_log_likelihood(probabilities, labels) == pytest.approx(
        log_loss(labels, probabilities, labels=range(10)), rel=1e-9
    )


def test_nll_of_an_impossible_label_is_large_and_finite() -> None:
    assert metrics.negative_log_likelihood(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(-np.log(1e-12))


@pytest.mark.parametrize("classes", [2, 10])
def test_brier_equals_scikit_learn(classes: int) -> None:
    probabilities, labels = random_answers(500, classes)
    one_hot = np.eye(classes)[labels]
    assert metrics.brier_score(probabilities, labels) == pytest.approx(((probabilities - one_hot) ** 2).sum(1).mean())
    if classes == 2:
        assert metrics.brier_score(probabilities, labels) == pytest.approx(
            2 * brier_score_loss(labels, probabilities[:, 1])
        )


def test_the_noise_floor_is_what_a_perfectly_calibrated_model_shows() -> None:
    probabilities, _ = random_answers(4000)
    confidence = probabilities.max(1)
    shown = [
        metrics.expected_calibration_error(confidence, probabilities.argmax(1) == truthful_labels(probabilities, seed))
        for seed in range(60)
    ]
    assert metrics.ece_noise_floor(confidence) == pytest.approx(np.mean(shown), rel=0.1)


def test_the_noise_floor_is_about_nine_tenths_of_a_percent_at_ten_thousand_samples_and_two_at_two_thousand() -> None:
    # Confidences such as corrupted digits give: sure of most, mean 0.8, and every confidence occurs.
    confidence = np.random.default_rng(0).beta(4, 1, 10_000)
    assert metrics.ece_noise_floor(confidence) == pytest.approx(0.009, abs=0.0015)
    assert metrics.ece_noise_floor(confidence[:2000]) == pytest.approx(0.02, abs=0.003)


def test_the_noise_floor_falls_as_the_root_of_the_samples() -> None:
    confidence = random_answers(20_000)[0].max(1)
    floors = [metrics.ece_noise_floor(confidence[:n]) for n in (200, 2000, 20_000)]
    assert floors[0] / floors[1] == pytest.approx(10**0.5, rel=0.2)
    assert floors[1] / floors[2] == pytest.approx(10**0.5, rel=0.2)


def test_the_noise_floor_is_the_same_every_time_and_zero_where_nothing_is_uncertain() -> None:
    confidence = random_answers(100)[0].max(1)
    assert metrics.ece_noise_floor(confidence) == metrics.ece_noise_floor(confidence)
    assert metrics.ece_noise_floor(np.ones(50)) == 0


def test_the_record_of_a_subset() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.2, 0.2, 0.6], [0.5, 0.3, 0.2]])
    labels = np.array([0, 2, 2, 1])
    sets = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [1, 1, 0]], bool)
    record = metrics.subset_metrics(probabilities, labels, sets)
    assert set(record) == {
        "n",
        "accuracy",
        "nll",
        "ece",
        "ece_noise_floor",
        "brier",
        "mean_confidence",
        "coverage",
        "set_size",
    }
    assert record["n"] == 4
    assert record["accuracy"] == 0.5
    assert record["nll"] == pytest.approx(-np.log([0.7, 0.3, 0.6, 0.3]).mean())
    assert record["brier"] == pytest.approx((0.14 + 0.74 + 0.24 + 0.78) / 4)
    assert record["mean_confidence"] == pytest.approx(0.55)
    assert record["ece"] == pytest.approx((abs(1 - 0.7) + abs(0 - 0.4) + abs(1 - 0.6) + abs(0 - 0.5)) / 4)
    assert record["coverage"] == 0.75
    assert record["set_size"] == 1.5


def test_no_samples_have_no_metrics() -> None:
    assert metrics.subset_metrics(np.zeros((0, 3)), np.zeros(0, int), np.zeros((0, 3), bool)) == {"n": 0}


def test_float32_probabilities_just_above_one_are_taken() -> None:
    record = metrics.subset_metrics(np.array([[1.0000001, 0]], np.float32), np.array([0]), np.ones((1, 2), bool))
    assert record["mean_confidence"] == 1 and record["ece"] == 0


def test_monotonicity_counts_the_pairs_whose_confidence_falls() -> None:
    pairs = np.array([(0.5, 0.9), (0.9, 0.5), (0.7, 0.7), (0.8, 0.79)])
    assert metrics.monotonicity_violations(pairs) == {"violation_rate": 0.5, "pairs": 4}
    assert metrics.monotonicity_violations(pairs, tolerance=0.05) == {"violation_rate": 0.25, "pairs": 4}
    assert metrics.monotonicity_violations([]) == {"violation_rate": 0.0, "pairs": 0}
