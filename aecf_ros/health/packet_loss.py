"""Detect packet loss: a cumulative sum (CUSUM) over the gaps in the stamps of a stream."""

from __future__ import annotations

import math

_USUAL = 0.1
"""Usual packet loss, as a share of the limit: if the limit is 25 %, 2.5 % is usual."""
_ALARM = 13.0
"""Random packet loss of 1 % reaches this once in 10^8 messages; 20 % reaches it within about 50."""
_MAX_COUNTED = 2
"""Lost messages that one gap counts for at most: a single long gap is a stall of the link."""


class PacketLossScore:
    """Log-likelihood ratio of a loss of ``max_lost`` against a tenth of it, as a CUSUM.

    Page, "Continuous inspection schemes", 1954. A few lost messages close together reach the limit, and so does
    moderate packet loss over a longer time. Not thread-safe.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Restart."""
        self._score, self._lost, self._messages = 0.0, 0, 0

    def add(self, missing: int, max_lost: float) -> str | None:
        """Add one message and the number of messages missing before it.

        Returns:
            A description if messages were lost just now and the loss is too high, else ``None``.
        """
        if not 0 < max_lost < 1:
            self.clear()
            return None
        usual = _USUAL * max_lost
        self._score += min(missing, _MAX_COUNTED) * math.log(max_lost / usual) - math.log((1 - usual) / (1 - max_lost))
        self._lost, self._messages = self._lost + missing, self._messages + 1 + missing
        if self._score <= 0:
            self.clear()
        if self._score < _ALARM:
            return None
        self._score = _ALARM
        return f"{self._lost} of {self._messages} messages lost, by their stamps" if missing else None
