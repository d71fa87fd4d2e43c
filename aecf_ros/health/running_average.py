"""Running average of a measurement, as the normal of one stream."""

from __future__ import annotations

from typing import Generic, TypeVar

import numpy as np

from aecf_ros.core.types import NANOSECONDS

Value = TypeVar("Value", float, np.ndarray)


class RunningAverage(Generic[Value]):
    """Mean of the first seconds, then an exponential average over ``memory_s``, of numbers or arrays."""

    def __init__(self, settle_s: float = 3.0, memory_s: float = 30.0) -> None:
        self._settle_s, self._memory_s = settle_s, memory_s
        self._value: Value | None = None
        self._age_s = 0.0
        self._last_ns: int | None = None

    @property
    def value(self) -> Value | None:
        """The average, ``None`` before ``settle_s`` of data."""
        return self._value if self._age_s >= self._settle_s else None

    def add(self, value: Value, now_ns: int, unusual: bool) -> None:
        """Add a measurement at steady time ``now_ns``; one that is ``unusual`` counts for a twentieth."""
        step_s = 0.0 if self._last_ns is None else min((now_ns - self._last_ns) / NANOSECONDS, 0.5)
        self._last_ns = now_ns
        if self._value is None:
            self._value = value
            return
        share = step_s / min(self._age_s + step_s, self._memory_s) if step_s > 0 else 0.0
        self._value = self._value + share * (0.05 if unusual else 1.0) * (value - self._value)
        self._age_s += step_s
