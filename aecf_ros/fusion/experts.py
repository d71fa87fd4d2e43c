"""One expert for each modality: an embedding in, a logit for each class out."""

from collections.abc import Sequence

from torch import nn


def make_expert(width: int, classes: int, hidden: Sequence[int] = (256, 256), dropout: float = 0.1) -> nn.Sequential:
    """A multilayer perceptron [B, width] -> [B, classes]. `hidden=()` gives a linear expert."""
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(dropout)]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, classes))
