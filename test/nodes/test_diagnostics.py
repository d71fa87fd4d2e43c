"""What a stream's diagnostics say of messages that were not served."""

from __future__ import annotations

import pytest

pytest.importorskip("diagnostic_msgs", reason="diagnostic_msgs is not importable: source ROS 2 or run `make test`")

from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402

from aecf_ros.core.types import StreamState, StreamStatus  # noqa: E402
from aecf_ros.nodes.fusion.diagnostics import LOST_OF, LostShare, to_message  # noqa: E402
from aecf_ros.runtime.diagnostics import MAX_LOST_SHARE, diagnose_stream  # noqa: E402


def status(state: StreamState, reason: str = "") -> StreamStatus:
    return StreamStatus(
        name="camera",
        state=state,
        reason=reason,
        silent_s=0.1,
        rate_hz=5.0,
        received=10,
        rejected=0,
        usual_rate_hz=5.0,
        age_s=0.0,
        stale_after_s=1.0,
        dropped_after_s=2.0,
        headless=False,
    )


def test_a_stream_that_loses_as_much_from_its_first_message_on_is_a_warning_though_its_state_is_ok() -> None:
    share = LostShare()
    assert share.update("camera", 0, 0) == 0.0
    assert share.update("camera", 27, 68) == pytest.approx(68 / 95)
    said = to_message(diagnose_stream(status(StreamState.OK), False, 68, share.update("camera", 27, 68)), "node")
    assert said.level == DiagnosticStatus.WARN and said.message.startswith("OK; 72% of its messages are not served")


def test_a_worse_level_and_its_reason_stay() -> None:
    said = to_message(
        diagnose_stream(status(StreamState.FROZEN, "the same picture for 1.00 s"), False, 68, 0.7), "node"
    )
    assert said.level == DiagnosticStatus.ERROR and said.message.startswith("FROZEN: the same picture for 1.00 s; 70%")


def test_few_messages_say_nothing_and_a_few_losses_are_no_warning() -> None:
    share = LostShare()
    share.update("camera", 0, 0)
    assert share.update("camera", 4, LOST_OF - 5) == 0.0
    assert share.update("audio", 0, 0) == 0.0
    assert 0 < share.update("camera", 90, 12) < MAX_LOST_SHARE
    assert to_message(diagnose_stream(status(StreamState.OK), False, 12, 0.1), "node").message == "OK"


def test_it_is_over_when_messages_come_again_and_counts_anew_with_another_model() -> None:
    share = LostShare()
    share.update("camera", 0, 0)
    assert share.update("camera", 10, 90) == pytest.approx(0.9)
    assert share.update("camera", 5, 90) == pytest.approx(0.9)
    assert share.update("camera", 5 + LOST_OF, 90) == 0.0
