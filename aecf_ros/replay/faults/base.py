"""What a fault does to the messages of one stream: what every effect is given, and what it gives on.

An effect is made for one fault and sees every message of its stream in order, with whether the fault is on; it gives
the messages that
go on, each with the time of its delivery. Randomness comes from a generator that is seeded by the fault and the
position in the
recording, so that a replay and a live run of the same schedule fail alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from aecf_ros.modalities.faults import Option


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message to be delivered ``at_s`` seconds into the recording, with the info that describes it (sound only).

    ``source_s`` is where it stands in the recording.
    """

    at_s: float
    message: Any
    info: Any | None
    source_s: float


SHARE = Option((0.2, 0.4, 0.6, 0.8, 1.0), 0, 1)
"""Of the messages, for faults that strike some of them."""


class Effect:
    """One fault at work. ``stamped`` says that it needs messages with a stamp.

    Args:
        fault: name of the fault.
        options: a value for each of its options.
        stream_kind: kind of modality that the stream carries.
        end_s: when the fault ends.
    """

    stamped: ClassVar[bool] = False
    OPTIONS: ClassVar[Mapping[str, Option]] = {}

    def __init__(self, fault: str, options: Mapping[str, float], stream_kind: str, end_s: float) -> None:
        self.fault, self.options, self.stream_kind, self.end_s = fault, options, stream_kind, end_s

    @classmethod
    def options_on(cls, fault: str, stream_kind: str) -> Mapping[str, Option] | None:
        """The options of a fault on a kind of stream; ``None`` where it cannot act on it."""
        return cls.OPTIONS

    def pass_on(self, delivery: Delivery, rng: np.random.Generator | None) -> list[Delivery]:
        """What becomes of a message; ``rng`` is ``None`` while the fault is not on. May keep messages back for later
        calls.
        """
        return [delivery] if rng is None else self.strike(delivery, rng)

    def strike(self, delivery: Delivery, rng: np.random.Generator) -> list[Delivery]:
        """What becomes of a message while the fault is on."""
        raise NotImplementedError

    def flush(self) -> list[Delivery]:
        """What is still kept back when the recording ends."""
        return []
