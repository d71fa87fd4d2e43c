"""Reading and decoding ``aecf_msgs/EmbeddingStamped``: a vector that another program computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from aecf_ros.modalities.messages import DecodeError, stamp_to_ns


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
    return RawVector(stamp_to_ns(message.header.stamp), received_ns, message.values)


def decode_vector(values: Any, dim: int) -> np.ndarray:
    """Numbers as an encoder takes them: float32 ``(dim,)``.

    Raises:
        DecodeError: they are not so many, or one of them is not finite.
    """
    vector = np.array(values, np.float32)
    if vector.shape != (dim,):
        raise DecodeError(
            f"a vector of {' x '.join(map(str, vector.shape))} numbers where {dim} are due; check the "
            f"publisher and the model"
        )
    if not np.isfinite(vector).all():
        raise DecodeError(
            f"{int((~np.isfinite(vector)).sum())} of {dim} numbers are NaN or infinite; check what computes them"
        )
    return vector
