"""Whether messages are lost more often than now and then: a cumulative sum over the gaps in their stamps."""

from __future__ import annotations

import math

_USUAL = 0.1
"""Share of the limit that is usual: where a quarter is too much, one in forty is not."""
_ALARM = 13.0
"""At 1 % of random loss this is reached once in 10^8 messages; a fifth of loss takes some 50."""
_MOST = 2
"""A gap counts for so many losses at most: one long gap is a hiccup of the link."""


class LossScore:
    """The log-likelihood of ``max_lost`` against a tenth of it, from where it is greatest (Page, "Continuous inspection schemes", 1954).

    A few losses close together and a mild share of losses over a longer time both reach the limit. Not thread-safe.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Start anew."""
        self._score, self._lost, self._messages = 0.0, 0, 0

    def add(self, missing: int, max_lost: float) -> str | None:
        """Take one message and how many are missing in front of it; words where a loss just now made it too many."""
        if not 0 < max_lost < 1:
            self.clear()
            return None
        usual = _USUAL * max_lost
        self._score += min(missing, _MOST) * math.log(max_lost / usual) - math.log((1 - usual) / (1 - max_lost))
        self._lost, self._messages = self._lost + missing, self._messages + 1 + missing
        if self._score <= 0:
            self.clear()
        if self._score < _ALARM:
            return None
        self._score = _ALARM
        return f"{self._lost} of {self._messages} messages lost, by their stamps" if missing else None
