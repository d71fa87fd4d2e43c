"""The newest frame of a camera, at the size of its encoder."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter_ns

import numpy as np

from aecf_ros.core.types import RawImage
from aecf_ros.health.monitor import SampleReceived
from aecf_ros.modalities.base import Evidence, Raw, Timings
from aecf_ros.modalities.image.content import SAME_PICTURE, ImageContent, ImageWatch
from aecf_ros.modalities.image.decode import decode_image, is_compressed, resize_image
from aecf_ros.modalities.image.spec import ImageEntry, ImageSpec
from aecf_ros.modalities.messages import DecodeError, as_bytes, digest

CHECK_PERIOD_NS = 90_000_000
"""Some ten measurements a second are enough: a complaint counts after 0.4 s. While there is one, each frame is
measured.
"""


class ImageEvidence(Evidence):
    """The newest frame: uint8 ``(height, width, 3)`` RGB.

    Its content is measured in :meth:`settle`, after the prediction, and counts from the next frame on; only repetition
    is known at once.
    """

    def __init__(self, record: ImageEntry | ImageSpec, trace: Timings | None = None) -> None:
        super().__init__(record, trace)
        self._size = record.height, record.width
        self._watch = ImageWatch()
        self._content: ImageContent | None = None
        self._mark: int | None = None
        self._measured_ns: int | None = None
        self._read_ns = 0
        self._unmeasured: tuple[int, np.ndarray, int] | None = None
        self._next: tuple[int, np.ndarray] | None = None
        self.clear()

    def clear(self) -> None:
        super().clear()
        self._image = np.zeros((*self._size, 3), np.uint8)

    def decode(self, raw: Raw) -> int:
        if not isinstance(raw, RawImage):
            raise DecodeError(f"got {type(raw).__name__} on an image stream; check the topic's remapping")
        started_ns = perf_counter_ns()
        frame = decode_image(raw)
        decoded_ns = self.note("decode", started_ns)
        self._next = frame.stamp_ns, resize_image(frame.image, *self._size)
        self.note("preprocess", decoded_ns)
        return 0

    def read(self, raw: Raw, now_ns: int) -> SampleReceived:
        self.settle()
        self.decode(raw)
        assert isinstance(raw, RawImage) and self._next is not None  # decode() has seen to it
        mark = digest(as_bytes(raw.data), is_compressed(raw.encoding))
        repeats = SAME_PICTURE if mark == self._mark else ""
        self._mark = mark
        if self.closely or self._is_due(now_ns):
            self._unmeasured, self._measured_ns = (mark, self._next[1], now_ns), now_ns
        self._read_ns = now_ns
        content = self._content
        if content is not None and content.repeats != repeats:
            content = replace(content, repeats=repeats)
        return SampleReceived(raw.stamp_ns, raw.received_ns, content=content)

    def _is_due(self, now_ns: int) -> bool:
        """Counted to half the time between frames, so that a frame that comes a little early is measured too."""
        return self._measured_ns is None or now_ns - self._measured_ns + (now_ns - self._read_ns) / 2 >= CHECK_PERIOD_NS

    def keep(self) -> None:
        assert self._next is not None  # decode() comes first
        self.stamp_ns, self._image = self._next
        self.changed = True

    def settle(self) -> None:
        if self._unmeasured is not None:
            started_ns = perf_counter_ns()
            self._content = self._watch.look(*self._unmeasured)
            self._unmeasured = None
            self.note("check", started_ns)

    def sample(self) -> np.ndarray:
        return self._image
