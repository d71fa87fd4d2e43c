"""Calibration fitted again keeps every weight, gains what is there to gain on spans it has not seen, and says where
there is none.
"""

import numpy as np
import pytest
import torch

from aecf_ros.fusion.calibration.conformal import conformal_threshold
from aecf_ros.training.calibration.calibrate import CalibrationError
from aecf_ros.training.calibration.recalibrate import (
    EmbeddedMoments,
    RecalibrationConfig,
    recalibrate_head,
    span_threshold,
)
from test.drawn_model import NAMES, Draw, fitted

EVIDENCE, ADDITIVE = {"gate": "evidence", "monotone": "soft"}, {"gate": "additive", "expert_hidden": [8]}
CONFIG = RecalibrationConfig(coverage=0.9, minimum_spans=50)


def recorded(seed: int, noise: float = 0.35, spans: int = 200) -> EmbeddedMoments:
    draw = Draw(seed, noise, spans)
    return EmbeddedMoments(draw.embeddings, draw.present, draw.labels, draw.clusters)


@pytest.fixture(scope="module", params=[EVIDENCE, ADDITIVE], ids=["evidence", "additive"])
def model(request: pytest.FixtureRequest) -> tuple:
    return fitted(request.param)


def test_a_noisier_robot_gains_likelihood_and_calibration_on_spans_not_fitted(model: tuple) -> None:
    head, calibration = model
    _, _, gain = recalibrate_head(head, calibration, NAMES, recorded(10, noise=0.9), CONFIG)
    for name in ("camera+audio", "camera", "audio"):
        assert gain.differences[name]["nll"].high < 0
        assert gain.after[name]["ece"] < gain.before[name]["ece"]
        assert abs(gain.after[name]["coverage"] - 0.9) < abs(gain.before[name]["coverage"] - 0.9) + 0.02
    assert gain.verdict.startswith("It helps with camera+audio")


def test_what_was_estimated_is_what_a_new_recording_of_that_robot_shows(model: tuple) -> None:
    head, calibration = model
    shifted, tables, gain = recalibrate_head(head, calibration, NAMES, recorded(11, noise=0.9), CONFIG)
    _, _, again = recalibrate_head(shifted, tables, NAMES, recorded(12, noise=0.9, spans=800), CONFIG)
    for name, of in gain.after.items():
        assert of["nll"] == pytest.approx(again.before[name]["nll"], abs=0.12)
        assert again.before[name]["coverage"] == pytest.approx(0.9, abs=0.05)


def test_a_robot_like_the_one_it_was_calibrated_on_gains_nothing_and_is_told_so(model: tuple) -> None:
    head, calibration = model
    _, _, gain = recalibrate_head(head, calibration, NAMES, recorded(20), CONFIG)
    assert "No gain shown" in gain.verdict or "harm" in gain.verdict
    assert all(abs(of["nll"].estimate) < 0.05 for of in gain.differences.values())


def test_every_weight_stays(model: tuple) -> None:
    head, calibration = model
    before = {name: value.clone() for name, value in head.state_dict().items()}
    shifted, tables, _ = recalibrate_head(head, calibration, NAMES, recorded(13, noise=0.9), CONFIG)
    changed = {name for name, value in shifted.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == (
        {f"gate.reliability.{m}.head.bias" for m in range(2)} if hasattr(head.gate, "reliability") else set()
    )
    assert all(
        torch.equal(value, before[name]) for name, value in head.state_dict().items()
    )  # the one given is left alone
    assert all((a == b).all() for a, b in zip(tables.centers, calibration.centers, strict=True))
    assert (tables.outlier_above >= calibration.outlier_above).all() and (tables.temperatures[1:] != 1).all() == (
        not hasattr(head.gate, "reliability")
    )


def test_too_little_data_is_refused_with_what_was_found_and_what_is_needed(model: tuple) -> None:
    head, calibration = model
    moments = recorded(14, spans=60)
    moments.present[moments.spans >= 30, 1] = False
    with pytest.raises(CalibrationError) as refusal:
        recalibrate_head(head, calibration, NAMES, moments, CONFIG)
    line = str(refusal.value)
    assert "\n" not in line and "50 labeled spans" in line
    assert "camera+audio has 30 (120 moments), audio has 30 (120 moments)" in line and "camera has" not in line
    assert RecalibrationConfig(coverage=0.99).needed == 125 and RecalibrationConfig(coverage=0.9).needed == 100


def test_a_threshold_of_spans_is_the_conformal_one_where_each_has_one_moment() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(77).astype(np.float32)
    due = conformal_threshold(torch.from_numpy(scores), 0.9).item()
    assert span_threshold(scores, np.arange(77), 0.9) == due
    assert (
        span_threshold(np.repeat(scores, 3), np.repeat(np.arange(77), 3), 0.9) == due
    )  # moments that only repeat change nothing
    assert span_threshold(
        np.r_[scores, np.full(500, 0.999)], np.r_[np.arange(77), np.full(500, 76)], 0.9
    ) == pytest.approx(due, abs=0.03)


def test_sets_cover_new_spans_though_moments_of_one_are_alike() -> None:
    covered = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        hard = rng.beta(2, 1, 120)
        sizes = rng.integers(1, 9, 120)
        scores = np.concatenate([np.full(n, h) for h, n in zip(hard, sizes, strict=True)])
        threshold = span_threshold(scores, np.repeat(np.arange(120), sizes), 0.9)
        covered.append((rng.beta(2, 1, 2000) >= threshold).mean())
    assert np.mean(covered) == pytest.approx(0.9, abs=0.01)
