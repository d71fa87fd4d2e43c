"""How regularly messages come: the period learned from the stream itself, its rate, its losses and its jitter."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import median_low

from aecf_ros.core.types import NANOSECONDS
from aecf_ros.health.jitter import JitterScore
from aecf_ros.health.packet_loss import LossScore
from aecf_ros.health.thresholds import StreamThresholds

ASSUMED_PERIOD_NS = NANOSECONDS // 5
"""Taken for the period of a camera until it is learned: the slowest that the defaults are made for."""
MIN_PERIOD_NS, MAX_PERIOD_NS = NANOSECONDS // 500, NANOSECONDS
JITTER_FLOOR_NS = NANOSECONDS // 50
"""A busy machine delays a callback by this much; no fault of the stream."""

_LEARNED = 32
_LEARN_AFTER = 4
_WINDOW_NS = round(0.6 * NANOSECONDS)
_WINDOW_SLOTS = (16, 60)
_FOLLOW = 0.02
_ACCEPT_SLOWER_NS = 300 * NANOSECONDS
_CLEAN_SAMPLES = (3, 5, 10, 20)
"""Messages in a row that end a complaint: the more the oftener it has come back within ``_RELAPSE_MESSAGES``."""
_RELAPSE_MESSAGES = 48
_FORGET_AFTER, _FORGET_AFTER_NS = 8, round(0.3 * NANOSECONDS)
_LONG_IN_A_ROW = 4
_STAMP_JITTER = 0.2
"""Stamps may be this part of a period too close and still have a message missing between them."""


@dataclass(frozen=True, slots=True)
class _Arrival:
    """One message and the sum of spans up to it, so that any stretch is judged by its two ends."""

    now_ns: int
    stamp_ns: int
    span_sum_ns: int


class Cadence:
    """Learns the period of one stream and compares the last 0.6 s (at least 16 messages) with it. Not thread-safe.

    Losses are judged by :class:`LossScore`, jitter by :class:`JitterScore`.

    The period is the median of the last 32 intervals between arrivals; for audio it is the length of the chunks. Once
    learned it follows small changes within seconds, and a stream that became much slower only over minutes, so that
    being slow is not forgotten while it lasts.
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
        self._losses = LossScore()
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
        """(kind, words) of what is wrong with the pace, ``None`` if nothing is."""
        return self._complaint

    def pause(self) -> None:
        """Forget what was just measured, because something else explains it, but not the learned period."""
        self._recent.clear()
        self._jitter.clear()
        if self._complaint is not None:
            self._complaint, self._since_complaint = None, 0
        self._long_in_a_row = 0

    def resume(self) -> None:
        """The stream is good again: judge it by what comes from now on."""
        self._keep(1)

    def restart(self) -> None:
        """Forget the stream: what comes next may have another period."""
        self.pause()
        self._losses.clear()
        self._relapses, self._since_complaint = 0, _RELAPSE_MESSAGES
        self._intervals_ns.clear()
        self._last_ns, self._last_stamp_ns, self._nominal_ns, self._span_ns = None, None, None, 0

    def arrive(self, now_ns: int, stamp_ns: int | None, span_ns: int, thresholds: StreamThresholds) -> None:
        """A message arrived at steady time ``now_ns`` with a stamp in node time and, for audio, its length.

        ``stamp_ns`` is ``None`` where the stamp says nothing of the journey; the message then counts as evenly sent.
        """
        self._lost = self._losses.add(self._missing(stamp_ns), thresholds.max_lost)
        self._span_ns = span_ns
        if self._last_ns is not None:
            interval_ns = now_ns - self._last_ns
            if (
                stamp_ns is not None
                and self._last_stamp_ns is not None
                and 4 * interval_ns < stamp_ns - self._last_stamp_ns
            ):
                interval_ns = stamp_ns - self._last_stamp_ns  # a backlog that comes at once was not sent at once
            self._intervals_ns.append(interval_ns)
            if self._complaint is None or self._complaint[0] != "jitter":  # bursts say nothing of the period
                self._learn(interval_ns)
        self._last_ns, self._last_stamp_ns = now_ns, stamp_ns
        if stamp_ns is None:
            stamp_ns = now_ns if not self._recent else self._recent[-1].stamp_ns + now_ns - self._recent[-1].now_ns
        clean = self._remember(now_ns, stamp_ns, span_ns, thresholds)
        self._judge(clean, thresholds)

    def _missing(self, stamp_ns: int | None) -> int:
        """How many messages lie between the last one and one of this stamp, 0 where nothing tells."""
        if stamp_ns is None or self._last_stamp_ns is None or self._nominal_ns is None or not self._recent:
            return 0
        more = (stamp_ns - self._last_stamp_ns - (self._span_ns or self._nominal_ns)) / self._nominal_ns
        return max(0, math.floor(more + _STAMP_JITTER))

    def _learn(self, interval_ns: int) -> None:
        if len(self._intervals_ns) < _LEARN_AFTER:
            return
        # Messages that come in bursts have a median interval of nothing; their mean tells.
        found_ns = max(float(median_low(self._intervals_ns)), 0.8 * sum(self._intervals_ns) / len(self._intervals_ns))
        if self._span_ns and found_ns > 0.7 * self._span_ns:
            found_ns = (
                self._span_ns
                if self._nominal_ns is None or len(self._intervals_ns) < _LEARNED
                else self._nominal_ns + _FOLLOW * (self._span_ns - self._nominal_ns)
            )
            self._nominal_ns = found_ns
        elif self._nominal_ns is None or len(self._intervals_ns) < _LEARNED:
            self._nominal_ns = found_ns
        else:
            slower = found_ns > 1.25 * self._nominal_ns
            pace = min(1.0, interval_ns / _ACCEPT_SLOWER_NS) if slower else _FOLLOW
            self._nominal_ns += pace * (found_ns - self._nominal_ns)
        self._last_known_ns = self.period_ns

    def _remember(self, now_ns: int, stamp_ns: int, span_ns: int, thresholds: StreamThresholds) -> bool:
        """Add to the window; gives whether this message came as it should."""
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
        if (
            self._complaint is not None and self._complaint[0] == "jitter"
        ):  # small changes come by chance, the usual transit time seldom does
            transit_ns = now_ns - stamp_ns - min(one.now_ns - one.stamp_ns for one in self._recent)
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
            self._keep(self._clean + 1)  # what was wrong before is over
        if self._nominal_ns is None:
            return
        found = self._find(thresholds)
        if found is not None and self._complaint is None:
            again = self._since_complaint < _RELAPSE_MESSAGES
            self._relapses = min(self._relapses + 1, len(_CLEAN_SAMPLES) - 1) if again else 0
        self._complaint = found or self._complaint

    def _keep(self, count: int) -> None:
        while len(self._recent) > count:
            self._recent.popleft()

    def _find(self, thresholds: StreamThresholds) -> tuple[str, str] | None:
        # Losses at random make four doubled intervals in a row once in 10^8 messages; half the rate makes no others.
        found = self._compare(_LONG_IN_A_ROW, thresholds) if self._is_regularly_slow() else None
        if found is None and self._lost is not None:
            found = "lost", self._lost
        slots = min(max(math.ceil(_WINDOW_NS / self._usual_ns), _WINDOW_SLOTS[0]), _WINDOW_SLOTS[1])
        if found is None and len(self._recent) > slots:
            found = self._compare(slots, thresholds)
        if found is None and self._unsteady is not None:
            found = "jitter", self._unsteady
        return found

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
