"""Novelty of measured signal quality, as an input of a gate beside the embedding.

Quality is any measurement of the raw signal that the encoder saw: level, noise, spectrum. A gate that takes the
measurements as they are recognizes only the corruptions it was fitted on; their novelty carries over to other kinds.
"""

import torch
from torch import Tensor, nn

from aecf_ros.fusion.gates.statistics import EmbeddingDistance

NOVELTIES = ("quality_distance", "quality_neighbor_distance", "quality_excess")
USUAL = 0.99  # share of training within the range of a measurement
ROWS = 4096  # from which ranges are read


class LeadingColumns(nn.Module):
    """The first `count` columns: an embedding without the quality columns behind it."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, embedding: Tensor) -> Tensor:
        """[B, D] -> [B, count]."""
        return embedding[:, : self.count]


class Novelty(nn.Module):
    """Distance of measurements to those of training: to the center (Mahalanobis), to the nearest few, beyond the range.

    width: number of measurements, in any units, because they are standardized. Unfitted, distances are to the origin.
    """

    mean: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.distance = EmbeddingDistance(width, 1)
        for name, value in (("mean", 0.0), ("scale", 1.0), ("low", -1.0), ("high", 1.0)):
            self.register_buffer(name, torch.full((width,), value))

    @torch.no_grad()
    def fit(self, quality: Tensor) -> None:
        """quality: [N, Q] of training."""
        self.mean.copy_(quality.mean(0))
        self.scale.copy_(quality.std(0).clamp(min=1e-6))
        standard = (quality - self.mean) / self.scale
        self.distance.fit(standard, torch.zeros(len(standard), dtype=torch.int64))
        some = standard[torch.arange(min(ROWS, len(standard))) * len(standard) // min(ROWS, len(standard))]
        ends = torch.quantile(some.float(), torch.tensor([(1 - USUAL) / 2, (1 + USUAL) / 2], device=some.device), dim=0)
        self.low.copy_(ends[0])
        self.high.copy_(ends[1])

    def forward(self, quality: Tensor) -> Tensor:
        """The columns named in NOVELTIES: [B, 3] from [B, Q]. The excess is the largest, in widths of the range."""
        standard = (quality.to(self.mean.dtype) - self.mean) / self.scale
        _, overall, neighbors = self.distance(standard)
        beyond = torch.maximum(self.low - standard, standard - self.high) / (self.high - self.low).clamp(min=0.05)
        return torch.stack([overall, neighbors, torch.log1p(beyond.clamp(min=0.0).amax(-1))], dim=-1)
