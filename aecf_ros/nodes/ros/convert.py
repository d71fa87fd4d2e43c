"""From the records of ``core.types`` to the messages that the nodes publish, and back. No decisions are made here."""

from __future__ import annotations

from array import array

import numpy as np
from builtin_interfaces.msg import Duration, Time
from sensor_msgs.msg import Image

from aecf_msgs.msg import FusedPrediction
from aecf_msgs.msg import ModalityReport as ReportMessage
from aecf_ros.core.types import NANOSECONDS, ModalityReport, Prediction, RawImage, StreamState
from aecf_ros.modalities.image.decode import decode_image
from aecf_ros.modalities.messages import stamp_to_ns
from aecf_ros.replay.report.overlay import draw_overlay


def ns_to_stamp(ns: int) -> Time:
    """A Time of a number of nanoseconds since the epoch."""
    return Time(sec=ns // NANOSECONDS, nanosec=ns % NANOSECONDS)


def ns_to_duration(ns: int) -> Duration:
    """A Duration of ``ns``, limited to the 68 years that it can hold: a stamp may be anything."""
    sec, nanosec = divmod(ns, NANOSECONDS)
    return Duration(sec=min(max(sec, -(2**31)), 2**31 - 1), nanosec=nanosec)


def prediction_to_message(prediction: Prediction, published_ns: int, frame_id: str) -> FusedPrediction:
    """The message of a prediction.

    Latency and ages count to ``published_ns`` (node time). ``frame_id`` is that of the leading camera.
    """
    message = FusedPrediction(
        model=prediction.model,
        label=prediction.label,
        class_id=prediction.class_id,
        confidence=prediction.confidence,
        probabilities=array("f", prediction.probabilities.astype(np.float32, copy=False).tobytes()),
        prediction_set=list(prediction.prediction_set),
        coverage=prediction.coverage,
        agreement=prediction.agreement,
        gate_entropy=prediction.gate_entropy,
        abstain=prediction.abstain,
        abstain_reason=prediction.abstain_reason,
        modalities=[
            ReportMessage(
                name=report.name,
                state=int(report.state),
                used=report.used,
                gate_weight=report.gate_weight,
                age=ns_to_duration(0 if report.evidence_stamp_ns is None else published_ns - report.evidence_stamp_ns),
                label=report.label,
                confidence=report.confidence,
            )
            for report in prediction.modalities
        ],
        latency=ns_to_duration(published_ns - prediction.stamp_ns),
    )
    message.header.stamp = ns_to_stamp(prediction.stamp_ns)
    message.header.frame_id = frame_id
    return message


def prediction_from_message(message: FusedPrediction) -> tuple[Prediction, int]:
    """A prediction as it was published, and the node time of its publication in ns."""
    stamp_ns = stamp_to_ns(message.header.stamp)
    published_ns = stamp_ns + stamp_to_ns(message.latency)
    reports = tuple(
        ModalityReport(
            r.name,
            StreamState(r.state),
            r.used,
            r.gate_weight,
            published_ns - age_ns if (age_ns := stamp_to_ns(r.age)) else None,
            r.label,
            r.confidence,
        )
        for r in message.modalities
    )
    prediction = Prediction(
        stamp_ns=stamp_ns,
        model=message.model,
        label=message.label,
        class_id=message.class_id,
        confidence=message.confidence,
        probabilities=np.array(message.probabilities, np.float32),
        prediction_set=tuple(message.prediction_set),
        coverage=message.coverage,
        agreement=message.agreement,
        gate_entropy=message.gate_entropy,
        abstain=message.abstain,
        abstain_reason=message.abstain_reason,
        modalities=reports,
    )
    return prediction, published_ns


def overlay_to_message(raw: RawImage, prediction: Prediction, camera: str) -> Image:
    """The frame of ``camera`` with the prediction drawn over it."""
    drawn = draw_overlay(decode_image(raw).image, prediction, camera)
    message = Image(
        height=drawn.shape[0],
        width=drawn.shape[1],
        encoding="rgb8",
        step=drawn.shape[1] * 3,
        data=array("B", drawn.tobytes()),
    )
    message.header.stamp = ns_to_stamp(raw.stamp_ns)
    message.header.frame_id = raw.frame_id
    return message
