"""Thresholds and node parameters of a microphone."""

from __future__ import annotations

from aecf_ros.health.thresholds import StreamThresholds
from aecf_ros.modalities.audio.pcm import SAMPLE_BYTES
from aecf_ros.modalities.parameters import ParameterRecord

THRESHOLDS = StreamThresholds(frozen_after_s=1.0)
"""A microphone behind a noise gate sends zeros between words, for less than a second."""

PARAMETERS = (
    ParameterRecord(
        "frozen_after_s",
        THRESHOLDS.frozen_after_s,
        "How long one value or a loop may last before the stream is FROZEN; 0 switches it off, as behind a noise gate",
        "s",
        (0.0, 600.0),
        life="live",
    ),
    ParameterRecord(
        "clipped_above",
        0.02,
        "Share of samples at the limit that is too much; 0 switches it off",
        "",
        (0.0, 1.0),
        life="live",
    ),
    ParameterRecord(
        "silent_below_dbfs",
        -75.0,
        "Level of near-silence, as are pauses 18 dB quieter than usual; 0 switches both off",
        "dBFS",
        (-200.0, 0.0),
        life="live",
    ),
    ParameterRecord(
        "dc_above",
        0.05,
        "Constant offset that is too much, as a share of full scale; 0 switches it off",
        "",
        (0.0, 1.0),
        life="live",
    ),
    ParameterRecord(
        "hum_above",
        0.5,
        "Share of the energy at multiples of 50 or 60 Hz that is too much; 0 switches it off",
        "",
        (0.0, 1.0),
        life="live",
    ),
    ParameterRecord(
        "noise_above_dbfs",
        -40.0,
        "Level of noise, never less for 0.8 s, that is too much where it is also 3 dB above the usual; "
        "0 switches it off",
        "dBFS",
        (-200.0, 0.0),
        life="live",
    ),
    ParameterRecord(
        "message",
        "auto",
        "Message type of the audio topic: audio_common_msgs/AudioDataStamped (stamped), AudioData "
        "(plain), AudioStamped of "
        "the other package of that name (dialect), foxglove_msgs/RawAudio (foxglove); auto takes what is published",
        choices=("auto", "stamped", "plain", "dialect", "foxglove"),
        life="activate",
    ),
    ParameterRecord(
        "sample_format",
        "",
        "Sample format while no AudioInfo has arrived; empty waits for AudioInfo",
        choices=("", *SAMPLE_BYTES),
        life="activate",
    ),
    ParameterRecord(
        "rate_hz", 16000, "Sample rate that goes with sample_format", "Hz", (1000, 384000), life="activate"
    ),
    ParameterRecord("channels", 1, "Channels that go with sample_format", bounds=(1, 64), life="activate"),
)
