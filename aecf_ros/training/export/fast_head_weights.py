"""Matrices of the lean head: one modality's trained parts, rearranged in double precision.

A matrix ends with the row that its input's 1 is multiplied by, which is the bias; "carrying" adds a column that hands the 1 on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from aecf_ros.fusion.gates.reliability import Reliability
from aecf_ros.fusion.gates.statistics import NEIGHBORS, STATISTICS

FAR = 1e30
"""A distance that is never the least."""


def affine(weight: Tensor, bias: Tensor, carry: float | None = None) -> Tensor:
    """(in + 1, out) of a layer's weight (out, in) and bias (out,); with ``carry`` one column more, of that constant."""
    matrix = torch.cat([weight.detach().double().T, bias.detach().double().unsqueeze(0)])
    if carry is None:
        return matrix
    column = torch.zeros(len(matrix), 1).to(matrix)
    column[-1] = carry
    return torch.cat([matrix, column], dim=1)


def squares_to(points: Tensor, of: Tensor, bias: Tensor) -> Tensor:
    """(D + 1, K): from an embedding to |point|² - 2 point · v for each of ``points`` (K, R), where v = e @ ``of`` (D, R) + ``bias``.

    With |v|² added these are squared distances.
    """
    cross = -2.0 * points @ of.T
    return affine(cross, points.square().sum(1) - 2.0 * points @ bias)


def of_embedding(
    layer: nn.Linear, gate: Reliability, centers: Tensor, whitener: Tensor, outlier: Tensor, direction: bool
) -> list[Tensor]:
    """What is linear in one modality's embedding, (D + 1, ·) each: the expert's first layer; the embedding whitened, whitened
    within classes, whitened as calibration does; the changing part of its squared distances to class centers, and to those
    of calibration as shares of ``outlier``."""
    distance = gate.distance
    center, spread = distance.center.double(), distance.whitening.double()
    within, rank = spread @ distance.class_whitening.double(), spread.shape[1]
    middle = centers.mean(0)
    weight, bias = (layer.weight[:, :-1], torch.zeros_like(layer.bias)) if direction else (layer.weight, layer.bias)
    to_classes = squares_to(distance.class_centers.double(), within, -center @ within) / rank
    to_centers = squares_to((centers - middle) @ whitener, whitener, -middle @ whitener) / outlier
    return [
        affine(weight, bias),
        affine(spread.T, -center @ spread),
        affine(within.T, -center @ within),
        affine(whitener.T, -middle @ whitener),
        to_classes,
        to_centers,
    ]


def side_by_side(blocks: Sequence[Tensor], columns: Sequence[int], wide: int, direction: bool) -> Tensor:
    """(wide + 1, sum of ``columns``): the blocks of :func:`of_embedding`, filled up to the widths that all modalities share.

    Expert and whitened embedding carry the 1 in their last column; a center that is not there is far away.
    """
    filled = []
    for at, (block, width) in enumerate(zip(blocks, columns, strict=True)):
        matrix = torch.zeros(wide + 1, width).to(block)
        matrix[: len(block) - 1, : block.shape[1]] = block[:-1]
        matrix[-1, : block.shape[1]] = block[-1]
        if at >= 4:
            matrix[-1, block.shape[1] :] = FAR
        elif at == 1 or at == 0 and not direction:
            matrix[-1, -1] = 1.0
        filled.append(matrix)
    return torch.cat(filled, dim=1)


def to_landmarks(gate: Reliability, rank: int) -> Tensor:
    """(rank + 1, LANDMARKS): from a whitened embedding and 1 to the changing part of its mean squared distances to landmarks."""
    points = gate.distance.landmarks.double()
    matrix = torch.zeros(rank + 1, len(points)).to(points)
    own = points.shape[1]
    matrix[:own], matrix[-1] = -2.0 * points.T / own, points.square().sum(1) / own
    return matrix


def to_distances(gate: Reliability, outlier: Tensor, wide: int, rank: int) -> Tensor:
    """From squares of (embedding D, 1, whitened R, 1, within classes R, calibration's D), then the least of two kinds of centers and
    the nearest landmarks, to six columns: 1 + the statistics norm, class, overall, neighbors; e; the share of ``outlier``."""
    width, own = gate.distance.whitening.shape
    x, one, spread, within, white = 0, wide, wide + 1, wide + rank + 2, wide + 2 * rank + 2
    least = white + wide
    matrix = torch.zeros(least + 2 + NEIGHBORS, 6, dtype=torch.float64)
    matrix[one, :5] = torch.tensor([1.0, 1.0, 1.0, 1.0, math.e])
    matrix[x : x + width, 0] = 1.0 / width
    matrix[within : within + own, 1] = 1.0 / own
    matrix[spread : spread + own, 2:4] = 1.0 / own
    matrix[least, 1], matrix[least + 1, 5] = 1.0, 1.0
    matrix[white : white + width, 5] = 1.0 / outlier
    matrix[least + 2 :, 3] = 1.0 / NEIGHBORS
    return matrix


def to_statistics(gate: Reliability) -> Tensor:
    """From the logarithms of :func:`to_distances`, of which the fifth is 1, then log-sum-exp of the logits and their mean under the
    softmax, to STATISTICS standardized, and 1."""
    one, energy, mean = 4, 5, 6
    raw = torch.zeros(7, len(STATISTICS), dtype=torch.float64)
    raw[energy, 0], raw[mean, 0] = 1.0, -1.0
    raw[energy, 1] = -1.0
    for column, row in enumerate(range(4), start=2):
        raw[row, column] = 1.0
    raw[one] = -gate.mean.double()
    carry = torch.zeros(7, 1, dtype=torch.float64)
    carry[one] = 1.0
    return torch.cat([raw / gate.scale.double(), carry], dim=1)
