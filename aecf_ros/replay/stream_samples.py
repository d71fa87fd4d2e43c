"""Samples of one stream of a recording: what the pipeline would have given its encoder at a moment."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Any

import numpy as np

from aecf_ros.core.bundle import ModalityRecord
from aecf_ros.core.types import NANOSECONDS
from aecf_ros.health.stamps import StampCheck
from aecf_ros.modalities.base import Raw
from aecf_ros.modalities.messages import DecodeError, UnknownFormatError
from aecf_ros.modalities.registry import MODALITIES
from aecf_ros.replay.bag.errors import BagError
from aecf_ros.replay.bag.reader import Bag, RecordedMessage

RECEIVED_SHARE = 0.9
"""Share of a window that must have been received: an encoder has to hear more of the label than of the gap."""
_RECENT_MESSAGES = 4


class RejectedMessages:
    """Counts the messages of a stream that cannot be used."""

    def __init__(self) -> None:
        self.count = 0
        self.first = ""

    def add(self, at_s: float, reason: Exception | str) -> None:
        """Count a message ``at_s`` seconds into the recording."""
        self.count += 1
        self.first = self.first or f"the first at {at_s:.2f} s: {reason}"

    def line(self, topic: str) -> list[str]:
        """A line about them; none where all messages could be used."""
        return [f"{topic}: {self.count} messages cannot be used, {self.first}"] if self.count else []


class StreamSamples(ABC):
    """Takes the messages of a stream in log order and gives samples. ``rejected`` counts those that cannot be used."""

    def __init__(self, record: ModalityRecord, max_age_ns: int) -> None:
        self._modality = MODALITIES[record.kind]
        self._evidence = self._modality.evidence(record)
        self._max_age_ns = max_age_ns
        self.record = record
        self.rejected = RejectedMessages()

    @abstractmethod
    def take(self, bag: Bag, recorded: RecordedMessage, info: Any | None) -> None:
        """Take a message, and the info that describes it where its kind needs one."""

    @abstractmethod
    def sample(self, bag: Bag, now_ns: int) -> np.ndarray | None:
        """The sample at log time ``now_ns``, as datasets store it; ``None`` where there is none that is recent."""

    def _decode(self, bag: Bag, recorded: RecordedMessage, info: Any | None) -> tuple[Raw, int] | None:
        """A message's record, decoded, and the ns that it spans; ``None`` if it cannot be used."""
        try:
            raw = self._modality.read(bag.deserialize(recorded), info, recorded.log_ns)
            return raw, self._evidence.decode(raw)
        except (BagError, DecodeError, UnknownFormatError) as error:
            self.rejected.add(bag.seconds(recorded), error)
            return None


class NewestMessage(StreamSamples):
    """Samples of a kind whose messages are samples: the newest one, decoded only when a moment asks for it."""

    def __init__(self, record: ModalityRecord, max_age_ns: int) -> None:
        super().__init__(record, max_age_ns)
        self._recent: deque[tuple[RecordedMessage, Any]] = deque(maxlen=_RECENT_MESSAGES)
        self._decoded: RecordedMessage | None = None

    def take(self, bag: Bag, recorded: RecordedMessage, info: Any | None) -> None:
        self._recent.append((recorded, info))

    def sample(self, bag: Bag, now_ns: int) -> np.ndarray | None:
        while self._recent and now_ns - self._recent[-1][0].log_ns <= self._max_age_ns:
            recorded, info = self._recent[-1]
            if recorded is not self._decoded:
                if self._decode(bag, recorded, info) is None:
                    self._recent.pop()  # as in the pipeline, the message before is then the newest evidence
                    continue
                self._evidence.keep()
                self._decoded = recorded
            return self._modality.stored(self._evidence.sample())
        return None


class AssembledWindow(StreamSamples):
    """Samples of a kind that assembles them from many messages, such as sound: the window that ends with the newest.

    There is no sample where less than 90 % of the window was received.
    """

    def __init__(self, record: ModalityRecord, max_age_ns: int) -> None:
        super().__init__(record, max_age_ns)
        self._stamps = StampCheck()
        self._arrived_ns = self._span_ns = 0

    def take(self, bag: Bag, recorded: RecordedMessage, info: Any | None) -> None:
        if (decoded := self._decode(bag, recorded, info)) is None:
            return
        raw, span_ns = decoded
        # A clock that is ahead or behind harms no window, so only what would tear one is a fault here.
        verdict = self._stamps.check(raw.stamp_ns, recorded.log_ns, same_content=False, tolerance_s=0.0)
        if verdict.fault and not verdict.jumped:
            self.rejected.add(bag.seconds(recorded), verdict.fault)
            return
        if verdict.jumped:
            self._evidence.clear()
        self._evidence.keep()
        self._arrived_ns, self._span_ns = recorded.log_ns, span_ns

    def sample(self, bag: Bag, now_ns: int) -> np.ndarray | None:
        too_old = now_ns - self._arrived_ns > self._max_age_ns + self._span_ns
        if self._evidence.stamp_ns is None or too_old:
            return None
        if self._evidence.received_ns < RECEIVED_SHARE * round(self.record.span_s * NANOSECONDS):
            return None
        return self._modality.stored(self._evidence.sample())


def stream_samples(record: ModalityRecord, max_age_ns: int) -> StreamSamples:
    """What gives the samples of a modality; none of evidence older than ``max_age_ns``."""
    accumulates = MODALITIES[record.kind].evidence.accumulates
    return (AssembledWindow if accumulates else NewestMessage)(record, max_age_ns)
