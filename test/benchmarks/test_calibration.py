"""Calibration by presence pattern, as the benchmark compares it."""

import pytest
import torch

from benchmarks.fusion.calibration import SubsetCalibrator, choose_method


def test_calibration_is_chosen_by_held_out_loss_not_by_habit():
    torch.manual_seed(0)
    logits = 2 * torch.randn(4000, 4)
    label = torch.distributions.Categorical(logits=logits).sample()
    present = torch.rand(4000, 2) < 0.5
    present[~present.any(1)] = True
    folds = torch.arange(4000) % 4
    assert (
        choose_method(torch.where(present.all(1)[:, None], 3 * logits, logits), present, label, folds)[0]
        == "subset_temperature"
    )
    plain, losses = choose_method(logits, present, label, folds)
    assert losses["none"] <= min(losses.values()) + 1e-3, plain


def test_too_few_calibration_samples_are_refused():
    with pytest.raises(ValueError, match="presence pattern 11 has 20 calibration samples"):
        SubsetCalibrator(2, 3).fit(
            torch.randn(20, 3), torch.ones(20, 2, dtype=torch.bool), torch.zeros(20).long(), "none"
        )
