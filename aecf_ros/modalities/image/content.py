"""What a picture says about its camera: repeating, dark, overexposed, blurred or noisy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from aecf_ros.health.content import Complaint
from aecf_ros.health.running_average import RunningAverage
from aecf_ros.health.thresholds import StreamThresholds
from aecf_ros.modalities.image.scene_change import SOFT, SoftScenes
from aecf_ros.modalities.image.sharpness import edge_steepness

SAME_PICTURE = "the same picture"


@dataclass(frozen=True, slots=True)
class ImageContent:
    """Measurements of one picture at encoder size; levels are shares of full scale.

    Ratios are to the stream's own average, ``None`` while there is too little to go by; that of sharpness also while
    the picture became soft with
    another scene and has not outlasted it. ``highlight`` is the luminance that 2 % of the pixels exceed.
    """

    repeats: str
    highlight: float
    overexposed: float
    sharpness_ratio: float | None
    noise: float
    noise_ratio: float | None

    def complaints(self, thresholds: StreamThresholds) -> list[Complaint]:
        """Dark, overexposed, blurred, noisy."""
        complaints = []
        if self.highlight < thresholds.dark_below:
            complaints.append(Complaint("dark", f"dark: the brightest parts reach {self.highlight:.0%} of full scale"))
        elif thresholds.overexposed_above and self.overexposed > thresholds.overexposed_above:
            complaints.append(
                Complaint("overexposed", f"overexposed: {self.overexposed:.0%} of the pixels at full scale")
            )
        elif self.sharpness_ratio is not None and self.sharpness_ratio < thresholds.blur_below:
            complaints.append(Complaint("blurred", f"blurred: {self.sharpness_ratio:.0%} of the usual sharpness"))
        if thresholds.noisy_above and self.noise > thresholds.noisy_above and (self.noise_ratio or 0.0) > 3.0:
            complaints.append(Complaint("noisy", f"noisy: {self.noise_ratio:.1f} times the usual noise"))
        return complaints


class ImageWatch:
    """Measures the frames of one camera: light on a grid over the picture, sharpness and noise in its middle.

    0.2 ms a frame at most. Not thread-safe.
    """

    _PATCH = 96

    def __init__(self) -> None:
        self._digest: int | None = None
        self._before: np.ndarray | None = None
        self._steepness: RunningAverage[float] = RunningAverage()
        self._soft_scenes = SoftScenes()
        self._noise: RunningAverage[float] = RunningAverage()

    def look(self, mark: int, image: np.ndarray, now_ns: int) -> ImageContent:
        """Measure one frame.

        Args:
            mark: the :func:`digest` of the message's bytes; of a JPEG or PNG, of all of them.
            image: the decoded picture at encoder size, uint8 ``(H, W, 3)`` RGB.
            now_ns: steady time.
        """
        repeats = SAME_PICTURE if mark == self._digest else ""
        self._digest = mark
        patch = _luminance(_middle(image, self._PATCH))  # (h, w) int16
        stride = math.ceil(max(image.shape[:2]) / self._PATCH)
        spread = patch if stride == 1 else _luminance(image[::stride, ::stride])
        levels = np.cumsum(np.bincount(spread.ravel(), minlength=256))
        total = levels[-1]
        highlight = int(np.searchsorted(levels, 0.98 * total)) / 255
        overexposed = 1.0 - float(levels[249]) / total
        grain = _spatial_noise(patch)
        steepness, usual = edge_steepness(patch, grain), self._steepness.value
        ratio = None if steepness is None or usual is None else steepness / max(usual, 1e-6)
        soft = ratio is not None and ratio < SOFT
        lens = ratio is not None and self._soft_scenes.blames_lens(patch, ratio)
        noise = min(grain, self._change(patch)) / 255
        usual_noise = self._noise.value
        if not repeats and highlight > 0.05 and overexposed < 0.5:
            if steepness is not None:
                self._steepness.add(steepness, now_ns, unusual=soft)
            self._noise.add(noise, now_ns, unusual=usual_noise is not None and noise > 2.0 * usual_noise)
        return ImageContent(
            repeats,
            highlight,
            overexposed,
            ratio if lens or not soft else None,
            noise,
            noise / max(usual_noise, 0.5 / 255) if usual_noise is not None else None,
        )

    def _change(self, patch: np.ndarray) -> float:
        """Noise between this picture and the one before, in grey levels; a still scene without noise has none."""
        before, self._before = self._before, patch
        if before is None or before.shape != patch.shape:
            return 0.0
        return _median(np.abs(patch - before)) / (0.6745 * math.sqrt(2))


def _luminance(image: np.ndarray) -> np.ndarray:
    wide = image.astype(np.uint16)
    return ((77 * wide[..., 0] + 150 * wide[..., 1] + 29 * wide[..., 2]) >> 8).astype(np.int16)


def _middle(image: np.ndarray, side: int) -> np.ndarray:
    top, left = max(0, image.shape[0] - side) // 2, max(0, image.shape[1] - side) // 2
    return image[top : top + side, left : left + side]


def _median(values: np.ndarray) -> float:
    """Median of whole numbers at least 0, interpolated within the step that holds it."""
    counts = np.bincount(values.ravel())
    sums = np.cumsum(counts)
    at = int(np.searchsorted(sums, 0.5 * sums[-1]))
    return float(max(at - 0.5 + (0.5 * sums[-1] - (sums[at] - counts[at])) / counts[at], 0.0))


def _spatial_noise(patch: np.ndarray) -> float:
    """Standard deviation of the noise, in grey levels: Immerkaer 1996, with the median, which edges leave alone."""
    if min(patch.shape) < 3:
        return 0.0
    rows = patch[:-2] - 2 * patch[1:-1] + patch[2:]
    return _median(np.abs(rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:])) / (0.6745 * 6)
