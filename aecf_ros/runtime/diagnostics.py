"""What ``/diagnostics`` says of streams and inference, as plain records: for the node, and for recordings written
without ROS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aecf_ros.core.drift import Drift
from aecf_ros.core.drift import values as drift_values
from aecf_ros.core.drift import warning as drift_warning
from aecf_ros.core.types import StreamState, StreamStatus

OK, WARN, ERROR = 0, 1, 2
"""Levels of ``diagnostic_msgs/DiagnosticStatus``."""
MAX_LOST_SHARE = 0.3
"""A stream that loses a larger share of its messages gives a warning."""

_LEVELS = {StreamState.WAITING: WARN, StreamState.OK: OK, StreamState.LATE: WARN, StreamState.DEGRADED: WARN}


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One ``DiagnosticStatus``; keys of ``values`` carry units (REP-107). The publisher puts its node name before
    ``name``.
    """

    level: int
    name: str
    message: str
    hardware_id: str
    values: Mapping[str, object]


def diagnose_stream(
    status: StreamStatus, waiting_too_long: bool = False, not_served: int = 0, lost_share: float = 0.0
) -> Diagnostic:
    """The diagnostic of a stream.

    Args:
        waiting_too_long: a stream that still waits for its first message is an error.
        not_served: messages that were never decoded, since the start.
        lost_share: recent share of messages that were not decoded, 0 to 1.
    """
    level = _LEVELS.get(status.state, ERROR)
    if status.state is StreamState.WAITING and waiting_too_long:
        level = ERROR
    message = f"{status.state.name}: {status.reason}" if status.reason else status.state.name
    if lost_share > MAX_LOST_SHARE:
        # A steady loss from the first message on looks like a slow stream; only the counts show it.
        level = max(level, WARN)
        message += (
            f"; {lost_share:.0%} of its messages are not served: the transport loses them or the node is too slow "
            "(`aecf doctor` checks the transport)"
        )
    values = {
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
    return Diagnostic(level, status.name, message, status.name, values)


def diagnose_inference(
    device: str,
    activity: str,
    fault: str,
    drift: Sequence[Drift],
    values: Mapping[str, object],
    timings: Mapping[str, object] | None = None,
) -> Diagnostic:
    """The diagnostic of inference: an error with a ``fault``, a warning with drift, else ``activity`` on ``device``.

    Args:
        activity: what the node is doing, such as ``active``.
        values: key-values before those of the drift.
        timings: key-values after those of the drift.
    """
    unlike = drift_warning(drift)
    level = ERROR if fault else WARN if unlike else OK
    message = fault or unlike or f"{activity} on {device}"
    return Diagnostic(level, "inference", message, device, {**values, **drift_values(drift), **(timings or {})})
