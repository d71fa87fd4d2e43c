"""What a vector says about what computes it: only whether it repeats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aecf_ros.health.content import Complaint
from aecf_ros.health.thresholds import StreamThresholds
from aecf_ros.modalities.messages import as_bytes, digest


@dataclass(frozen=True, slots=True)
class VectorContent:
    """Of a vector only repetition is known: what is usual for its numbers, nobody can say."""

    repeats: str

    def complaints(self, thresholds: StreamThresholds) -> list[Complaint]:
        """None."""
        return []


class VectorWatch:
    """Notices a vector that comes again and again. Not thread-safe."""

    def __init__(self) -> None:
        self._mark: int | None = None

    def look(self, vector: np.ndarray) -> VectorContent:
        """Compare a vector, float32 ``(dim,)``, with the one before."""
        mark, before = digest(as_bytes(vector), whole=True), self._mark
        self._mark = mark
        return VectorContent("the same vector" if mark == before else "")
