"""What a sensor of a recording gives at a moment: what the pipeline would have given its encoder then.

Frames are decoded when a moment asks for them; sound is laid into the pipeline's own window as it comes.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np

from aecf_ros.core.types import NANOSECONDS, RawAudio, RawImage
from aecf_ros.health.stamps import StampCheck
from aecf_ros.modalities.audio.pcm import decode_audio
from aecf_ros.modalities.audio.resample import resample_window
from aecf_ros.modalities.audio.window import AudioWindow
from aecf_ros.modalities.image.decode import decode_image, resize_image
from aecf_ros.modalities.messages import DecodeError, FormatUnknown
from aecf_ros.modalities.vector.messages import RawVector, decode_vector
from aecf_ros.replay.bag.errors import BagError
from aecf_ros.replay.bag.reader import Bag, Recorded
from aecf_ros.replay.faults.message_edit import raw_record

RECEIVED_SHARE = 0.9
"""Share of an audio window that must have been received: an encoder has to hear more of the label than of the gap."""
_RECENT_FRAMES = 4


class Refused:
    """Counts the messages of a stream that cannot be used."""

    def __init__(self) -> None:
        self.count = 0
        self.first = ""

    def note(self, at_s: float, reason: Exception | str) -> None:
        """Count one, ``at_s`` seconds into the recording."""
        self.count += 1
        self.first = self.first or f"the first at {at_s:.2f} s: {reason}"

    def line(self, topic: str) -> list[str]:
        """What to say of it, if anything."""
        return [f"{topic}: {self.count} messages cannot be used, {self.first}"] if self.count else []


class _Newest:
    """The newest message of a stream of which each stands for itself."""

    def __init__(self, max_age_ns: int) -> None:
        self._max_age_ns = max_age_ns
        self._recent: deque[Recorded] = deque(maxlen=_RECENT_FRAMES)
        self._decoded: tuple[Recorded, np.ndarray] | None = None
        self.refused = Refused()

    def take(self, bag: Bag, one: Recorded, info: Any | None) -> None:
        """A message arrived; it stays serialized."""
        self._recent.append(one)

    def sample(self, bag: Bag, now_ns: int) -> np.ndarray | None:
        """The newest one that can be decoded, as :meth:`decode` gives it; ``None`` where it arrived too long ago."""
        while self._recent and now_ns - self._recent[-1].log_ns <= self._max_age_ns:
            one = self._recent[-1]
            if self._decoded is not None and self._decoded[0] is one:
                return self._decoded[1]
            try:
                self._decoded = one, self.decode(raw_record(bag.deserialize(one), None, one.log_ns))
            except (BagError, DecodeError, FormatUnknown) as error:
                self.refused.note(bag.seconds(one), error)
                self._recent.pop()  # as in the pipeline, the one before is then the newest evidence
        return None

    def decode(self, raw: Any) -> np.ndarray:
        """A record as the encoder takes it.

        Raises:
            DecodeError: it cannot be used.
        """
        raise NotImplementedError


class Eye(_Newest):
    """The newest frame of a camera: uint8 ``(H, W, 3)`` RGB."""

    def __init__(self, modality: Any, max_age_ns: int) -> None:
        super().__init__(max_age_ns)
        self._size = modality.height, modality.width
        self.shape, self.dtype = (*self._size, 3), np.uint8

    def decode(self, raw: Any) -> np.ndarray:
        if not isinstance(raw, RawImage):
            raise DecodeError(f"got {type(raw).__name__} on an image stream")
        return resize_image(decode_image(raw).image, *self._size)


class Vector(_Newest):
    """The newest vector that somebody computed: float32 ``(dim,)``."""

    def __init__(self, modality: Any, max_age_ns: int) -> None:
        super().__init__(max_age_ns)
        self.shape, self.dtype = (modality.dim,), np.float32

    def decode(self, raw: Any) -> np.ndarray:
        if not isinstance(raw, RawVector):
            raise DecodeError(f"got {type(raw).__name__} on a stream of vectors")
        return decode_vector(raw.values, *self.shape)


class Ear:
    """The window that ends with the newest sound of a microphone: int16 ``(samples,)`` mono."""

    def __init__(self, modality: Any, max_age_ns: int) -> None:
        self._rate_hz, self._window_s = modality.rate_hz, modality.window_s
        self._max_age_ns = max_age_ns
        self._window = AudioWindow(self._rate_hz, round(self._rate_hz * self._window_s))
        self._stamps = StampCheck()
        self._received: deque[tuple[int, int]] = deque()
        self._arrived_ns = self._chunk_ns = 0
        self.refused = Refused()
        self.shape, self.dtype = (round(self._rate_hz * self._window_s),), np.int16

    def take(self, bag: Bag, one: Recorded, info: Any | None) -> None:
        """Sound arrived. What cannot be used is counted in ``refused`` and left out."""
        try:
            raw = raw_record(bag.deserialize(one), info, one.log_ns)
            if not isinstance(raw, RawAudio):
                raise DecodeError(f"got {type(raw).__name__} on an audio stream")
            chunk = decode_audio(raw)
            # A clock that is ahead or behind harms no window, so that only what would tear one is looked for.
            verdict = self._stamps.check(raw.stamp_ns, one.log_ns, same_content=False, tolerance_s=0.0)
            if verdict.fault and not verdict.jumped:
                raise DecodeError(verdict.fault)
        except (BagError, DecodeError, FormatUnknown) as error:
            self.refused.note(bag.seconds(one), error)
            return
        if verdict.jumped:
            self._window.clear()
            self._received.clear()
        if chunk.rate_hz != self._window.rate_hz:
            self._window = AudioWindow(chunk.rate_hz, math.ceil(chunk.rate_hz * self._window_s))
            self._received.clear()
        self._window.append(chunk)
        self._received.append((chunk.stamp_ns, chunk.end_ns))
        while self._received[0][1] <= chunk.end_ns - self._window_ns:
            self._received.popleft()
        self._arrived_ns, self._chunk_ns = one.log_ns, chunk.end_ns - chunk.stamp_ns

    def sample(self, bag: Bag, now_ns: int) -> np.ndarray | None:
        """The window, int16 ``(samples,)``; ``None`` where its end arrived too long ago or less than 90 % of it was received."""
        end_ns = self._window.end_ns
        if end_ns is None or now_ns - self._arrived_ns > self._max_age_ns + self._chunk_ns:
            return None
        received_ns = sum(until_ns - max(since_ns, end_ns - self._window_ns) for since_ns, until_ns in self._received)
        if received_ns < RECEIVED_SHARE * self._window_ns:
            return None
        samples = resample_window(self._window.read(), self._window.rate_hz, self._rate_hz, self.shape[0])
        return np.clip(np.round(samples * 32768.0), -32768, 32767).astype(np.int16)

    @property
    def _window_ns(self) -> int:
        return round(self._window_s * NANOSECONDS)


SENSES = {"image": Eye, "audio": Ear, "vector": Vector}
"""Kind of modality -> what gives its samples."""
