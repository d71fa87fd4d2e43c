"""Health of one stream as a state machine that is told the time.

``StreamMonitor.update(event, now_ns)`` takes what happened and the steady time, and gives the status. It holds no clock, so
a test is a story and a replay is exact. Faults need ``recover_samples`` good samples in a row before the stream is trusted
again (hysteresis), and a single undecodable message among good ones is counted but does not switch a stream off.
"""
from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from aecf_ros.core.types import NANOSECONDS, StreamState, StreamStatus


@dataclass(frozen=True, slots=True)
class StreamThresholds:
    """When silence becomes a fault and what ends one.

    ``stale_after_s`` should be a few periods of the slowest stream expected; ``reject_after`` counts messages in a row.
    """

    stale_after_s: float = 0.35
    dropped_after_s: float = 1.0
    recover_samples: int = 3
    reject_after: int = 3

    def __post_init__(self) -> None:
        if not 0 < self.stale_after_s <= self.dropped_after_s:
            raise ValueError(f"stale_after_s {self.stale_after_s} and dropped_after_s {self.dropped_after_s}: "
                             "need 0 < stale_after_s <= dropped_after_s")
        if self.recover_samples < 1 or self.reject_after < 1:
            raise ValueError(f"recover_samples {self.recover_samples} and reject_after {self.reject_after} must be at least 1")

    @property
    def stale_after_ns(self) -> int:
        """``stale_after_s`` in whole nanoseconds, in which silence is compared: a float would not end exactly where it was announced."""
        return round(self.stale_after_s * NANOSECONDS)

    @property
    def dropped_after_ns(self) -> int:
        """``dropped_after_s`` in whole nanoseconds."""
        return round(self.dropped_after_s * NANOSECONDS)


@dataclass(frozen=True, slots=True)
class SampleReceived:
    """A message arrived and decoded."""


@dataclass(frozen=True, slots=True)
class SampleRejected:
    """A message arrived and could not be used."""

    reason: str


@dataclass(frozen=True, slots=True)
class PublishersMatched:
    """The middleware says how many publishers the stream has now."""

    count: int


@dataclass(frozen=True, slots=True)
class TimePassed:
    """Nothing happened; only time went by."""


StreamEvent = SampleReceived | SampleRejected | PublishersMatched | TimePassed

_ARRIVALS = 33
_GONE = "its last publisher is gone"


class StreamMonitor:
    """Decides the state of one stream. Not thread-safe: one owner calls it."""

    def __init__(self, name: str, thresholds: StreamThresholds) -> None:
        self.name = name
        self.thresholds = thresholds
        self._state = StreamState.WAITING
        self._reason = "nothing received yet"
        self._last_good_ns: int | None = None
        self._last_arrival_ns: int | None = None
        self._arrivals_ns: deque[int] = deque(maxlen=_ARRIVALS)
        self._good_in_a_row = 0
        self._bad_in_a_row = 0
        self._received = 0
        self._rejected = 0
        self._had_publisher = False
        self._publisher_gone = False

    def update(self, event: StreamEvent, now_ns: int) -> StreamStatus:
        """Take one event at steady time ``now_ns`` and give the status after it."""
        self._notice_silence(now_ns)
        match event:
            case SampleReceived():
                self._accept(now_ns)
            case SampleRejected(reason):
                self._reject(reason, now_ns)
            case PublishersMatched(count):
                self._match(count)
            case TimePassed():
                pass
        return self.status(now_ns)

    def status(self, now_ns: int) -> StreamStatus:
        """The status as of the last update, with the silence counted to ``now_ns``."""
        return StreamStatus(
            name=self.name, state=self._state, reason=self._reason, silent_s=self._silent_s(now_ns), rate_hz=self._rate_hz(),
            received=self._received, rejected=self._rejected)

    def is_live(self, now_ns: int) -> bool:
        """Whether good samples keep arriving, even while hysteresis still withholds trust."""
        return self._last_good_ns is not None and not self._publisher_gone and now_ns - self._last_good_ns <= self.thresholds.stale_after_ns

    def next_change_ns(self) -> int | None:
        """Steady time at which silence alone will change the state, ``None`` if it will not."""
        since_ns, limit_ns = self._last_good_ns, self.thresholds.stale_after_ns
        if self._state is StreamState.REJECTED:
            since_ns, limit_ns = self._last_arrival_ns, self.thresholds.dropped_after_ns
        elif self._state is StreamState.STALE:
            limit_ns = self.thresholds.dropped_after_ns
        if since_ns is None or self._state is StreamState.DROPPED:
            return None
        return since_ns + limit_ns + 1

    def _silent_s(self, now_ns: int) -> float | None:
        return None if self._last_good_ns is None else (now_ns - self._last_good_ns) / NANOSECONDS

    def _rate_hz(self) -> float | None:
        if len(self._arrivals_ns) < 2:
            return None
        span_ns = self._arrivals_ns[-1] - self._arrivals_ns[0]
        return (len(self._arrivals_ns) - 1) * NANOSECONDS / span_ns if span_ns > 0 else None

    def _notice_silence(self, now_ns: int) -> None:
        if self._state is StreamState.REJECTED:
            # Messages do arrive; that they are unusable says more than that good ones are missing.
            if self._last_arrival_ns is None or now_ns - self._last_arrival_ns <= self.thresholds.dropped_after_ns:
                return
        elif self._last_good_ns is None or now_ns - self._last_good_ns <= self.thresholds.stale_after_ns:
            return
        self._good_in_a_row = 0
        self._arrivals_ns.clear()
        if self._publisher_gone:
            self._state, self._reason = StreamState.DROPPED, _GONE
        elif self._last_good_ns is None or now_ns - self._last_good_ns > self.thresholds.dropped_after_ns:
            self._state, self._reason = StreamState.DROPPED, f"no new sample for {self.thresholds.dropped_after_s:g} s"
        elif self._state is not StreamState.DROPPED:
            self._state, self._reason = StreamState.STALE, f"no new sample for {self.thresholds.stale_after_s:g} s"

    def _accept(self, now_ns: int) -> None:
        self._received += 1
        self._bad_in_a_row = 0
        self._good_in_a_row += 1
        self._last_good_ns = self._last_arrival_ns = now_ns
        self._arrivals_ns.append(now_ns)
        first = self._state is StreamState.WAITING
        if first or self._good_in_a_row >= self.thresholds.recover_samples:
            self._state, self._reason = StreamState.OK, ""
        elif self._state is not StreamState.OK:
            self._reason = f"recovering: {self._good_in_a_row} of {self.thresholds.recover_samples} good samples"

    def _reject(self, reason: str, now_ns: int) -> None:
        self._last_arrival_ns = now_ns
        self._received += 1
        self._rejected += 1
        self._bad_in_a_row += 1
        self._good_in_a_row = 0
        if self._state is StreamState.WAITING or self._bad_in_a_row >= self.thresholds.reject_after:
            self._state, self._reason = StreamState.REJECTED, reason
        elif self._state is StreamState.OK:
            self._reason = f"last message rejected: {reason}"

    def _match(self, count: int) -> None:
        self._publisher_gone = count == 0 and self._had_publisher
        self._had_publisher = self._had_publisher or count > 0
        if self._publisher_gone and self._state is not StreamState.WAITING:
            self._state, self._reason = StreamState.DROPPED, _GONE
            self._good_in_a_row = 0
