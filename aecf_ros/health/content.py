"""Measurements of the content of a message; each kind of sensor has its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from aecf_ros.health.thresholds import StreamThresholds


@dataclass(frozen=True, slots=True)
class Complaint:
    """A fault of the content. ``averaged``: the measurement itself spans half a second."""

    kind: str
    text: str
    averaged: bool = False


class Content(Protocol):
    """Measurements of one message."""

    @property
    def repeats(self) -> str:
        """What the message repeats, for example ``the same picture``; empty if its content is new."""
        ...

    def complaints(self, thresholds: StreamThresholds) -> list[Complaint]:
        """Faults of the content."""
        ...
