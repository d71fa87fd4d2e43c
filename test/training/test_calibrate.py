import numpy as np
import pytest
import torch

from aecf_ros.fusion import AECF
from aecf_ros.fusion.calibration.conformal import conformal_threshold
from aecf_ros.training.calibration.calibrate import (
    CalibrationError,
    bounded_temperature,
    calibrate,
    distance_model,
    nearest_center,
)
from aecf_ros.training.config import CalibrationConfig
from aecf_ros.training.head.pairing import pair_by_label


def _calibrated_logits(n: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax is the true distribution of the labels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, classes))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    return logits, labels


def _nll(logits: np.ndarray, labels: np.ndarray) -> float:
    return torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)).item()


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_temperature_recovers_the_scale_by_which_logits_were_spoiled(scale):
    logits, labels = _calibrated_logits(20_000, 6, seed=0)
    assert bounded_temperature(torch.from_numpy(scale * logits), labels) == pytest.approx(scale, rel=0.05)


def test_temperature_lowers_nll_on_the_data_it_was_fitted_on():
    logits, labels = _calibrated_logits(2000, 6, seed=1)
    spoiled = 3.0 * logits
    fitted = bounded_temperature(torch.from_numpy(spoiled), labels)
    assert _nll(spoiled / fitted, labels) < _nll(spoiled, labels) - 0.1
    for other in (0.9 * fitted, 1.1 * fitted):
        assert _nll(spoiled / fitted, labels) <= _nll(spoiled / other, labels)


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.99])
def test_conformal_sets_cover_exchangeable_data_as_often_as_asked(coverage):
    covered = []
    for seed in range(40):
        logits, labels = _calibrated_logits(3000, 6, seed=seed)
        scores = torch.softmax(torch.from_numpy(logits), 1)[torch.arange(3000), torch.from_numpy(labels)]
        covered.append((scores[1000:] >= conformal_threshold(scores[:1000], coverage)).float().mean().item())
    assert np.mean(covered) == pytest.approx(coverage, abs=0.01)


def test_temperature_stays_bounded_where_every_sample_is_right():
    labels = np.arange(6).repeat(20)
    logits = torch.nn.functional.one_hot(torch.from_numpy(labels), 6).double()
    assert 0.05 <= bounded_temperature(logits, labels) < 0.2


def test_distance_is_one_for_each_dimension_within_and_large_outside():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(5, 5))
    labels = np.repeat([-1, 0, 1], 2000)
    embeddings = (rng.normal(size=(6000, 5)) @ mixing + 100.0 * labels[:, None]).astype(np.float32)
    model = [torch.from_numpy(of) for of in distance_model(embeddings, labels)]
    assert nearest_center(torch.from_numpy(embeddings), *model).mean().item() == pytest.approx(5.0, abs=0.3)
    assert nearest_center(torch.from_numpy(embeddings[:1] + 50.0), *model).item() > 100.0


def _head_and_data(per_class: int) -> tuple[AECF, list[np.ndarray], list[np.ndarray]]:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    labels = [np.repeat(np.arange(-1, 3), per_class), np.repeat(np.arange(-1, 3), per_class)]
    centers = rng.normal(size=(2, 4, 6))
    embeddings = [
        (centers[m][of + 1] + rng.normal(0, 0.5, (len(of), 6))).astype(np.float32) for m, of in enumerate(labels)
    ]
    return AECF([6, 6], 3, gate="additive", expert_hidden=[8]).eval(), embeddings, labels


def test_too_few_samples_are_refused_with_the_number_and_what_to_do():
    head, embeddings, labels = _head_and_data(per_class=20)
    pairs = pair_by_label(labels, 500, 0.1, 0.0, np.random.default_rng(0))
    reference = list(zip(embeddings, labels, strict=True))
    with pytest.raises(CalibrationError) as caught:
        calibrate(
            head,
            ["camera", "audio"],
            embeddings,
            pairs,
            CalibrationConfig(coverage=0.9, minimum_samples=100),
            reference,
        )
    message = str(caught.value)
    assert message.startswith("calibration of camera: 60 distinct samples where 100 are needed") and "\n" not in message
    with pytest.raises(CalibrationError, match="1000 are needed for a coverage of 0.999"):
        calibrate(
            head,
            ["camera", "audio"],
            embeddings,
            pairs,
            CalibrationConfig(coverage=0.999, minimum_samples=1),
            reference,
        )


def test_every_pattern_is_fitted_on_the_pairs_that_show_it_a_label():
    head, embeddings, labels = _head_and_data(per_class=60)
    pairs = pair_by_label(labels, 1000, 0.3, 0.0, np.random.default_rng(0))
    found = calibrate(
        head,
        ["camera", "audio"],
        embeddings,
        pairs,
        CalibrationConfig(coverage=0.9),
        list(zip(embeddings, labels, strict=True)),
    )
    samples = {fit.name: fit.samples for fit in found.fits}
    assert samples == {"camera": pairs.shows[:, 0].sum(), "audio": pairs.shows[:, 1].sum(), "camera+audio": 1000}
    assert found.temperatures[0] == 1.0 and found.set_thresholds[0] == 0.0
    assert all(fit.distinct <= (240 if "+" in fit.name else 180) for fit in found.fits)
