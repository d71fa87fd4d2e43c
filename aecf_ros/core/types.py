"""Records shared by all packages. Frozen; units are in the names.

There are two clocks, which are never mixed:

* *node time* (``stamp_ns``, ``received_ns``): the time of header stamps; under ``use_sim_time`` it is ``/clock``.
* *steady time* (``now_ns``): never goes backward, measures silence. In a replay both are the log time of the bag.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

NANOSECONDS = 1_000_000_000


class StreamState(IntEnum):
    """Health of one stream; the numbers are the constants of ``aecf_msgs/ModalityReport``."""

    WAITING = 0
    OK = 1
    LATE = 2
    DEGRADED = 3
    STALE = 4
    DROPPED = 5
    FROZEN = 6
    REJECTED = 7
    CLOCK_FAULT = 8

    @property
    def feeds_fusion(self) -> bool:
        """Whether a stream in this state may enter the presence mask."""
        return self in (StreamState.OK, StreamState.LATE, StreamState.DEGRADED)


@dataclass(frozen=True, slots=True)
class RawImage:
    """An undecoded image message.

    ``encoding`` is a ``sensor_msgs`` encoding (``rgb8``, ``mono8``, ...) or the compressed format (``jpeg``, ``png``);
    compressed images have ``height == width == step == 0``. ``data`` is any buffer. ``frame_id`` is that of the header.
    """

    stamp_ns: int
    received_ns: int
    encoding: str
    height: int
    width: int
    step: int
    data: bytes | bytearray | memoryview | np.ndarray
    big_endian: bool = False
    frame_id: str = ""


@dataclass(frozen=True, slots=True)
class RawAudio:
    """An undecoded PCM message; ``stamp_ns`` is the time of its first sample.

    ``headless``: the message had no header, so that the stamp is computed from its arrival.
    """

    stamp_ns: int
    received_ns: int
    sample_format: str
    rate_hz: int
    channels: int
    data: bytes | bytearray | memoryview | np.ndarray
    coding: str = "wave"
    headless: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """A decoded image: uint8 ``(height, width, 3)`` RGB."""

    stamp_ns: int
    received_ns: int
    image: np.ndarray


@dataclass(frozen=True, slots=True)
class AudioChunk:
    """Decoded audio: float32 ``(samples,)`` mono in [-1, 1]; ``stamp_ns`` is the time of its first sample."""

    stamp_ns: int
    received_ns: int
    rate_hz: int
    samples: np.ndarray

    @property
    def end_ns(self) -> int:
        """Node time just after the last sample."""
        return self.stamp_ns + len(self.samples) * NANOSECONDS // self.rate_hz


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """Health of one stream at one time.

    ``silent_s`` is the steady time since the last good sample, ``None`` before the first. ``rate_hz`` is measured over
    the last arrivals, ``None`` until there are two; ``usual_rate_hz`` is the learned rate. ``age_s`` is the age of the
    newest data at its arrival, ``None`` for messages without a header (``headless``).
    ``stale_after_s`` and ``dropped_after_s`` are the silences in force, which grow with the learned period.
    """

    name: str
    state: StreamState
    reason: str
    silent_s: float | None
    rate_hz: float | None
    received: int
    rejected: int
    usual_rate_hz: float | None
    age_s: float | None
    stale_after_s: float
    dropped_after_s: float
    headless: bool


@dataclass(frozen=True, slots=True)
class ModalityReport:
    """Contribution of one modality to a prediction.

    ``label`` and ``confidence`` are those of the modality alone, empty and 0 if it was not used. ``evidence_stamp_ns``
    is the node time of the evidence: the stamp of a frame, or the end of an audio window.
    """

    name: str
    state: StreamState
    used: bool
    gate_weight: float
    evidence_stamp_ns: int | None
    label: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """One calibrated prediction. ``probabilities``: float32 ``(classes,)``; ``stamp_ns``: of the newest evidence."""

    stamp_ns: int
    model: str
    label: str
    class_id: int
    confidence: float
    probabilities: np.ndarray
    prediction_set: tuple[str, ...]
    coverage: float
    agreement: float
    gate_entropy: float
    abstain: bool
    abstain_reason: str
    modalities: tuple[ModalityReport, ...]

    @property
    def subset(self) -> str:
        """Name of the modalities that were used, for example ``camera+audio`` or ``none``."""
        return subset_name([m.name for m in self.modalities], [m.used for m in self.modalities])


def subset_name(names: Sequence[str], present: Sequence[bool]) -> str:
    """Name of a subset of modalities: those present, joined by ``+`` in order; ``none`` for the empty subset.

    >>> subset_name(["camera", "audio"], [True, True]), subset_name(["camera", "audio"], [False, False])
    ('camera+audio', 'none')
    """
    return "+".join(name for name, used in zip(names, present, strict=True) if used) or "none"
