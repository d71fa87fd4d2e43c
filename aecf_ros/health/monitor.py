"""Health of one stream, as a state machine.

``StreamMonitor.take(event, now_ns)`` takes an event and the steady time, and returns the state. It has no clock of its
own, so that a replay is exact. If several things are wrong, the state is the first of: silence, CLOCK_FAULT, FROZEN,
DEGRADED, LATE. A state that does not feed the fusion ends after ``recover_samples`` good samples in a row (hysteresis).
A single undecodable message among good ones is counted but does not change the state.
"""

from __future__ import annotations

from dataclasses import dataclass

from aecf_ros.core.types import NANOSECONDS, StreamState, StreamStatus
from aecf_ros.health.cadence import Cadence
from aecf_ros.health.content import Content
from aecf_ros.health.stamps import GOOD, StampCheck, StampVerdict
from aecf_ros.health.thresholds import StreamThresholds

__all__ = [
    "PublishersMatched",
    "SampleReceived",
    "SampleRejected",
    "StreamEvent",
    "StreamMonitor",
    "StreamThresholds",
    "TimePassed",
]


@dataclass(frozen=True, slots=True)
class SampleReceived:
    """A message arrived and decoded.

    ``stamp_ns`` and ``received_ns`` are node time. ``span_ns`` is the duration of an audio chunk. ``headless``: the
    message has no header, so no stamp of its own. ``content``: measurements of its content, ``None`` if there are none.
    """

    stamp_ns: int
    received_ns: int
    span_ns: int = 0
    headless: bool = False
    content: Content | None = None


@dataclass(frozen=True, slots=True)
class SampleRejected:
    """A message arrived and could not be used."""

    reason: str


@dataclass(frozen=True, slots=True)
class PublishersMatched:
    """The middleware reported the number of publishers of the stream."""

    count: int


@dataclass(frozen=True, slots=True)
class TimePassed:
    """Time passed without a message."""


StreamEvent = SampleReceived | SampleRejected | PublishersMatched | TimePassed

STALE_PERIODS = 5
"""Four lost messages in a row are not yet silence: at 1 % packet loss they occur once in 10^8 messages."""
DROPPED_PERIODS = 10
FROZEN_MESSAGES = 4
CLEAN_SAMPLES = 3
LATE_SAMPLES = 3

_GONE = "its last publisher is gone"
_SHOWN_BY_MESSAGES = (StreamState.REJECTED, StreamState.CLOCK_FAULT, StreamState.FROZEN)


@dataclass(slots=True)
class _Suspicion:
    """One kind of complaint: when it began, and for how many samples it has been absent."""

    since_ns: int
    text: str
    confirmed: bool = False
    clean: int = 0


class StreamMonitor:
    """State machine of one stream. ``thresholds`` may be replaced at any time. Not thread-safe."""

    def __init__(self, name: str, thresholds: StreamThresholds) -> None:
        self.name = name
        self.thresholds = thresholds
        self._state = StreamState.WAITING
        self._reason = "nothing received yet"
        self._cadence = Cadence()
        self._stamps = StampCheck()
        self._verdict = GOOD
        self._last_good_ns: int | None = None
        self._last_arrival_ns: int | None = None
        self._silent = False
        self._silence = ""
        self._good_in_a_row = 0
        self._bad_in_a_row = 0
        self._repeats_since_ns: int | None = None
        self._repeats = 0
        self._late = False
        self._late_in_a_row = 0
        self._suspicions: dict[str, _Suspicion] = {}
        self._received = 0
        self._rejected = 0
        self._headless = False
        self._age_s: float | None = None
        self._had_publisher = False
        self._publisher_gone = False

    @property
    def stale_after_ns(self) -> int:
        """Silence that makes the stream STALE: the threshold or five learned periods, whichever is longer."""
        return max(self.thresholds.stale_after_ns, STALE_PERIODS * self._cadence.period_ns)

    @property
    def dropped_after_ns(self) -> int:
        """Silence that makes the stream DROPPED: the threshold or ten learned periods, whichever is longer."""
        return max(self.thresholds.dropped_after_ns, DROPPED_PERIODS * self._cadence.period_ns)

    @property
    def period_ns(self) -> int | None:
        """The learned period, kept while the stream is silent; ``None`` before it is learned."""
        return self._cadence.last_known_ns

    @property
    def suspicious(self) -> bool:
        """Whether there is a complaint about the content, confirmed or not."""
        return bool(self._suspicions)

    @property
    def verdict(self) -> StampVerdict:
        """Check of the last sample's stamp. Do not buffer a sample whose stamp is faulty."""
        return self._verdict

    def take(self, event: StreamEvent, now_ns: int) -> StreamState:
        """Take one event at steady time ``now_ns`` and return the state after it."""
        self._notice_silence(now_ns)
        match event:
            case SampleReceived():
                self._accept(event, now_ns)
            case SampleRejected(reason):
                self._reject(reason, now_ns)
            case PublishersMatched(count):
                self._match(count)
            case TimePassed():
                pass
        return self._state

    @property
    def age_s(self) -> float | None:
        """Age of the newest data at its arrival, ``None`` for messages without a header."""
        return self._age_s

    def status(self, now_ns: int) -> StreamStatus:
        """The status after the last event, with the silence counted up to ``now_ns``."""
        silent_s = None if self._last_good_ns is None else (now_ns - self._last_good_ns) / NANOSECONDS
        return StreamStatus(
            name=self.name,
            state=self._state,
            reason=self._reason,
            silent_s=silent_s,
            rate_hz=self._cadence.rate_hz,
            received=self._received,
            rejected=self._rejected,
            usual_rate_hz=self._cadence.nominal_hz,
            age_s=self._age_s,
            stale_after_s=self.stale_after_ns / NANOSECONDS,
            dropped_after_s=self.dropped_after_ns / NANOSECONDS,
            headless=self._headless,
        )

    def is_live(self, now_ns: int) -> bool:
        """Whether good samples keep arriving, even if the stream has not yet recovered."""
        if self._last_good_ns is None or self._silent or self._publisher_gone:
            return False
        return now_ns - self._last_good_ns <= self.stale_after_ns

    def next_change_ns(self) -> int | None:
        """Steady time at which silence alone will change the state, ``None`` if it will not."""
        since_ns, limit_ns = self._last_good_ns, self.stale_after_ns
        if self._state in _SHOWN_BY_MESSAGES:
            since_ns, limit_ns = self._last_arrival_ns, self.dropped_after_ns
        elif self._state is StreamState.STALE:
            limit_ns = self.dropped_after_ns
        if since_ns is None or self._state is StreamState.DROPPED:
            return None
        return since_ns + limit_ns + 1

    def _notice_silence(self, now_ns: int) -> None:
        if self._state in _SHOWN_BY_MESSAGES:
            # Messages do arrive; why they are unusable says more than that good ones are missing.
            if self._last_arrival_ns is None or now_ns - self._last_arrival_ns <= self.dropped_after_ns:
                return
            self._drop(
                _GONE if self._publisher_gone else f"no new sample for {self.dropped_after_ns / NANOSECONDS:.3g} s"
            )
            return
        if self._last_good_ns is None or now_ns - self._last_good_ns <= self.stale_after_ns:
            return
        self._silent = True
        self._good_in_a_row = 0
        self._cadence.pause()
        if self._publisher_gone:
            self._drop(_GONE)
        elif now_ns - self._last_good_ns > self.dropped_after_ns:
            # Worded once: dropping the stream forgets its period, and with it the limit.
            self._silence = self._silence or f"no new sample for {self.dropped_after_ns / NANOSECONDS:.3g} s"
            self._drop(self._silence)
        elif self._state is not StreamState.DROPPED:
            self._state = StreamState.STALE
            self._reason = f"no new sample for {self.stale_after_ns / NANOSECONDS:.3g} s"

    def _drop(self, reason: str) -> None:
        if self._state is not StreamState.DROPPED:
            # The next publisher may be another driver, with another period, clock and picture.
            self._cadence.restart()
            self._stamps.forget()
            self._suspicions.clear()
            self._late, self._late_in_a_row = False, 0
        self._state, self._reason = StreamState.DROPPED, reason
        self._silent = True
        self._good_in_a_row = 0

    def _accept(self, sample: SampleReceived, now_ns: int) -> None:
        self._received += 1
        self._bad_in_a_row = 0
        if self._publisher_gone and self._state is StreamState.DROPPED:  # sent before its publisher left
            return
        self._had_publisher = True  # even if the middleware reports its arrival and departure together
        self._headless = sample.headless
        repeats = sample.content.repeats if sample.content is not None else ""
        frozen = self._note_repetition(repeats, now_ns)
        self._last_arrival_ns = now_ns
        self._verdict = (
            GOOD
            if sample.headless
            else self._stamps.check(
                sample.stamp_ns, sample.received_ns, bool(repeats), self.thresholds.future_tolerance_s
            )
        )
        if self._verdict.fault:
            self._cadence.pause()
            self._fail(StreamState.CLOCK_FAULT, self._verdict.fault)
            return
        dated = not (sample.headless or repeats)
        self._cadence.arrive(now_ns, sample.stamp_ns if dated else None, sample.span_ns, self.thresholds)
        self._note_age(sample)
        self._note_complaints(sample, now_ns)
        if frozen:
            self._fail(StreamState.FROZEN, f"{repeats} for {frozen:.2f} s")
            return
        if repeats and self._state is StreamState.FROZEN:
            self._good_in_a_row = 0
            return
        self._silent = False
        self._silence = ""
        self._last_good_ns = now_ns
        self._good_in_a_row += 1
        trusted = self._state is StreamState.WAITING or self._state.feeds_fusion
        if trusted or self._good_in_a_row >= self.thresholds.recover_samples:
            if not trusted:
                self._cadence.resume()
            self._state, self._reason = self._usable_state()
        else:
            self._reason = f"recovering: {self._good_in_a_row} of {self.thresholds.recover_samples} good samples"

    def _usable_state(self) -> tuple[StreamState, str]:
        complaints = [s.text for s in self._suspicions.values() if s.confirmed]
        if self._cadence.complaint is not None:
            complaints.append(self._cadence.complaint[1])
        if complaints:
            return StreamState.DEGRADED, "; ".join(complaints)
        if self._late:
            return StreamState.LATE, f"{self._age_s:.2f} s old on arrival, {self.thresholds.late_after_s:g} s allowed"
        return StreamState.OK, ""

    def _fail(self, state: StreamState, reason: str) -> None:
        self._state, self._reason = state, reason
        self._good_in_a_row = 0

    def _note_repetition(self, repeats: str, now_ns: int) -> float | None:
        """Seconds for which the content has repeated, if that is a fault, else ``None``."""
        if not repeats:
            self._repeats_since_ns, self._repeats = None, 0
            return None
        if self._repeats_since_ns is None:
            self._repeats_since_ns = now_ns if self._last_arrival_ns is None else self._last_arrival_ns
        self._repeats += 1
        lasted_s = (now_ns - self._repeats_since_ns) / NANOSECONDS
        limit_s = self.thresholds.frozen_after_s
        long = self._lasted_s(self._repeats_since_ns, now_ns) >= limit_s > 0
        return lasted_s if long and self._repeats + 1 >= FROZEN_MESSAGES else None

    def _note_age(self, sample: SampleReceived) -> None:
        self._age_s = None if sample.headless else (sample.received_ns - sample.stamp_ns - sample.span_ns) / NANOSECONDS
        late = self._age_s is not None and 0 < self.thresholds.late_after_s < self._age_s
        self._late_in_a_row = self._late_in_a_row + 1 if late != self._late else 0
        if self._late_in_a_row >= LATE_SAMPLES:
            self._late, self._late_in_a_row = late, 0

    def _note_complaints(self, sample: SampleReceived, now_ns: int) -> None:
        complaints = (
            {c.kind: c for c in sample.content.complaints(self.thresholds)} if sample.content is not None else {}
        )
        for kind in [k for k in self._suspicions if k not in complaints]:
            suspicion = self._suspicions[kind]
            suspicion.clean += 1
            if not suspicion.confirmed or suspicion.clean >= CLEAN_SAMPLES:
                del self._suspicions[kind]
        for kind, complaint in complaints.items():
            suspicion = self._suspicions.setdefault(kind, _Suspicion(now_ns - sample.span_ns, complaint.text))
            suspicion.text, suspicion.clean = complaint.text, 0
            suspicion.confirmed |= (
                complaint.averaged or self._lasted_s(suspicion.since_ns, now_ns) >= self.thresholds.degraded_after_s
            )

    def _lasted_s(self, since_ns: int, now_ns: int) -> float:
        """Duration plus half a period, so that a message slightly early or late makes no difference."""
        return (now_ns - since_ns + self._cadence.period_ns / 2) / NANOSECONDS

    def _reject(self, reason: str, now_ns: int) -> None:
        self._last_arrival_ns = now_ns
        self._received += 1
        self._rejected += 1
        self._bad_in_a_row += 1
        self._good_in_a_row = 0
        if self._state is StreamState.WAITING or self._bad_in_a_row >= self.thresholds.reject_after:
            self._state, self._reason = StreamState.REJECTED, reason
        elif self._state.feeds_fusion:
            self._reason = f"last message rejected: {reason}"

    def _match(self, count: int) -> None:
        self._publisher_gone = count == 0 and self._had_publisher
        self._had_publisher = self._had_publisher or count > 0
        if self._publisher_gone and self._state is not StreamState.WAITING:
            self._drop(_GONE)
