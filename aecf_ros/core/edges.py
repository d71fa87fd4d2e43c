"""How sharp a picture is, judged by its edges alone: what is shown, how much of it and at what contrast do not matter."""
from __future__ import annotations

import numpy as np

_SHARE = 0.01
_REACH = 8
_AROUND = np.arange(_REACH) - (_REACH // 2 - 1)
_MIN_RANGE, _MIN_EDGES, _MAX_EDGES = 16, 8, 256


def edge_steepness(patch: np.ndarray) -> float | None:
    """The part of an edge's height that lies between two neighbouring pixels: median over the strongest hundredth.

    1 for a step, about 0.4 for a step behind a Gaussian of one pixel and 0.2 behind one of two: blur lowers the difference of
    neighbours and leaves the range of luminance across the edge. ``None`` where fewer than 8 places have a range of 16
    levels: a picture without edges says nothing of the lens.

    Args:
        patch: luminance, int16 ``(h, w)`` in 0 to 255, C-contiguous.
    """
    height, width = patch.shape
    if min(height, width) < _REACH:
        return None
    across, down = np.abs(patch[:, 1:] - patch[:, :-1]), np.abs(patch[1:] - patch[:-1])
    counts = np.bincount(across.ravel(), minlength=256) + np.bincount(down.ravel(), minlength=256)
    wanted = max(_MIN_EDGES, round(_SHARE * (across.size + down.size)))
    strong = max(255 - int(counts[::-1].cumsum().searchsorted(wanted)), 1)
    flat = patch.ravel()
    found = np.concatenate([_parts(flat, across, strong, width, width, 1), _parts(flat, down, strong, width, height, width)])
    middle = len(found) // 2
    return float(np.partition(found, middle)[middle]) if len(found) >= _MIN_EDGES else None


def _parts(flat: np.ndarray, step: np.ndarray, strong: int, width: int, length: int, stride: int) -> np.ndarray:
    """float ``(n,)``: each strong step as a share of the range of the 8 pixels around it, in lines of ``length`` pixels ``stride`` apart."""
    at = np.flatnonzero(step >= strong)
    if len(at) > _MAX_EDGES:
        at = at[::-(-len(at) // _MAX_EDGES)]
    row, column = np.divmod(at, step.shape[1])
    place, line = (column, row * width) if stride == 1 else (row, column)
    centre = np.minimum(np.maximum(place, -_AROUND[0]), length - 1 - _AROUND[-1])
    around = flat[(line + centre * stride)[:, None] + _AROUND * stride]  # (n, 8)
    height = around.max(axis=1) - around.min(axis=1)
    clear = height >= _MIN_RANGE
    return step.ravel()[at][clear] / height[clear]
