"""Whether a picture became soft with the scene or without it: a lens out of focus blurs what was there, and leaves
its coarse light.
"""

from __future__ import annotations

import numpy as np

OTHER_SCENE = 0.16
"""Mean change of coarse light, in its own standard deviations: of 60 rooms blur of up to 4 % of the width changed at
most 0.13, another card at least 0.17.
"""
SOFT, SHARP = 0.6, 0.75
"""Shares of the usual steepness: below the first a picture is soft, from the second on it is sharp, and one between
says nothing.
"""
_GRID = 6, 8
_LEAST_LEVELS = 4.0
_SCENES = 2
_SMOOTHINGS = 6


class SoftScenes:
    """Tells a soft lens from a soft scene: softness that came with another scene must outlast that scene. Not
    thread-safe.
    """

    def __init__(self) -> None:
        self._coarse: np.ndarray | None = None
        self._scenes = 0

    def blames_lens(self, patch: np.ndarray, sharpness: float) -> bool:
        """Take one picture, int16 ``(h, w)`` of luminance, and its share of the usual steepness; whether the lens is
        soft.
        """
        if SOFT <= sharpness < SHARP:
            return self._scenes >= _SCENES
        coarse = _coarse(patch)
        if coarse is None:
            return sharpness < SOFT
        if sharpness >= SHARP:
            self._coarse, self._scenes = coarse, 0
            return False
        other = self._coarse is not None and _change(self._coarse, coarse) > OTHER_SCENE
        if self._scenes == 0:
            self._scenes = 1 if other else _SCENES
            self._coarse = coarse
        elif other:
            self._scenes += 1
            self._coarse = coarse
        return self._scenes >= _SCENES


def _coarse(patch: np.ndarray) -> np.ndarray | None:
    """Mean luminance of the cells of a grid, float64 ``(6, 8)``; ``None`` for a picture smaller than that."""
    rows, columns = _GRID
    height, width = patch.shape[0] // rows, patch.shape[1] // columns
    if not (height and width):
        return None
    cells: np.ndarray = patch[: rows * height, : columns * width].reshape(rows, height, columns, width)
    return np.asarray(cells.mean(axis=(1, 3)))


def _change(before: np.ndarray, after: np.ndarray) -> float:
    """Mean change in standard deviations, to the picture before or to that picture smoothed: blur reaches beyond a
    cell.
    """
    scale, least = max(float(before.std()), _LEAST_LEVELS), np.inf
    for _ in range(_SMOOTHINGS):
        least = min(least, float(np.abs(after - before).mean()))
        padded = np.pad(before, 1, mode="edge")
        before = (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] + 8 * before) / 12
    return least / scale
