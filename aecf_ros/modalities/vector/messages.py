"""Vectors that somebody else computed (a sentence embedding, a pose, a gas sensor's readings): from the wire to an encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from aecf_ros.core.types import NANOSECONDS
from aecf_ros.health.thresholds import StreamThresholds
from aecf_ros.modalities.content import Complaint, digest
from aecf_ros.modalities.image.decode import DecodeError, as_bytes


@dataclass(frozen=True, slots=True)
class RawVector:
    """A vector as it came off the wire; ``values`` holds its numbers in any buffer or sequence."""

    stamp_ns: int
    received_ns: int
    values: Any


def is_vector(message: Any) -> bool:
    """Whether it is shaped like an ``aecf_msgs/EmbeddingStamped``."""
    return hasattr(message, "values")


def read_vector(message: Any, received_ns: int) -> RawVector:
    """The record of an ``aecf_msgs/EmbeddingStamped``."""
    stamp = message.header.stamp
    return RawVector(stamp.sec * NANOSECONDS + stamp.nanosec, received_ns, message.values)


def decode_vector(values: Any, dim: int) -> np.ndarray:
    """Numbers as an encoder takes them: float32 ``(dim,)``.

    Raises:
        DecodeError: they are not so many, or one of them is not finite.
    """
    found = np.array(values, np.float32)
    if found.shape != (dim,):
        raise DecodeError(
            f"a vector of {' x '.join(map(str, found.shape))} numbers where {dim} are due; check the publisher and the model"
        )
    if not np.isfinite(found).all():
        raise DecodeError(
            f"{int((~np.isfinite(found)).sum())} of {dim} numbers are NaN or infinite; check what computes them"
        )
    return found


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
