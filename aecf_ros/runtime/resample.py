"""Streaming resampling of sound to the bundle's rate, by soxr."""
from __future__ import annotations

import numpy as np
import soxr

from aecf_ros.core.buffer import STAMP_TOLERANCE_S
from aecf_ros.core.types import NANOSECONDS, AudioChunk


class StreamResampler:
    """Turns chunks of any rate into chunks of ``rate_hz``. Starts anew when the input rate changes or its stamps jump."""

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self._stream: soxr.ResampleStream | None = None
        self._input_rate_hz = 0
        self._expected_ns = 0
        self._consumed = 0
        self._emitted = 0

    def convert(self, chunk: AudioChunk) -> AudioChunk:
        """Resample one chunk; the result may be shorter by the filter's delay, which later chunks make up."""
        if chunk.rate_hz == self.rate_hz:
            self._stream = None
            return chunk
        jumped = abs(chunk.stamp_ns - self._expected_ns) > STAMP_TOLERANCE_S * NANOSECONDS
        if self._stream is None or chunk.rate_hz != self._input_rate_hz or jumped:
            self._stream = soxr.ResampleStream(chunk.rate_hz, self.rate_hz, 1, dtype="float32")
            self._input_rate_hz, self._consumed, self._emitted = chunk.rate_hz, 0, 0
        self._expected_ns = chunk.end_ns
        samples = np.asarray(self._stream.resample_chunk(chunk.samples), np.float32)
        # Counted from this chunk's stamp, not the first one's: a sound card's clock drifts against the node's by seconds a day.
        delay_ns = self._consumed * NANOSECONDS // chunk.rate_hz - self._emitted * NANOSECONDS // self.rate_hz
        stamp_ns = chunk.stamp_ns - delay_ns
        self._consumed += len(chunk.samples)
        self._emitted += len(samples)
        return AudioChunk(stamp_ns, chunk.received_ns, self.rate_hz, samples)
