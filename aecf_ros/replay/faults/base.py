"""What a fault does to the messages of one stream: what every effect is given, and what it gives on.

An effect is made for one fault and sees every message of its stream in order, with whether the fault is on; it gives the messages that
go on, each with the time of its delivery. Randomness comes from a generator that is seeded by the fault and the position in the
recording, so that a replay and a live run of the same schedule fail alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

IMAGE, AUDIO, VECTOR = "image", "audio", "vector"
BOTH = (IMAGE, AUDIO)
ALL = (*BOTH, VECTOR)
LAST_SEVERITY = 5


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message to be delivered ``at_s`` seconds into the recording, with the info that describes it (sound only).

    ``source_s`` is where it stands in the recording.
    """

    at_s: float
    message: Any
    info: Any | None
    source_s: float


@dataclass(frozen=True, slots=True)
class Option:
    """A number that says how strong a fault is: its value at severity 1 to 5, the range allowed, the kinds of streams it is for."""

    at_severity: tuple[float, float, float, float, float]
    low: float
    high: float
    streams: tuple[str, ...] = ALL

    def value(self, severity: float) -> float:
        """The value at a severity, interpolated; below 1 it is that of 1."""
        return float(np.interp(severity, range(1, LAST_SEVERITY + 1), self.at_severity))


SHARE = Option((0.2, 0.4, 0.6, 0.8, 1.0), 0, 1)
"""Of the messages, for faults that strike some of them."""


class Effect:
    """One fault at work. ``streams`` are the kinds of streams it can act on, ``stamped`` that it needs messages with a stamp.

    Args:
        options: a value for each of ``OPTIONS``.
        stream_kind: ``image``, ``audio`` or ``vector``.
        end_s: when the fault ends.
    """

    streams: ClassVar[tuple[str, ...]] = ALL
    stamped: ClassVar[bool] = False
    OPTIONS: ClassVar[Mapping[str, Option]] = {}

    def __init__(self, options: Mapping[str, float], stream_kind: str, end_s: float) -> None:
        self.options, self.stream_kind, self.end_s = options, stream_kind, end_s

    def pass_on(self, delivery: Delivery, rng: np.random.Generator | None) -> list[Delivery]:
        """What becomes of a message; ``rng`` is ``None`` while the fault is not on. May keep messages back for later calls."""
        return [delivery] if rng is None else self.strike(delivery, rng)

    def strike(self, delivery: Delivery, rng: np.random.Generator) -> list[Delivery]:
        """What becomes of a message while the fault is on."""
        raise NotImplementedError

    def flush(self) -> list[Delivery]:
        """What is still kept back when the recording ends."""
        return []
