"""How regularly messages arrive: the learned period of a stream, its rate, its packet loss and its jitter."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import median_low

from aecf_ros.core.types import NANOSECONDS
from aecf_ros.health.jitter import JitterScore
from aecf_ros.health.packet_loss import PacketLossScore
from aecf_ros.health.thresholds import StreamThresholds

ASSUMED_PERIOD_NS = NANOSECONDS // 5
"""Period of a camera until it is learned: the longest that the default thresholds are made for."""
MIN_PERIOD_NS, MAX_PERIOD_NS = NANOSECONDS // 500, NANOSECONDS
JITTER_FLOOR_NS = NANOSECONDS // 50
"""Delay of a callback on a busy machine; not a fault of the stream."""

_LEARNED = 32
_LEARN_AFTER = 4
_WINDOW_NS = round(0.6 * NANOSECONDS)
_WINDOW_SLOTS = (16, 60)
_FOLLOW = 0.02
_ACCEPT_SLOWER_NS = 300 * NANOSECONDS
_CLEAN_SAMPLES = (3, 5, 10, 20)
"""Regular messages in a row that end a complaint: more each time it came back within ``_RELAPSE_MESSAGES``."""
_RELAPSE_MESSAGES = 48
_FORGET_AFTER, _FORGET_AFTER_NS = 8, round(0.3 * NANOSECONDS)
_LONG_IN_A_ROW = 4
_STAMP_JITTER = 0.2
"""Tolerance of the interval between stamps, in periods, when missing messages are counted."""


@dataclass(frozen=True, slots=True)
class _Arrival:
    """Arrival of a message, and the sum of the spans up to it: two arrivals give the span of all between them."""

    now_ns: int
    stamp_ns: int
    span_sum_ns: int


class Cadence:
    """Learns the period of one stream and compares the last 0.6 s (at least 16 messages) with it. Not thread-safe.

    Packet loss is judged by :class:`PacketLossScore`, jitter by :class:`JitterScore`.

    The period is the median of the last 32 intervals between arrivals; for audio it is the length of the chunks. Once
    learned, it follows small changes within seconds, but a much slower rate only over minutes, so that a slow stream is
    reported as long as it is slow.
    """

    def __init__(self) -> None:
        self._intervals_ns: deque[int] = deque(maxlen=_LEARNED)
        self._recent: deque[_Arrival] = deque(maxlen=_WINDOW_SLOTS[1] + 1)
        self._last_ns: int | None = None
        self._last_stamp_ns: int | None = None
        self._nominal_ns: float | None = None
        self._span_ns = 0
        self._last_known_ns: int | None = None
        self._complaint: tuple[str, str] | None = None
        self._packet_loss = PacketLossScore()
        self._lost: str | None = None
        self._jitter = JitterScore()
        self._unsteady: str | None = None
        self._clean = 0
        self._long_in_a_row = 0
        self._relapses = 0
        self._since_complaint = _RELAPSE_MESSAGES

    @property
    def period_ns(self) -> int:
        """The learned period within 2 ms to 1 s; before it is learned, a chunk's length or that of a camera of 5 Hz."""
        period_ns = self._nominal_ns or self._span_ns or ASSUMED_PERIOD_NS
        return min(max(round(period_ns), MIN_PERIOD_NS), MAX_PERIOD_NS)

    @property
    def _usual_ns(self) -> float:
        return self._nominal_ns or self.period_ns

    @property
    def last_known_ns(self) -> int | None:
        """The period last learned, also after :meth:`restart`; ``None`` if it never was."""
        return self._last_known_ns

    @property
    def nominal_hz(self) -> float | None:
        """The learned rate, ``None`` before it is learned."""
        return NANOSECONDS / self._nominal_ns if self._nominal_ns else None

    @property
    def rate_hz(self) -> float | None:
        """Messages per second over the last ones, ``None`` until there are two."""
        if len(self._recent) < 2 or (extent_ns := self._recent[-1].now_ns - self._recent[0].now_ns) <= 0:
            return None
        return (len(self._recent) - 1) * NANOSECONDS / extent_ns

    @property
    def complaint(self) -> tuple[str, str] | None:
        """(kind, description) of what is wrong with the arrivals, ``None`` if nothing is."""
        return self._complaint

    def pause(self) -> None:
        """Forget the recent arrivals, which something else explains; keep the learned period."""
        self._recent.clear()
        self._jitter.clear()
        if self._complaint is not None:
            self._complaint, self._since_complaint = None, 0
        self._long_in_a_row = 0

    def resume(self) -> None:
        """Judge the stream by the messages from now on, because it has recovered."""
        self._keep(1)

    def restart(self) -> None:
        """Forget everything: the next publisher may have another period."""
        self.pause()
        self._packet_loss.clear()
        self._relapses, self._since_complaint = 0, _RELAPSE_MESSAGES
        self._intervals_ns.clear()
        self._last_ns, self._last_stamp_ns, self._nominal_ns, self._span_ns = None, None, None, 0

    def arrive(self, now_ns: int, stamp_ns: int | None, span_ns: int, thresholds: StreamThresholds) -> None:
        """Add a message.

        Args:
            now_ns: steady time of its arrival.
            stamp_ns: its stamp in node time; ``None`` if that is not when it was sent, which then counts as regular.
            span_ns: duration of its audio; 0 for other kinds.
            thresholds: limits in force.
        """
        self._lost = self._packet_loss.add(self._missing(stamp_ns), thresholds.max_lost)
        self._span_ns = span_ns
        if self._last_ns is not None:
            interval_ns = now_ns - self._last_ns
            if (
                stamp_ns is not None
                and self._last_stamp_ns is not None
                and 4 * interval_ns < stamp_ns - self._last_stamp_ns
            ):
                interval_ns = stamp_ns - self._last_stamp_ns  # a backlog arrives at once but was sent regularly
            self._intervals_ns.append(interval_ns)
            if self._complaint is None or self._complaint[0] != "jitter":  # bursts do not show the period
                self._learn(interval_ns)
        self._last_ns, self._last_stamp_ns = now_ns, stamp_ns
        if stamp_ns is None:
            stamp_ns = now_ns if not self._recent else self._recent[-1].stamp_ns + now_ns - self._recent[-1].now_ns
        clean = self._remember(now_ns, stamp_ns, span_ns, thresholds)
        self._judge(clean, thresholds)

    def _missing(self, stamp_ns: int | None) -> int:
        """Number of messages lost between the last message and one with this stamp; 0 if unknown."""
        if stamp_ns is None or self._last_stamp_ns is None or self._nominal_ns is None or not self._recent:
            return 0
        more = (stamp_ns - self._last_stamp_ns - (self._span_ns or self._nominal_ns)) / self._nominal_ns
        return max(0, math.floor(more + _STAMP_JITTER))

    def _learn(self, interval_ns: int) -> None:
        if len(self._intervals_ns) < _LEARN_AFTER:
            return
        # In bursts the median interval is near zero; the mean is not.
        observed_ns = max(
            float(median_low(self._intervals_ns)), 0.8 * sum(self._intervals_ns) / len(self._intervals_ns)
        )
        if self._span_ns and observed_ns > 0.7 * self._span_ns:
            observed_ns = (
                self._span_ns
                if self._nominal_ns is None or len(self._intervals_ns) < _LEARNED
                else self._nominal_ns + _FOLLOW * (self._span_ns - self._nominal_ns)
            )
            self._nominal_ns = observed_ns
        elif self._nominal_ns is None or len(self._intervals_ns) < _LEARNED:
            self._nominal_ns = observed_ns
        else:
            slower = observed_ns > 1.25 * self._nominal_ns
            pace = min(1.0, interval_ns / _ACCEPT_SLOWER_NS) if slower else _FOLLOW
            self._nominal_ns += pace * (observed_ns - self._nominal_ns)
        self._last_known_ns = self.period_ns

    def _remember(self, now_ns: int, stamp_ns: int, span_ns: int, thresholds: StreamThresholds) -> bool:
        """Add to the window. Returns whether the message arrived regularly."""
        self._unsteady = None
        period_ns = self._usual_ns
        if not self._recent:
            self._recent.append(_Arrival(now_ns, stamp_ns, span_ns))
            return True
        last = self._recent[-1]
        interval_ns = now_ns - last.now_ns
        later_ns = interval_ns - (stamp_ns - last.stamp_ns)
        transit_ns, allowed_ns = abs(later_ns), self._allowed_jitter_ns(thresholds)
        if transit_ns > max(4 * period_ns, NANOSECONDS // 2):  # a jump of the stamps or of the link, not jitter
            self.pause()
            self._recent.append(_Arrival(now_ns, stamp_ns, span_ns))
            return True
        self._recent.append(_Arrival(now_ns, stamp_ns, last.span_sum_ns + span_ns))
        self._unsteady = self._jitter.add(now_ns, later_ns, allowed_ns, period_ns)
        self._long_in_a_row = self._long_in_a_row + 1 if interval_ns > 1.5 * period_ns else 0
        if self._complaint is not None and self._complaint[0] == "jitter":
            # Small changes happen by chance; the shortest transit time seldom does.
            transit_ns = now_ns - stamp_ns - min(arrival.now_ns - arrival.stamp_ns for arrival in self._recent)
        return (
            interval_ns <= 1.5 * period_ns and stamp_ns - last.stamp_ns <= 1.5 * period_ns and transit_ns <= allowed_ns
        )

    def _allowed_jitter_ns(self, thresholds: StreamThresholds) -> float:
        return max(thresholds.max_jitter * self._usual_ns, JITTER_FLOOR_NS) if thresholds.max_jitter else math.inf

    def _judge(self, clean: bool, thresholds: StreamThresholds) -> None:
        self._clean = self._clean + 1 if clean else 0
        self._since_complaint += 1
        if self._complaint is not None and self._clean >= _CLEAN_SAMPLES[self._relapses]:
            self._complaint, self._since_complaint = None, 0
            self._jitter.clear()
            self._keep(_CLEAN_SAMPLES[0] + 1)
        elif self._complaint is None and self._clean >= max(_FORGET_AFTER, _FORGET_AFTER_NS / self._usual_ns):
            self._keep(self._clean + 1)  # the fault is over
        if self._nominal_ns is None:
            return
        complaint = self._find_complaint(thresholds)
        if complaint is not None and self._complaint is None:
            again = self._since_complaint < _RELAPSE_MESSAGES
            self._relapses = min(self._relapses + 1, len(_CLEAN_SAMPLES) - 1) if again else 0
        self._complaint = complaint or self._complaint

    def _keep(self, count: int) -> None:
        while len(self._recent) > count:
            self._recent.popleft()

    def _find_complaint(self, thresholds: StreamThresholds) -> tuple[str, str] | None:
        # Random packet loss gives four doubled intervals in a row once in 10^8 messages; half the rate gives only such.
        complaint = self._compare(_LONG_IN_A_ROW, thresholds) if self._is_regularly_slow() else None
        if complaint is None and self._lost is not None:
            complaint = "lost", self._lost
        slots = min(max(math.ceil(_WINDOW_NS / self._usual_ns), _WINDOW_SLOTS[0]), _WINDOW_SLOTS[1])
        if complaint is None and len(self._recent) > slots:
            complaint = self._compare(slots, thresholds)
        if complaint is None and self._unsteady is not None:
            complaint = "jitter", self._unsteady
        return complaint

    def _is_regularly_slow(self) -> bool:
        if self._long_in_a_row < _LONG_IN_A_ROW or len(self._recent) <= _LONG_IN_A_ROW:
            return False
        extent_ns = self._recent[-1].now_ns - self._recent[-1 - _LONG_IN_A_ROW].now_ns
        return extent_ns >= 1.75 * _LONG_IN_A_ROW * self._usual_ns

    def _compare(self, slots: int, thresholds: StreamThresholds) -> tuple[str, str] | None:
        first, last, period_ns = self._recent[-1 - slots], self._recent[-1], self._usual_ns
        extent_ns = last.now_ns - first.now_ns
        stamps_ns = last.stamp_ns - first.stamp_ns
        span_ns = last.span_sum_ns - first.span_sum_ns
        missing = (stamps_ns - span_ns) / period_ns if span_ns else stamps_ns / period_ns - slots
        lost = missing / (slots + max(missing, 0.0))
        slow = extent_ns * thresholds.min_rate_ratio > slots * period_ns
        if slow and (self._is_regularly_slow() or not 0 < thresholds.max_lost < lost):
            return "rate", f"{slots * NANOSECONDS / extent_ns:.1f} Hz where {NANOSECONDS / period_ns:.1f} Hz is usual"
        return None
