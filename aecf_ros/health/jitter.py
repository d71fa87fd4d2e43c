"""Detect jitter: a cumulative sum (CUSUM) over the changes of the transit time, and a count of delays."""

from __future__ import annotations

from collections import deque

from aecf_ros.core.types import NANOSECONDS

_ALARM, _MAX_COUNTED = 2.5, 4.0
"""Gaussian jitter of a fifth of a period reaches ``_ALARM`` once in 10^9 messages. One change counts for at most
``_MAX_COUNTED``."""
_DELAYS = 2
"""Delays that make jitter. A single one is a stall of the machine, whatever backlog follows."""
_JUMPS, _JUMP = 4, 1.5
"""``_JUMPS`` delays above ``_JUMP`` times the limit are jitter too: within a burst of messages transit times hardly
change, so that the sum stays low."""
_TOGETHER_NS, _TOGETHER_PERIODS = round(0.8 * NANOSECONDS), 8


class JitterScore:
    """CUSUM of how far changes of the transit time (RFC 3550, section 6.4.1) exceed the limit. Not thread-safe."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Restart."""
        self._delays: deque[int] = deque(maxlen=_DELAYS)
        self._jumps: deque[int] = deque(maxlen=_JUMPS)
        self._forget()

    def _forget(self) -> None:
        self._score, self._sum_ns, self._messages = 0.0, 0.0, 0

    def add(self, now_ns: int, later_ns: float, allowed_ns: float, period_ns: float) -> str | None:
        """Add one message whose transit took ``later_ns`` longer than that of the message before.

        Returns:
            A description if the jitter is too high, else ``None``.
        """
        self._score += min(abs(later_ns) / allowed_ns, _MAX_COUNTED) - 1
        self._sum_ns, self._messages = self._sum_ns + abs(later_ns), self._messages + 1
        if self._score <= 0:
            self._forget()
        if later_ns > allowed_ns:
            self._delays.append(now_ns)
        together_ns = max(_TOGETHER_NS, _TOGETHER_PERIODS * period_ns)
        if self._score >= _ALARM and _within(self._delays, now_ns, together_ns):
            self._score = _ALARM
            return f"transit time varies by {self._sum_ns / self._messages / 1e6:.0f} ms from one message to the next"
        if later_ns <= _JUMP * allowed_ns:
            return None
        self._jumps.append(now_ns)
        if _within(self._jumps, now_ns, together_ns):
            lasted_s = (now_ns - self._jumps[0]) / NANOSECONDS
            longer_ms = _JUMP * allowed_ns / 1e6
            return f"{_JUMPS} messages within {lasted_s:.2f} s each took over {longer_ms:.0f} ms longer than the last"
        return None


def _within(times_ns: deque[int], now_ns: int, span_ns: float) -> bool:
    return len(times_ns) == times_ns.maxlen and now_ns - times_ns[0] <= span_ns
