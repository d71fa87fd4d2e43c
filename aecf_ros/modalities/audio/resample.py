"""Resampling of a whole window of sound to the bundle's rate, by soxr.

A streaming resampler holds back 36 ms at 48 to 16 kHz and 115 ms at 8 to 16 kHz (measured), whatever its quality
setting; the newest
sound is what a prediction needs most. Resampling the window that is about to be encoded holds back nothing and costs
0.2 ms.
"""

from __future__ import annotations

import numpy as np
import soxr


def resample_window(samples: np.ndarray, rate_hz: int, to_rate_hz: int, count: int) -> np.ndarray:
    """The newest ``count`` samples at ``to_rate_hz`` of a window float32 ``(samples,)`` at ``rate_hz``, zeros before
    it: float32 ``(count,)``.
    """
    if rate_hz != to_rate_hz:
        samples = np.asarray(soxr.resample(samples, rate_hz, to_rate_hz), np.float32)
    window = np.zeros(count, np.float32)
    kept = samples[max(0, len(samples) - count) :]
    window[count - len(kept) :] = kept
    return window
