"""What the nodes say of their health on ``/diagnostics``, and of rejected messages in the log."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from rclpy.node import Node

from aecf_ros.core.types import NANOSECONDS, StreamState, StreamStatus

MAX_LOST_SHARE, LOST_OF = 0.3, 15
"""Of at least so many messages a larger share that was not served is a warning."""
LOG_PERIOD_NS = 5 * NANOSECONDS
MAX_KINDS = 64

_LEVELS = {
    StreamState.WAITING: DiagnosticStatus.WARN,
    StreamState.OK: DiagnosticStatus.OK,
    StreamState.LATE: DiagnosticStatus.WARN,
    StreamState.DEGRADED: DiagnosticStatus.WARN,
}


def status_to_diagnostic(
    status: StreamStatus, node_name: str, waiting_too_long: bool, not_served: int, lost_share: float = 0.0
) -> DiagnosticStatus:
    """One diagnostic status of a stream, with units in the keys (REP-107); ``not_served`` messages were never decoded, of late ``lost_share`` of all."""
    level = _LEVELS.get(status.state, DiagnosticStatus.ERROR)
    if status.state is StreamState.WAITING and waiting_too_long:
        level = DiagnosticStatus.ERROR
    message = f"{status.state.name}: {status.reason}" if status.reason else status.state.name
    if (
        lost_share > MAX_LOST_SHARE
    ):  # a stream that loses as much from its first message on is as steady as a slow one: only its numbers tell
        level = max(level, DiagnosticStatus.WARN)
        message += f"; {lost_share:.0%} of its messages are not served: the transport loses them or the node is too slow (`aecf doctor` checks the transport)"
    return DiagnosticStatus(
        level=level,
        name=f"{node_name}: {status.name}",
        message=message,
        hardware_id=status.name,
        values=key_values(
            {
                "state": status.state.name,
                "silent (s)": "never received" if status.silent_s is None else f"{status.silent_s:.3f}",
                "rate (Hz)": "unknown" if status.rate_hz is None else f"{status.rate_hz:.2f}",
                "usual rate (Hz)": "not learned" if status.usual_rate_hz is None else f"{status.usual_rate_hz:.2f}",
                "age at arrival (s)": "unknown" if status.age_s is None else f"{status.age_s:.3f}",
                "stamps": "none in the messages, arrival is taken" if status.headless else "from the header",
                "stale after (s)": f"{status.stale_after_s:.3f}",
                "dropped after (s)": f"{status.dropped_after_s:.3f}",
                "received (messages)": status.received,
                "rejected (messages)": status.rejected,
                "not served (messages)": not_served,
            }
        ),
    )


def inference_to_diagnostic(
    node_name: str, device: str, doing: str, fault: str, unlike: str, values: Mapping[str, object]
) -> DiagnosticStatus:
    """The diagnostic status of inference on ``device``: an error with a ``fault``, a warning where inputs are ``unlike`` those of training,
    else what the node is ``doing``."""
    level = DiagnosticStatus.ERROR if fault else DiagnosticStatus.WARN if unlike else DiagnosticStatus.OK
    return DiagnosticStatus(
        level=level,
        name=f"{node_name}: inference",
        message=fault or unlike or f"{doing} on {device}",
        hardware_id=device,
        values=key_values(values),
    )


def key_values(values: Mapping[str, object]) -> list[KeyValue]:
    """Diagnostic key-values of a mapping."""
    return [KeyValue(key=key, value=str(value)) for key, value in values.items()]


class LostShare:
    """Which share of each stream's messages was not served of late, counted over at least ``LOST_OF`` of them."""

    def __init__(self) -> None:
        self._counted: dict[str, tuple[int, int]] = {}
        self._shares: dict[str, float] = {}

    def update(self, stream: str, served: int, not_served: int) -> float:
        """Take the two counts since the start, and give the share."""
        served_before, lost_before = self._counted.setdefault(stream, (served, not_served))
        lost, total = not_served - lost_before, not_served - lost_before + served - served_before
        if total < 0:  # counted anew, with another model
            self._counted[stream] = served, not_served
        elif total >= LOST_OF:
            self._counted[stream] = served, not_served
            self._shares[stream] = lost / total
        return self._shares.get(stream, 0.0)


class Complaints:
    """Logs rejected messages: each kind of reason at once, then at most one line in five seconds for each stream and kind."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._said_ns: dict[tuple[str, str], int] = {}
        self._unsaid: Counter[tuple[str, str]] = Counter()

    def say(self, stream: str, reason: str, now_ns: int) -> None:
        kind = (stream, re.sub(r"\d+", "#", reason))
        if now_ns - self._said_ns.get(kind, -LOG_PERIOD_NS) < LOG_PERIOD_NS:
            self._unsaid[kind] += 1
            return
        if (
            len(self._said_ns) >= MAX_KINDS
        ):  # reasons quote what was found, so a hostile publisher could make any number
            self._said_ns.clear()
            self._unsaid.clear()
        more = self._unsaid.pop(kind, 0)
        self._said_ns[kind] = now_ns
        self._node.get_logger().warning(
            f"{stream}: {reason}" + (f" ({more} more like it since the last line)" if more else "")
        )
