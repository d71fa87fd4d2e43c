"""What the kinds share in reading and copying messages: errors, time stamps, buffers, digests."""

from __future__ import annotations

import copy
import zlib
from array import array
from typing import Any

import numpy as np

from aecf_ros.core.types import NANOSECONDS

DIGEST_BYTES = 65_536


class DecodeError(ValueError):
    """A message that cannot be decoded; says what was found and what to do, and carries no stream name."""


def as_bytes(data: object) -> np.ndarray:
    """A flat uint8 view of any buffer, without a copy."""
    return np.frombuffer(memoryview(data).cast("B"), np.uint8)  # type: ignore[arg-type]


class UnknownFormatError(ValueError):
    """Audio came before anything said how to read it."""


def stamp_to_ns(stamp: Any) -> int:
    """Nanoseconds of a ``builtin_interfaces`` Time or Duration."""
    return int(stamp.sec * NANOSECONDS + stamp.nanosec)


def digest(data: np.ndarray, whole: bool) -> int:
    """CRC-32 of flat uint8 data: of all of it, or of at most 64 KB evenly spread, which noise changes as well."""
    step = 1 if whole else -(-data.size // DIGEST_BYTES) | 1
    return zlib.crc32(np.ascontiguousarray(data[::step]).data, data.size)


def copy_with(message: Any, **fields: Any) -> Any:
    """A shallow copy of a message with other values of some fields."""
    message = copy.copy(message)
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def in_container_of(old: Any, data: np.ndarray) -> Any:
    """Flat data in the container that ``old`` is: NumPy for rosbags, ``array`` for rclpy."""
    if isinstance(old, np.ndarray):
        return data
    return array(old.typecode if isinstance(old, array) else data.dtype.char, data.tobytes())


def overwritten(data: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A copy of flat uint8 data with a share of the bytes at random."""
    data = data.copy()
    hit = rng.random(data.size) < share
    data[hit] = rng.integers(0, 256, int(hit.sum()), dtype=np.uint8)
    return data
