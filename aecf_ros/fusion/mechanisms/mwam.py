"""MWAM: weights of the modalities' losses from the Frequency Ratio Metric of the raw inputs, in training only.

An 8 x 8 DCT of each block; the energy of the lowest 2 x 2 coefficients against that of the highest 2 x 2. Inputs whose
energy is all low are easy to learn first, and get less weight. Used on luma and on log-mel.
"""

import math

import torch
from torch import Tensor

BLOCK, CORNER = 8, 2


def dct_matrix(size: int = BLOCK) -> Tensor:
    """The orthonormal DCT-II: [size, size], row k the k-th frequency."""
    k, n = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    matrix = torch.cos(math.pi * (2 * n + 1) * k / (2 * size)) * math.sqrt(2.0 / size)
    matrix[0] /= math.sqrt(2.0)
    return matrix


def frequency_ratio(planes: Tensor, floor: float = 1e-4) -> Tensor:
    """Mean over blocks of log(1 + low / (high + floor)): [B] from planes [B, H, W].

    Rows and columns that do not fill a block are left out.

    low: energy of the lowest 2 x 2 coefficients, high: of the highest 2 x 2. The logarithm limits the
    influence of flat blocks.
    """
    blocks = planes.unfold(1, BLOCK, BLOCK).unfold(2, BLOCK, BLOCK)  # [B, h, w, 8, 8]
    transform = dct_matrix().to(planes)
    energy = (transform @ blocks @ transform.T).square()
    low = energy[..., :CORNER, :CORNER].sum((-1, -2))
    high = energy[..., -CORNER:, -CORNER:].sum((-1, -2))
    return torch.log1p(low / (high + floor)).mean((1, 2))


def modality_weights(ratios: Tensor) -> Tensor:
    """K = 1.5 - 1 / (1 + exp(-6 (T - 0.7))), T = ratio / mean ratio: [M], between 0.5 and 1.5.

    >>> modality_weights(torch.tensor([1.0, 1.0]))
    tensor([0.6419, 0.6419])
    """
    share = ratios / ratios.mean()
    return 1.5 - torch.sigmoid(6.0 * (share - 0.7))
