"""Bounded, timestamped windows: the newest frame, and the last seconds of sound assembled by stamp."""

from __future__ import annotations

import numpy as np

from aecf_ros.core.types import NANOSECONDS, AudioChunk

STAMP_TOLERANCE_S = 0.02
"""Stamp jitter up to this is not a gap: drivers stamp by the arrival of a block, not by its samples."""


class AudioWindow:
    """The last ``window_samples`` of sound at one rate; memory is fixed at construction.

    Chunks are laid down by their stamps: a gap becomes zeros, an overlap is dropped, and a jump of more than a
    window in
    either direction starts anew. Not thread-safe.
    """

    def __init__(self, rate_hz: int, window_samples: int) -> None:
        self.rate_hz = rate_hz
        self._samples = np.zeros(window_samples, np.float32)
        self._end_ns: int | None = None

    @property
    def end_ns(self) -> int | None:
        """Node time just after the newest sample, ``None`` while empty."""
        return self._end_ns

    def clear(self) -> None:
        """Forget everything, as at the start."""
        self._samples[:] = 0.0
        self._end_ns = None

    def append(self, chunk: AudioChunk) -> None:
        """Add a chunk at this window's rate.

        Raises:
            ValueError: the chunk has another rate; resample first.
        """
        if chunk.rate_hz != self.rate_hz:
            raise ValueError(f"chunk at {chunk.rate_hz} Hz for a window at {self.rate_hz} Hz; resample it first")
        samples = chunk.samples
        if self._end_ns is not None:
            offset = round((chunk.stamp_ns - self._end_ns) * self.rate_hz / NANOSECONDS)
            if abs(offset) > len(self._samples):
                self.clear()
            elif offset > STAMP_TOLERANCE_S * self.rate_hz:
                self._push(np.zeros(offset, np.float32))
            elif offset < -STAMP_TOLERANCE_S * self.rate_hz:
                samples = samples[-offset:]
                if not len(samples):
                    return
        self._push(samples)
        self._end_ns = chunk.end_ns

    def read(self) -> np.ndarray:
        """The window, oldest sample first, zeros where nothing was received: float32 ``(window_samples,)``, a copy."""
        return np.array(self._samples)

    def _push(self, samples: np.ndarray) -> None:
        size = len(self._samples)
        count = min(len(samples), size)
        self._samples[: size - count] = self._samples[count:]
        self._samples[size - count :] = samples[len(samples) - count :]
