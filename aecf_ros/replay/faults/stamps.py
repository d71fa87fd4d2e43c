"""The stamps of messages of rclpy and rosbags: only the field names are looked at, and nothing is changed in place."""

from __future__ import annotations

import copy
from typing import Any

from aecf_ros.core.types import NANOSECONDS
from aecf_ros.modalities.messages import stamp_to_ns


def _stamped(message: Any) -> Any:
    """What holds the stamp: the header, or the message itself; ``None`` where there is no stamp."""
    if hasattr(message, "header"):
        return message.header
    return message if hasattr(message, "timestamp") else None


def stamp_ns(message: Any) -> int | None:
    """The stamp in ns, ``None`` of a message without one."""
    holder = _stamped(message)
    return None if holder is None else stamp_to_ns(holder.stamp if hasattr(holder, "stamp") else holder.timestamp)


def with_stamp(message: Any, ns: int) -> Any:
    """A copy with another stamp, which a ROS time must be able to hold; a message without one comes back as it is."""
    if _stamped(message) is None:
        return message
    message = copy.copy(message)
    if hasattr(message, "header"):
        message.header = copy.copy(message.header)
    holder = _stamped(message)
    field = "stamp" if hasattr(holder, "stamp") else "timestamp"
    stamp = copy.copy(getattr(holder, field))
    stamp.sec, stamp.nanosec = ns // NANOSECONDS, ns % NANOSECONDS
    setattr(holder, field, stamp)
    return message


def headless(message: Any) -> bool:
    """Whether the message has no stamp of its own."""
    return _stamped(message) is None
