"""Calibration by presence pattern in the forms that the benchmark compares.

One temperature for all patterns, a temperature for each, or a vector scaling (Guo et al. 2017) for each.
`choose_method` takes the one with the lowest negative log-likelihood on held-out folds of the calibration part, "none"
included.
"""

import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own convention)
from torch import Tensor, nn

from aecf_ros.fusion.calibration.temperature import fit_temperature, minimize
from aecf_ros.fusion.presence.masking import subset_index

METHODS = ("none", "global_temperature", "subset_temperature", "subset_vector")
LEAST_SAMPLES = 100


class SubsetCalibrator(nn.Module):
    """logits -> scale[pattern] * logits + bias[pattern]. Unfitted patterns pass unchanged.

    Fit with `fit`; `samples[pattern]` says how many samples each pattern had.
    """

    def __init__(self, modalities: int, classes: int):
        super().__init__()
        self.register_buffer("scale", torch.ones(2**modalities, classes))
        self.register_buffer("bias", torch.zeros(2**modalities, classes))
        self.register_buffer("samples", torch.zeros(2**modalities, dtype=torch.int64))

    def forward(self, logits: Tensor, present: Tensor) -> Tensor:
        """Calibrated logits [B, C] from logits [B, C] and present bool [B, M]. Rows with nothing present pass
        unchanged.
        """
        pattern = subset_index(present)
        return logits * self.scale[pattern] + self.bias[pattern]

    def fit(self, logits: Tensor, present: Tensor, targets: Tensor, method: str) -> "SubsetCalibrator":
        """Fit in place and return self. targets: int64 [N]. ValueError where a pattern has too few samples."""
        if method not in METHODS:
            raise ValueError(f"calibration method {method!r} is not known; use one of {', '.join(METHODS)}")
        pattern = subset_index(present)
        shown = [int(p) for p in pattern.unique() if p > 0]
        for p in shown:
            self.samples[p] = int((pattern == p).sum())
            if self.samples[p] < LEAST_SAMPLES:
                raise ValueError(
                    f"presence pattern {p:0{present.shape[1]}b} has {self.samples[p]} calibration samples and needs "
                    f"{LEAST_SAMPLES}; give more calibration data"
                )
        if method == "global_temperature":
            keep = pattern > 0
            self.scale[shown] = fit_temperature(logits[keep], targets[keep])
        elif method == "subset_temperature":
            for p in shown:
                self.scale[p] = fit_temperature(logits[pattern == p], targets[pattern == p])
        elif method == "subset_vector":
            for p in shown:
                self.scale[p], self.bias[p] = fit_vector(logits[pattern == p], targets[pattern == p])
        return self


def fit_vector(logits: Tensor, targets: Tensor, penalty: float = 1e-2) -> tuple[Tensor, Tensor]:
    """Scale and bias of each class, [C] each; `penalty` pulls the scales together and the biases to 0."""
    log_scale = torch.zeros(logits.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(logits.shape[1], dtype=torch.float64, requires_grad=True)

    def loss():
        spread = (log_scale - log_scale.mean()).square().mean() + bias.square().mean()
        return F.cross_entropy(logits.double() * log_scale.exp() + bias, targets) + penalty * spread

    minimize([log_scale, bias], loss)
    return log_scale.detach().exp().to(logits.dtype), bias.detach().to(logits.dtype)


def choose_method(logits: Tensor, present: Tensor, targets: Tensor, folds: Tensor) -> tuple[str, dict[str, float]]:
    """The method with the least held-out negative log-likelihood, and the loss of each.

    folds: int64 [N], samples that are not independent (one recording, one session) in the same fold.
    """
    losses = {}
    for method in METHODS:
        total = 0.0
        for fold in folds.unique():
            train, held = folds != fold, folds == fold
            calibrator = SubsetCalibrator(present.shape[1], logits.shape[1])
            calibrator.fit(logits[train], present[train], targets[train], method)
            total += F.cross_entropy(calibrator(logits[held], present[held]), targets[held], reduction="sum").item()
        losses[method] = total / len(targets)
    return min(losses, key=losses.get), losses
