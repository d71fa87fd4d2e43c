"""Thresholds and node parameters of a stream of vectors."""

from __future__ import annotations

from aecf_ros.health.thresholds import StreamThresholds
from aecf_ros.modalities.parameters import ParameterRecord

THRESHOLDS = StreamThresholds(frozen_after_s=1.0)
"""What computes a vector may round it, so that a quiet moment looks the same."""

PARAMETERS = (
    ParameterRecord(
        "frozen_after_s",
        THRESHOLDS.frozen_after_s,
        "How long one vector may repeat before the stream is FROZEN; 0 switches it off, as for "
        "text that is published until the next is said",
        "s",
        (0.0, 600.0),
        life="live",
    ),
)
