"""What a kind of sensor says of the content of a message; the monitor decides how long that must last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from aecf_ros.health.thresholds import StreamThresholds


@dataclass(frozen=True, slots=True)
class Complaint:
    """Something wrong with the content. ``averaged`` says that the measurement itself spans half a second."""

    kind: str
    text: str
    averaged: bool = False


class Content(Protocol):
    """What was measured of one message. ``repeats`` names what it repeats, empty if it is new."""

    @property
    def repeats(self) -> str: ...

    def complaints(self, thresholds: StreamThresholds) -> list[Complaint]:
        """What is wrong with it."""
        ...
