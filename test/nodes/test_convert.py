"""A prediction survives its message, through the bytes that rclpy writes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="rclpy is not importable: source ROS 2 or run `make test`")

from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402

from aecf_msgs.msg import FusedPrediction  # noqa: E402
from aecf_ros.core.types import NANOSECONDS, ModalityReport, Prediction, StreamState  # noqa: E402
from aecf_ros.nodes.ros.convert import prediction_from_message, prediction_to_message  # noqa: E402

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=9)
SHARE = st.floats(0, 1, width=32)
NOW_NS = 1_700_000_000 * NANOSECONDS
STAMP = st.integers(NOW_NS - 10 * NANOSECONDS, NOW_NS + NANOSECONDS)  # a clock that is ahead makes a negative age
REPORT = st.builds(
    ModalityReport,
    name=TEXT,
    state=st.sampled_from(StreamState),
    used=st.booleans(),
    gate_weight=SHARE,
    evidence_stamp_ns=st.none() | STAMP.filter(lambda ns: ns != NOW_NS),
    label=TEXT,
    confidence=SHARE,
)
PREDICTION = st.builds(
    Prediction,
    stamp_ns=STAMP,
    model=TEXT,
    label=TEXT,
    class_id=st.integers(0, 2**32 - 1),
    confidence=SHARE,
    probabilities=st.lists(SHARE, max_size=5).map(lambda p: np.array(p, np.float32)),
    prediction_set=st.lists(TEXT, max_size=4).map(tuple),
    coverage=SHARE,
    agreement=SHARE,
    gate_entropy=SHARE,
    abstain=st.booleans(),
    abstain_reason=TEXT,
    modalities=st.lists(REPORT, max_size=4).map(tuple),
)


def published(prediction: Prediction, frame_id: str) -> FusedPrediction:
    """The message as a subscriber gets it."""
    return deserialize_message(serialize_message(prediction_to_message(prediction, NOW_NS, frame_id)), FusedPrediction)


@settings(max_examples=200, deadline=None)
@given(PREDICTION, TEXT)
def test_a_prediction_is_read_back_from_its_message(prediction: Prediction, frame_id: str) -> None:
    message = published(prediction, frame_id)
    assert message.header.frame_id == frame_id
    found, published_ns = prediction_from_message(message)
    assert published_ns == NOW_NS
    for field in Prediction.__slots__:
        np.testing.assert_equal(getattr(found, field), getattr(prediction, field))


def test_shipped_numbers_are_read_back(domain: int) -> None:
    report = ModalityReport("camera", StreamState.DEGRADED, True, 0.75, NOW_NS - 40_000_000, "seven", 0.5)
    prediction = Prediction(
        NOW_NS - 40_000_000,
        "av_digits",
        "seven",
        7,
        0.875,
        np.linspace(0, 1, 3, dtype=np.float32),
        ("seven", "one"),
        0.95,
        0.5,
        0.25,
        False,
        "",
        (report,),
    )
    message = published(prediction, "optical")
    assert (message.label, message.class_id, message.confidence, list(message.prediction_set)) == (
        "seven",
        7,
        0.875,
        ["seven", "one"],
    )
    assert (message.latency.sec, message.latency.nanosec, message.modalities[0].age.nanosec) == (
        0,
        40_000_000,
        40_000_000,
    )
    assert (message.modalities[0].state, message.modalities[0].used, message.modalities[0].gate_weight) == (
        StreamState.DEGRADED,
        True,
        0.75,
    )


@pytest.mark.parametrize(("stamp_s", "age_s"), [(-(2**31), 2**31 - 1), (2**31 - 1, 1_700_000_000 - 2**31 + 1)])
def test_an_absurd_stamp_of_evidence_gives_an_age_that_the_message_can_hold(stamp_s: int, age_s: int) -> None:
    report = ModalityReport("camera", StreamState.LATE, False, 0.0, stamp_s * NANOSECONDS, "", 0.0)
    prediction = Prediction(
        NOW_NS,
        "av_digits",
        "seven",
        7,
        0.1,
        np.full(10, 0.1, np.float32),
        (),
        0.9,
        1.0,
        0.0,
        True,
        "no stream",
        (report,),
    )
    message = published(prediction, "")
    assert message.modalities[0].age.sec == age_s
