"""Read anything shaped like a ROS message into the records of ``core.types``.

The functions look at field names only, so the same code serves rclpy's messages in the node and rosbags' in a replay. No
decisions are made here and no data is copied.
"""
from __future__ import annotations

from typing import Any

from aecf_ros.core.decode import SAMPLE_BYTES
from aecf_ros.core.types import NANOSECONDS, RawAudio, RawImage


class FormatUnknown(ValueError):
    """Audio came before anything said how to read it."""


def stamp_to_ns(stamp: Any) -> int:
    """Nanoseconds of a ``builtin_interfaces`` Time or Duration."""
    return stamp.sec * NANOSECONDS + stamp.nanosec


def read_image(message: Any, received_ns: int) -> RawImage:
    """The record of a ``sensor_msgs/Image``."""
    return RawImage(stamp_to_ns(message.header.stamp), received_ns, message.encoding, message.height, message.width, message.step,
                    message.data, bool(message.is_bigendian))


def read_compressed_image(message: Any, received_ns: int) -> RawImage:
    """The record of a ``sensor_msgs/CompressedImage``."""
    return RawImage(stamp_to_ns(message.header.stamp), received_ns, message.format, 0, 0, 0, message.data)


def read_stamped_audio(message: Any, info: Any | None, received_ns: int) -> RawAudio:
    """The record of an ``audio_common_msgs/AudioDataStamped``, read as the ``AudioInfo`` says.

    Raises:
        FormatUnknown: there is no ``AudioInfo``.
    """
    return _read_pcm(stamp_to_ns(message.header.stamp), message.audio.data, info, received_ns)


def read_plain_audio(message: Any, info: Any | None, received_ns: int) -> RawAudio:
    """The record of an ``audio_common_msgs/AudioData``: without a header, it is taken to end when it arrived.

    Raises:
        FormatUnknown: there is no ``AudioInfo``.
    """
    raw = _read_pcm(received_ns, message.data, info, received_ns)
    block = max(1, raw.channels) * SAMPLE_BYTES.get(raw.sample_format, 1)
    duration_ns = len(message.data) // block * NANOSECONDS // max(1, raw.rate_hz)
    return RawAudio(received_ns - duration_ns, received_ns, raw.sample_format, raw.rate_hz, raw.channels, raw.data, raw.coding)


def _read_pcm(stamp_ns: int, data: Any, info: Any | None, received_ns: int) -> RawAudio:
    if info is None:
        raise FormatUnknown("no AudioInfo has arrived; publish it latched, or set the parameter sample_format of this stream")
    return RawAudio(stamp_ns, received_ns, info.sample_format, info.sample_rate, info.channels, data, info.coding_format)
