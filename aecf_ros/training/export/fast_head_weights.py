"""Matrices of :class:`FastHead` for one modality, computed in double precision from its trained parts.

The last row of a matrix is the bias, because inputs end with a 1. A matrix that "carries" gives the 1 again, last.
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


def squares_to(points: Tensor, projection: Tensor, bias: Tensor) -> Tensor:
    """(D + 1, K): from an embedding e to |p|² - 2 p · v for each p of ``points`` (K, R).

    v is e @ ``projection`` (D, R) + ``bias``. With |v|² added these are squared distances.
    """
    cross = -2.0 * points @ projection.T
    return affine(cross, points.square().sum(1) - 2.0 * points @ bias)


def embedding_blocks(
    layer: nn.Linear, gate: Reliability, centers: Tensor, whitener: Tensor, outlier: Tensor, direction: bool
) -> list[Tensor]:
    """Everything that is linear in a modality's embedding, a matrix (D + 1, ·) each.

    They give: the expert's first layer; the embedding whitened; whitened within classes; whitened as in calibration;
    the part of its squared distances to class centers that depends on it; the same for the centers of calibration, as
    shares of ``outlier``.
    """
    distance = gate.distance
    center, whitening = distance.center.double(), distance.whitening.double()
    within, rank = whitening @ distance.class_whitening.double(), whitening.shape[1]
    middle = centers.mean(0)
    weight, bias = (layer.weight[:, :-1], torch.zeros_like(layer.bias)) if direction else (layer.weight, layer.bias)
    to_classes = squares_to(distance.class_centers.double(), within, -center @ within) / rank
    to_centers = squares_to((centers - middle) @ whitener, whitener, -middle @ whitener) / outlier
    return [
        affine(weight, bias),
        affine(whitening.T, -center @ whitening),
        affine(within.T, -center @ within),
        affine(whitener.T, -middle @ whitener),
        to_classes,
        to_centers,
    ]


def side_by_side(blocks: Sequence[Tensor], columns: Sequence[int], wide: int, direction: bool) -> Tensor:
    """(wide + 1, sum of ``columns``): the :func:`embedding_blocks` padded to widths that all modalities share.

    Expert and whitened embedding carry the 1 in their last column; padding of centers is far away.
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
    """(rank + 1, LANDMARKS): from a whitened embedding to the part of its squared distances that depends on it."""
    points = gate.distance.landmarks.double()
    matrix = torch.zeros(rank + 1, len(points)).to(points)
    own = points.shape[1]
    matrix[:own], matrix[-1] = -2.0 * points.T / own, points.square().sum(1) / own
    return matrix


def to_distances(gate: Reliability, outlier: Tensor, wide: int, rank: int) -> Tensor:
    """From squares, distances to the nearest centers and landmarks, to six columns.

    Rows: squares of (embedding D, 1, whitened R, 1, whitened within classes R, whitened as in calibration D), the least
    distance to a class center and to one of calibration, the NEIGHBORS nearest landmarks. Columns: 1 + the statistics
    norm, class, overall, neighbors; e; the share of ``outlier``.
    """
    width, own = gate.distance.whitening.shape
    x, one, whitened, within, white = 0, wide, wide + 1, wide + rank + 2, wide + 2 * rank + 2
    least = white + wide
    matrix = torch.zeros(least + 2 + NEIGHBORS, 6, dtype=torch.float64)
    matrix[one, :5] = torch.tensor([1.0, 1.0, 1.0, 1.0, math.e])
    matrix[x : x + width, 0] = 1.0 / width
    matrix[within : within + own, 1] = 1.0 / own
    matrix[whitened : whitened + own, 2:4] = 1.0 / own
    matrix[least, 1], matrix[least + 1, 5] = 1.0, 1.0
    matrix[white : white + width, 5] = 1.0 / outlier
    matrix[least + 2 :, 3] = 1.0 / NEIGHBORS
    return matrix


def to_statistics(gate: Reliability) -> Tensor:
    """(7, STATISTICS + 1): to the standardized statistics and 1.

    Rows: the logarithms of the first five columns of :func:`to_distances`, the fifth being 1; log-sum-exp of the
    logits; their mean under the softmax.
    """
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
