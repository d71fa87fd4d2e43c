"""Thresholds and node parameters of a camera."""

from __future__ import annotations

from aecf_ros.health.thresholds import StreamThresholds
from aecf_ros.modalities.parameters import ParameterRecord

THRESHOLDS = StreamThresholds()

PARAMETERS = (
    ParameterRecord(
        "frozen_after_s",
        THRESHOLDS.frozen_after_s,
        "How long one picture may repeat before the stream is FROZEN; 0 switches it off",
        "s",
        (0.0, 600.0),
        life="live",
    ),
    ParameterRecord(
        "dark_below",
        0.12,
        "Share of full scale that the brightest 2 % must reach; 0 switches it off",
        "",
        (0.0, 1.0),
        life="live",
    ),
    ParameterRecord(
        "overexposed_above",
        0.6,
        "Share of pixels at full scale that is too much; 0 switches it off",
        "",
        (0.0, 1.0),
        life="live",
    ),
    ParameterRecord(
        "blur_below",
        0.55,
        "Share of the usual steepness of edges below which a picture is blurred; 0 switches it off",
        "",
        (0.0, 1.0),
        life="live",
    ),
    ParameterRecord(
        "noisy_above",
        0.012,
        "Noise as a share of full scale that is too much, where it is also three times the usual; 0 switches it off",
        "",
        (0.0, 1.0),
        life="live",
    ),
    ParameterRecord(
        "transport",
        "auto",
        "Message type of the image topic, sensor_msgs/Image (raw) or CompressedImage; auto takes what is published",
        choices=("auto", "raw", "compressed"),
        life="activate",
    ),
)
