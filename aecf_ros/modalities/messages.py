"""What the kinds share in reading messages: errors, time stamps, buffers and the digest of a payload."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from aecf_ros.core.types import NANOSECONDS

DIGEST_BYTES = 65_536


class DecodeError(ValueError):
    """A message that cannot be decoded; says what was found and what to do, and carries no stream name."""


def as_bytes(data: object) -> np.ndarray:
    """A flat uint8 view of any buffer, without a copy."""
    return np.frombuffer(memoryview(data).cast("B"), np.uint8)  # type: ignore[arg-type]


class FormatUnknown(ValueError):
    """Audio came before anything said how to read it."""


def stamp_to_ns(stamp: Any) -> int:
    """Nanoseconds of a ``builtin_interfaces`` Time or Duration."""
    return int(stamp.sec * NANOSECONDS + stamp.nanosec)


def digest(data: np.ndarray, whole: bool) -> int:
    """CRC-32 of flat uint8 data: of all of it, or of at most 64 KB evenly spread, which noise changes as well."""
    step = 1 if whole else -(-data.size // DIGEST_BYTES) | 1
    return zlib.crc32(np.ascontiguousarray(data[::step]).data, data.size)
