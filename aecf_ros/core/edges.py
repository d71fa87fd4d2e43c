"""How sharp a picture is, judged by its edges alone: what is shown, how much of it and at what contrast do not matter."""
from __future__ import annotations

import math

import cv2
import numpy as np

REACH = 8
_SHARE, _MIN_PLACES = 0.0025, 8
_MIN_HEIGHT, _NOISES = 16, 8.0


def edge_steepness(patch: np.ndarray, noise: float) -> float | None:
    """How much of an edge's height lies between two neighbouring pixels, where that is most: the value that one place in 400 exceeds.

    Near 1 for a lens in focus, about 0.4 behind a Gaussian of 1.5 pixels: blur lowers the difference of neighbours and leaves the range of
    luminance across the edge. Faint edges count as much as strong ones, since shadows and gradients are soft before any lens.
    ``None`` where fewer places have a range above the noise: a picture without edges says nothing of the lens.

    Args:
        patch: luminance, int16 ``(h, w)`` in 0 to 255.
        noise: its standard deviation, in grey levels.
    """
    if min(patch.shape) < REACH:
        return None
    levels, least = patch.astype(np.uint8), max(_MIN_HEIGHT, math.ceil(_NOISES * noise))
    across, down = np.abs(patch[:, 1:] - patch[:, :-1]), np.abs(patch[1:] - patch[:-1])
    found = np.concatenate([_parts(across, _range(levels, (1, REACH))[:, :-1], least), _parts(down, _range(levels, (REACH, 1))[:-1], least)])
    wanted = max(_MIN_PLACES, round(_SHARE * (across.size + down.size)))
    return float(np.partition(found, -wanted)[-wanted]) if len(found) >= wanted else None


def _range(levels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Highest less lowest of the pixels around the step from each pixel to the next, uint8 ``(h, w)``."""
    kernel = np.ones(shape, np.uint8)
    anchor = (REACH // 2 - 1, 0) if shape[0] == 1 else (0, REACH // 2 - 1)
    return cv2.dilate(levels, kernel, anchor=anchor) - cv2.erode(levels, kernel, anchor=anchor)


def _parts(step: np.ndarray, height: np.ndarray, least: int) -> np.ndarray:
    """float32 ``(n,)``: the share of its height in each step that is high enough."""
    clear = height >= least
    return step[clear].astype(np.float32) / height[clear]
