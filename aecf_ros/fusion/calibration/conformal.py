"""Mondrian split-conformal prediction sets: one threshold for each presence pattern (Vovk et al. 2003; Sadinle et al.
2019).

A label is in the set when its probability reaches the threshold of the row's pattern. With exchangeable calibration
data the set holds the true label at least with the coverage asked for, within every pattern.
"""

import math

import torch
from torch import Tensor, nn

from aecf_ros.fusion.presence.masking import subset_index


class MondrianConformal(nn.Module):
    """Thresholds by presence pattern, as a buffer. A pattern that was not fitted keeps every label."""

    threshold: Tensor
    samples: Tensor

    def __init__(self, modalities: int) -> None:
        super().__init__()
        self.register_buffer("threshold", torch.zeros(2**modalities))
        self.register_buffer("samples", torch.zeros(2**modalities, dtype=torch.int64))

    def forward(self, probabilities: Tensor, present: Tensor) -> Tensor:
        """Prediction sets bool [B, C] from calibrated probabilities [B, C] and present bool [B, M]."""
        return probabilities >= self.threshold[subset_index(present)].unsqueeze(-1)

    def fit(self, probabilities: Tensor, present: Tensor, targets: Tensor, coverage: float) -> "MondrianConformal":
        """Fit in place and return self. ValueError if a pattern has fewer samples than the coverage needs."""
        pattern = subset_index(present)
        for p in (int(p) for p in torch.unique(pattern) if p > 0):
            mine = pattern == p
            scores = probabilities[mine].gather(1, targets[mine].unsqueeze(1)).squeeze(1)
            self.threshold[p] = conformal_threshold(scores, coverage)
            self.samples[p] = len(scores)
        return self


def conformal_threshold(scores: Tensor, coverage: float) -> Tensor:
    """The k-th smallest of the true labels' probabilities [N], k = floor((N + 1)(1 - coverage)): scalar.

    >>> conformal_threshold(torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]), 0.8)
    tensor(0.2000)
    """
    rank = math.floor(round((len(scores) + 1) * (1.0 - coverage), 9))  # 10 * (1 - 0.9) is below 1 in floating point
    if rank < 1:
        need = math.ceil(round(1.0 / (1.0 - coverage), 9)) - 1
        raise ValueError(
            f"{len(scores)} calibration samples cannot give coverage {coverage}; at least {need} are needed"
        )
    return scores.sort().values[rank - 1]
