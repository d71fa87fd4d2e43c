"""The newest window of sound, at the rate of its encoder."""

from __future__ import annotations

import math
from collections import deque
from time import perf_counter_ns

import numpy as np

from aecf_ros.core.types import NANOSECONDS, AudioChunk, RawAudio
from aecf_ros.health.monitor import SampleReceived
from aecf_ros.modalities.audio.content import AudioWatch
from aecf_ros.modalities.audio.pcm import decode_audio
from aecf_ros.modalities.audio.resample import resample_window
from aecf_ros.modalities.audio.spec import AudioEntry, AudioSpec
from aecf_ros.modalities.audio.window import AudioWindow
from aecf_ros.modalities.base import Evidence, Raw, Timings
from aecf_ros.modalities.messages import DecodeError, as_bytes


class AudioEvidence(Evidence):
    """The newest window: float32 ``(rate_hz * window_s,)`` mono in [-1, 1], zeros where nothing was received.

    It is assembled at the rate of the chunks, and resampled when it is sampled. Chunks are measured as they come: there
    are few, and predictions seldom wait for one.
    """

    accumulates = True

    def __init__(self, record: AudioEntry | AudioSpec, trace: Timings | None = None) -> None:
        super().__init__(record, trace)
        self._rate_hz, self._samples = record.rate_hz, record.window_samples
        self._window_s, self._window_ns = record.window_s, round(record.window_s * NANOSECONDS)
        self._window = AudioWindow(self._rate_hz, self._samples)
        self._received: deque[tuple[int, int]] = deque()  # start and end of each chunk within the window, node time
        self._watch = AudioWatch()
        self._next: AudioChunk | None = None

    def clear(self) -> None:
        super().clear()
        self._window.clear()
        self._received.clear()

    def decode(self, raw: Raw) -> int:
        if not isinstance(raw, RawAudio):
            raise DecodeError(f"got {type(raw).__name__} on an audio stream; check the topic's remapping")
        started_ns = perf_counter_ns()
        self._next = decode_audio(raw)
        self.note("decode", started_ns)
        return self._next.end_ns - self._next.stamp_ns

    def read(self, raw: Raw, now_ns: int) -> SampleReceived:
        span_ns = self.decode(raw)
        assert isinstance(raw, RawAudio) and self._next is not None  # decode() has seen to it
        started_ns = perf_counter_ns()
        content = self._watch.listen(as_bytes(raw.data), self._next.samples, self._next.rate_hz, now_ns)
        self.note("check", started_ns)
        return SampleReceived(raw.stamp_ns, raw.received_ns, span_ns, raw.headless, content)

    def keep(self) -> None:
        chunk = self._next
        assert chunk is not None  # decode() comes first
        if chunk.rate_hz != self._window.rate_hz:
            self._window = AudioWindow(chunk.rate_hz, math.ceil(chunk.rate_hz * self._window_s))
            self._received.clear()
        self._window.append(chunk)
        self._received.append((chunk.stamp_ns, chunk.end_ns))
        while self._received[0][1] <= chunk.end_ns - self._window_ns:
            self._received.popleft()
        self.stamp_ns, self.changed = self._window.end_ns, True

    @property
    def received_ns(self) -> int:
        start_ns = (self.stamp_ns or 0) - self._window_ns
        return sum(until_ns - max(since_ns, start_ns) for since_ns, until_ns in self._received)

    def sample(self) -> np.ndarray:
        started_ns = perf_counter_ns()
        window = resample_window(self._window.read(), self._window.rate_hz, self._rate_hz, self._samples)
        self.note("preprocess", started_ns)
        return window
