"""What the pipeline holds of each stream: its newest evidence, decoded, measured, and of the size that its encoder takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter_ns
from typing import Protocol

import numpy as np

from aecf_ros.core.types import AudioChunk, RawAudio, RawImage
from aecf_ros.health.monitor import SampleReceived
from aecf_ros.modalities.audio.content import AudioWatch
from aecf_ros.modalities.audio.pcm import decode_audio
from aecf_ros.modalities.audio.resample import resample_window
from aecf_ros.modalities.audio.spec import AudioEntry
from aecf_ros.modalities.audio.window import AudioWindow
from aecf_ros.modalities.image.content import SAME_PICTURE, ImageContent, ImageWatch
from aecf_ros.modalities.image.decode import decode_image, is_compressed, resize_image
from aecf_ros.modalities.image.spec import ImageEntry
from aecf_ros.modalities.messages import DecodeError, as_bytes, digest
from aecf_ros.modalities.vector.content import VectorWatch
from aecf_ros.modalities.vector.messages import RawVector, decode_vector
from aecf_ros.modalities.vector.spec import VectorEntry
from aecf_ros.runtime.trace import Trace

CHECK_PERIOD_NS = 90_000_000
"""Content is measured some ten times a second, because complaints about it must last 0.4 s anyway; while there is one, in every frame."""

Raw = RawImage | RawAudio | RawVector


class Source(Protocol):
    """The newest evidence of one modality, ready for its encoder.

    ``read`` decodes and measures a message, ``keep`` makes the one just read the newest evidence: between the two the
    monitor says whether its stamp can be believed. ``clear`` forgets the evidence. ``settle`` does what no prediction
    waits for, and ``trace`` is told what each part took. ``closely`` asks for a measurement of every message. ``sample`` has the modality's
    ``sample_shape``. ``read`` raises :class:`aecf_ros.modalities.image.decode.DecodeError` for what cannot be used.
    """

    changed: bool
    closely: bool
    stamp_ns: int | None
    trace: Trace

    def read(self, raw: Raw, now_ns: int) -> SampleReceived: ...

    def keep(self) -> None: ...

    def clear(self) -> None: ...

    def settle(self) -> None: ...

    def sample(self) -> np.ndarray: ...


class ImageSource:
    """Content is measured after the prediction, some ten times a second, and counts with the frames that follow; only repetition is told at once."""

    def __init__(self, modality: ImageEntry, trace: Trace) -> None:
        self._size = (modality.height, modality.width)
        self._decode, self._preprocess, self._check = (
            f"{stage} {modality.name}" for stage in ("decode", "preprocess", "check")
        )
        self.trace = trace
        self._watch = ImageWatch()
        self._content: ImageContent | None = None
        self._mark: int | None = None
        self._measured_ns: int | None = None
        self._read_ns = 0
        self._unmeasured: tuple[int, np.ndarray, int] | None = None
        self._next: tuple[int, np.ndarray] | None = None
        self.closely = False
        self.clear()

    def clear(self) -> None:
        self._image = np.zeros((*self._size, 3), np.uint8)
        self.changed = False
        self.stamp_ns: int | None = None

    def read(self, raw: Raw, now_ns: int) -> SampleReceived:
        self.settle()
        if not isinstance(raw, RawImage):
            raise DecodeError(f"got {type(raw).__name__} on an image stream; check the topic's remapping")
        started_ns = perf_counter_ns()
        frame = decode_image(raw)
        decoded_ns = perf_counter_ns()
        image = resize_image(frame.image, *self._size)
        self._next = frame.stamp_ns, image
        mark = digest(as_bytes(raw.data), is_compressed(raw.encoding))
        repeats = SAME_PICTURE if mark == self._mark else ""
        self._mark = mark
        if self.closely or self._is_due(now_ns):
            self._unmeasured, self._measured_ns = (mark, image, now_ns), now_ns
        self._read_ns = now_ns
        content = self._content
        if content is not None and content.repeats != repeats:
            content = replace(content, repeats=repeats)
        self.trace.add(self._decode, decoded_ns - started_ns)
        self.trace.add(self._preprocess, perf_counter_ns() - decoded_ns)
        return SampleReceived(raw.stamp_ns, raw.received_ns, content=content)

    def _is_due(self, now_ns: int) -> bool:
        """Counted to half the time between frames, so that one which comes a little early does not wait for the next."""
        return self._measured_ns is None or now_ns - self._measured_ns + (now_ns - self._read_ns) / 2 >= CHECK_PERIOD_NS

    def keep(self) -> None:
        assert self._next is not None  # read() comes first
        self.stamp_ns, self._image = self._next
        self.changed = True

    def settle(self) -> None:
        if self._unmeasured is not None:
            started_ns = perf_counter_ns()
            self._content = self._watch.look(*self._unmeasured)
            self._unmeasured = None
            self.trace.add(self._check, perf_counter_ns() - started_ns)

    def sample(self) -> np.ndarray:
        return self._image


class AudioSource:
    """The newest window, assembled across chunks at the rate they come in; resampled when it is asked for."""

    def __init__(self, modality: AudioEntry, trace: Trace) -> None:
        self._modality = modality
        self._decode, self._preprocess, self._check = (
            f"{stage} {modality.name}" for stage in ("decode", "preprocess", "check")
        )
        self.trace = trace
        self._window = AudioWindow(modality.rate_hz, modality.window_samples)
        self._watch = AudioWatch()
        self._next: AudioChunk | None = None
        self.closely = False
        self.clear()

    def clear(self) -> None:
        self._window.clear()
        self.changed = False
        self.stamp_ns: int | None = None

    def read(self, raw: Raw, now_ns: int) -> SampleReceived:
        if not isinstance(raw, RawAudio):
            raise DecodeError(f"got {type(raw).__name__} on an audio stream; check the topic's remapping")
        started_ns = perf_counter_ns()
        chunk = self._next = decode_audio(raw)
        decoded_ns = perf_counter_ns()
        content = self._watch.listen(as_bytes(raw.data), chunk.samples, chunk.rate_hz, now_ns)
        self.trace.add(self._decode, decoded_ns - started_ns)
        self.trace.add(self._check, perf_counter_ns() - decoded_ns)
        return SampleReceived(raw.stamp_ns, raw.received_ns, chunk.end_ns - chunk.stamp_ns, raw.headless, content)

    def keep(self) -> None:
        chunk = self._next
        assert chunk is not None  # read() comes first
        if chunk.rate_hz != self._window.rate_hz:
            self._window = AudioWindow(chunk.rate_hz, math.ceil(chunk.rate_hz * self._modality.window_s))
        self._window.append(chunk)
        self.stamp_ns, self.changed = self._window.end_ns, True

    def settle(self) -> None:
        """A chunk is measured as it comes: there are few, and predictions seldom wait for one."""

    def sample(self) -> np.ndarray:
        started_ns = perf_counter_ns()
        window = resample_window(
            self._window.read(), self._window.rate_hz, self._modality.rate_hz, self._modality.window_samples
        )
        self.trace.add(self._preprocess, perf_counter_ns() - started_ns)
        return window


class VectorSource:
    """The newest vector; what made it stands elsewhere."""

    def __init__(self, modality: VectorEntry, trace: Trace) -> None:
        self._dim, self._decode = modality.dim, f"decode {modality.name}"
        self.trace = trace
        self._watch = VectorWatch()
        self._next: tuple[int, np.ndarray] | None = None
        self.closely = False
        self.clear()

    def clear(self) -> None:
        self._vector = np.zeros(self._dim, np.float32)
        self.changed = False
        self.stamp_ns: int | None = None

    def read(self, raw: Raw, now_ns: int) -> SampleReceived:
        if not isinstance(raw, RawVector):
            raise DecodeError(f"got {type(raw).__name__} on a stream of vectors; check the topic's remapping")
        started_ns = perf_counter_ns()
        vector = decode_vector(raw.values, self._dim)
        self._next = raw.stamp_ns, vector
        content = self._watch.look(vector)
        self.trace.add(self._decode, perf_counter_ns() - started_ns)
        return SampleReceived(raw.stamp_ns, raw.received_ns, content=content)

    def keep(self) -> None:
        assert self._next is not None  # read() comes first
        self.stamp_ns, self._vector = self._next
        self.changed = True

    def settle(self) -> None:
        """There is nothing to put off."""

    def sample(self) -> np.ndarray:
        return self._vector


SOURCES: dict[str, Callable[..., Source]] = {"image": ImageSource, "audio": AudioSource, "vector": VectorSource}
"""By the kind of a modality; called with the modality and the trace."""
