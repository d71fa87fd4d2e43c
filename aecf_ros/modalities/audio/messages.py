"""Reading messages that carry sound, of rclpy or of rosbags: only the field names are looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aecf_ros.core.types import NANOSECONDS, RawAudio
from aecf_ros.modalities.audio.pcm import SAMPLE_BYTES
from aecf_ros.modalities.messages import UnknownFormatError, stamp_to_ns

MESSAGE_TYPES = {
    "stamped": "audio_common_msgs/msg/AudioDataStamped",
    "plain": "audio_common_msgs/msg/AudioData",
    "dialect": "audio_common_msgs/msg/AudioStamped",
    "foxglove": "foxglove_msgs/msg/RawAudio",
}
"""By their name in the node's parameter ``message``."""
DESCRIBED_TYPES = (MESSAGE_TYPES["stamped"], MESSAGE_TYPES["plain"])
"""Those whose messages do not say how to read them."""
INFO_TYPE = "audio_common_msgs/msg/AudioInfo"
_FOXGLOVE_DEFINITION = (
    "builtin_interfaces/Time timestamp\nuint8[] data\nstring format\nuint32 sample_rate\nuint32 number_of_channels"
)
DEFINITIONS = {
    "audio_common_msgs/msg/AudioData": "uint8[] data",
    "audio_common_msgs/msg/AudioDataStamped": "std_msgs/Header header\naudio_common_msgs/AudioData audio",
    INFO_TYPE: ("uint8 channels\nuint32 sample_rate\nstring sample_format\nuint32 bitrate\nstring coding_format"),
    "foxglove_msgs/msg/RawAudio": _FOXGLOVE_DEFINITION,
}
OTHER_DEFINITIONS = {
    "audio_common_msgs/msg/AudioData": (
        "float32[] float32_data\nint32[] int32_data\nint16[] int16_data\nint8[] int8_data\nuint8[] uint8_data"
    ),
    INFO_TYPE: "int32 format\nint32 channels\nint32 rate\nint32 chunk",
    "audio_common_msgs/msg/Audio": "audio_common_msgs/AudioData audio_data\naudio_common_msgs/AudioInfo info",
    "audio_common_msgs/msg/AudioStamped": "std_msgs/Header header\naudio_common_msgs/Audio audio",
    "foxglove_msgs/msg/RawAudio": _FOXGLOVE_DEFINITION,
}
"""Of the other package called ``audio_common_msgs``, the one that has ``AudioStamped``."""


@dataclass(frozen=True, slots=True)
class PcmInfo:
    """How to read sound; it has the fields of an ``AudioInfo``."""

    sample_format: str
    sample_rate: int
    channels: int
    coding_format: str = "wave"


def read_stamped_audio(message: Any, info: Any | None, received_ns: int) -> RawAudio:
    """The record of an ``audio_common_msgs/AudioDataStamped``, read as the ``AudioInfo`` says.

    Raises:
        UnknownFormatError: there is no ``AudioInfo``.
    """
    return _read_pcm(stamp_to_ns(message.header.stamp), message.audio.data, info, received_ns)


def read_plain_audio(message: Any, info: Any | None, received_ns: int) -> RawAudio:
    """The record of an ``audio_common_msgs/AudioData``: without a header, it is taken to end when it arrived.

    Raises:
        UnknownFormatError: there is no ``AudioInfo``.
    """
    raw = _read_pcm(received_ns, message.data, info, received_ns)
    block = max(1, raw.channels) * SAMPLE_BYTES.get(raw.sample_format, 1)
    duration_ns = len(message.data) // block * NANOSECONDS // max(1, raw.rate_hz)
    return RawAudio(
        received_ns - duration_ns,
        received_ns,
        raw.sample_format,
        raw.rate_hz,
        raw.channels,
        raw.data,
        raw.coding,
        headless=True,
    )


def _read_pcm(stamp_ns: int, data: Any, info: Any | None, received_ns: int) -> RawAudio:
    if info is None:
        raise UnknownFormatError(
            "no AudioInfo has arrived; publish it latched, or say how to read the sound: "
            "parameter sample_format, aecf --audio-format"
        )
    return RawAudio(
        stamp_ns, received_ns, info.sample_format, info.sample_rate, info.channels, data, info.coding_format
    )


PORTAUDIO_FIELDS = {
    1: ("F32LE", "float32_data"),
    2: ("S32LE", "int32_data"),
    8: ("S16LE", "int16_data"),
    16: ("S8", "int8_data"),
    32: ("U8", "uint8_data"),
}
"""PortAudio's code of a sample format -> its name here, and the field of the other dialect's ``AudioData`` that
holds the samples.
"""

_FOXGLOVE_FORMATS = {
    "pcm-s16": "S16LE",
    "pcm-s24": "S24LE",
    "pcm-s32": "S32LE",
    "pcm-f32": "F32LE",
    "pcm-u8": "U8",
    "pcm-s8": "S8",
}


def read_audio_stamped(message: Any, received_ns: int) -> RawAudio:
    """The record of an ``AudioStamped`` of the other ``audio_common_msgs``, which says itself how to read it."""
    info = message.audio.info
    name, field = PORTAUDIO_FIELDS.get(info.format, (f"PortAudio {info.format}", "uint8_data"))
    return RawAudio(
        stamp_to_ns(message.header.stamp),
        received_ns,
        name,
        info.rate,
        info.channels,
        getattr(message.audio.audio_data, field),
    )


def read_foxglove_audio(message: Any, received_ns: int) -> RawAudio:
    """The record of a ``foxglove_msgs/RawAudio``; a format that is not PCM is taken for a coding."""
    name = _FOXGLOVE_FORMATS.get(message.format, message.format)
    return RawAudio(
        stamp_to_ns(message.timestamp),
        received_ns,
        name,
        message.sample_rate,
        message.number_of_channels,
        message.data,
        coding="wave" if message.format in _FOXGLOVE_FORMATS else message.format,
    )


def read_audio(message: Any, info: Any | None, received_ns: int) -> RawAudio:
    """The record of any message that carries sound, told apart by its fields.

    Raises:
        UnknownFormatError: it is of a kind that needs an ``AudioInfo``, and there is none.
    """
    if hasattr(message, "sample_rate"):
        return read_foxglove_audio(message, received_ns)
    if not hasattr(message, "audio"):
        return read_plain_audio(message, info, received_ns)
    return (
        read_audio_stamped(message, received_ns)
        if hasattr(message.audio, "audio_data")
        else read_stamped_audio(message, info, received_ns)
    )
