"""What a kind of sensor says of faults in its messages: their options, and how the content of a message changes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

LAST_SEVERITY = 5


@dataclass(frozen=True, slots=True)
class Option:
    """A number that says how strong a fault is: its value at severity 1 to 5, and the range allowed."""

    at_severity: tuple[float, float, float, float, float]
    low: float
    high: float

    def value(self, severity: float) -> float:
        """The value at a severity, interpolated; below 1 it is that of 1."""
        return float(np.interp(severity, range(1, LAST_SEVERITY + 1), self.at_severity))


class ContentFault(ABC):
    """Changes what a message shows, one instance for each fault of a schedule.

    Args:
        options: a value for each of ``OPTIONS``.
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {}

    def __init__(self, options: Mapping[str, float]) -> None:
        self.options = options

    @abstractmethod
    def change(self, content: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The content of a message while the fault is on, changed; of the same shape and dtype."""

    def learns(self) -> bool:
        """Whether :meth:`learn` wants the messages before the fault."""
        return False

    def learn(self, content: np.ndarray) -> None:  # noqa: B027 (most faults learn nothing)
        """Take the content of a message while the fault is not on."""


Malform = Callable[[Any, Any, np.random.Generator], tuple[Any, Any]]
"""(message, info, generator) -> a message that cannot be used, and the info that describes it; copies, nothing is
changed.
"""
