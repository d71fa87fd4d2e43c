"""How sharp a picture is, judged by its edges alone: what is shown, how much of it and at what contrast do not
matter.
"""

from __future__ import annotations

import math

import numpy as np

REACH = 8
"""Pixels across an edge, a power of two."""
_SHARE, _MIN_PLACES = 0.0025, 8
_MIN_HEIGHT, _NOISES = 16, 8.0


def edge_steepness(patch: np.ndarray, noise: float) -> float | None:
    """How much of an edge's height lies between two neighbouring pixels, where that is most: the value that one
    place in 400 exceeds.

    Near 1 for a lens in focus, about 0.4 behind a Gaussian of 1.5 pixels: blur lowers the difference of neighbours
    and leaves the range of
    luminance across the edge. Faint edges count as much as strong ones, since shadows and gradients are soft before
    any lens.
    ``None`` where fewer places have a range above the noise: a picture without edges says nothing of the lens.

    Args:
        patch: luminance, int16 ``(h, w)`` in 0 to 255.
        noise: its standard deviation, in grey levels.
    """
    if min(patch.shape) < REACH:
        return None
    least = max(_MIN_HEIGHT, math.ceil(_NOISES * noise))
    parts = [_parts(line, least) for line in (patch, patch.T)]
    places = sum(places for _, places in parts)
    steps, wanted = np.concatenate([part for part, _ in parts]), max(_MIN_PLACES, round(_SHARE * places))
    return float(np.partition(steps, -wanted)[-wanted]) if len(steps) >= wanted else None


def _parts(lines: np.ndarray, least: int) -> tuple[np.ndarray, int]:
    """Along the rows of ``(h, w)``: float32 ``(n,)``, for each step that is high enough its share of the range of
    the 8 pixels around it; and how many
    steps there are.
    """
    before = REACH // 2 - 1
    step = np.abs(lines[:, 1:] - lines[:, :-1])[:, before:-before]
    high = low = lines
    for reach in (1, 2, 4):
        high, low = np.maximum(high[:, :-reach], high[:, reach:]), np.minimum(low[:, :-reach], low[:, reach:])
    height = high - low
    clear = height >= least
    return step[clear].astype(np.float32) / height[clear], step.size
