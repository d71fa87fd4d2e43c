"""Experts: from the embedding of one modality to a logit for each class."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from aecf_ros.fusion.gates.quality import LeadingColumns


class DirectionAndLength(nn.Module):
    """An embedding as its direction, scaled to a root mean square of 1, and the logarithm of its length: [B, D + 1].

    Much corruption changes the length of an embedding before its direction.
    """

    def forward(self, embedding: Tensor) -> Tensor:
        """[B, D] -> [B, D + 1]; an embedding of zeros stays finite."""
        power = embedding.square().mean(-1, keepdim=True) + 1e-6
        return torch.cat([embedding * power.rsqrt(), power.log()], dim=-1)


def make_expert(
    width: int,
    classes: int,
    hidden: Sequence[int] = (256, 256),
    dropout: float = 0.1,
    *,
    direction: bool = False,
    quality: int = 0,
) -> nn.Sequential:
    """A multilayer perceptron [B, width] -> [B, classes]. `hidden=()` gives a linear expert.

    direction: see the embedding as direction and length, unless the expert is linear. quality: number of the last
    columns that the expert does not see.
    """
    layers: list[nn.Module] = [LeadingColumns(width - quality)] if quality else []
    width -= quality
    if direction and hidden:
        layers.append(DirectionAndLength())
        width += 1
    for size in hidden:
        layers += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(dropout)]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, classes))
