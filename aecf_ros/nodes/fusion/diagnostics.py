"""Node health on ``/diagnostics``, and rejected messages in the log."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from rclpy.node import Node

from aecf_ros.core.types import NANOSECONDS
from aecf_ros.runtime.diagnostics import Diagnostic

LOST_OF = 15
"""The share of lost messages is taken over at least so many."""
LOG_PERIOD_NS = 5 * NANOSECONDS
MAX_KINDS = 64


def to_message(diagnostic: Diagnostic, node_name: str) -> DiagnosticStatus:
    """The ROS message of a diagnostic."""
    return DiagnosticStatus(
        level=bytes([diagnostic.level]),
        name=f"{node_name}: {diagnostic.name}",
        message=diagnostic.message,
        hardware_id=diagnostic.hardware_id,
        values=key_values(diagnostic.values),
    )


def key_values(values: Mapping[str, object]) -> list[KeyValue]:
    """Diagnostic key-values of a mapping."""
    return [KeyValue(key=key, value=str(value)) for key, value in values.items()]


class LostShare:
    """Recent share of each stream's messages that were not served, over at least ``LOST_OF`` messages."""

    def __init__(self) -> None:
        self._counted: dict[str, tuple[int, int]] = {}
        self._shares: dict[str, float] = {}

    def update(self, stream: str, served: int, not_served: int) -> float:
        """Take both counts since the start and return the share."""
        served_before, lost_before = self._counted.setdefault(stream, (served, not_served))
        lost, total = not_served - lost_before, not_served - lost_before + served - served_before
        if total < 0:  # the counts restarted with another model
            self._counted[stream] = served, not_served
        elif total >= LOST_OF:
            self._counted[stream] = served, not_served
            self._shares[stream] = lost / total
        return self._shares.get(stream, 0.0)


class Complaints:
    """Logs rejected messages: a new kind of reason at once, then one line in five seconds for each stream and kind."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._logged_ns: dict[tuple[str, str], int] = {}
        self._suppressed: Counter[tuple[str, str]] = Counter()

    def say(self, stream: str, reason: str, now_ns: int) -> None:
        kind = (stream, re.sub(r"\d+", "#", reason))
        if now_ns - self._logged_ns.get(kind, -LOG_PERIOD_NS) < LOG_PERIOD_NS:
            self._suppressed[kind] += 1
            return
        # Reasons quote the message, so a hostile publisher can make any number of them.
        if len(self._logged_ns) >= MAX_KINDS:
            self._logged_ns.clear()
            self._suppressed.clear()
        more = self._suppressed.pop(kind, 0)
        self._logged_ns[kind] = now_ns
        self._node.get_logger().warning(
            f"{stream}: {reason}" + (f" ({more} more like it since the last line)" if more else "")
        )
