"""Reading ``sensor_msgs/Image`` and ``CompressedImage``, of rclpy or of rosbags: only the field names are looked at."""

from __future__ import annotations

from typing import Any

from aecf_ros.core.types import RawImage
from aecf_ros.modalities.messages import stamp_to_ns


def read_image(message: Any, received_ns: int) -> RawImage:
    """The record of a ``sensor_msgs/Image``."""
    return RawImage(
        stamp_to_ns(message.header.stamp),
        received_ns,
        message.encoding,
        message.height,
        message.width,
        message.step,
        message.data,
        bool(message.is_bigendian),
        message.header.frame_id,
    )


def read_compressed_image(message: Any, received_ns: int) -> RawImage:
    """The record of a ``sensor_msgs/CompressedImage``."""
    return RawImage(
        stamp_to_ns(message.header.stamp),
        received_ns,
        message.format,
        0,
        0,
        0,
        message.data,
        frame_id=message.header.frame_id,
    )


def read_any_image(message: Any, received_ns: int) -> RawImage:
    """The record of either message type, told apart by their fields."""
    return (read_image if hasattr(message, "encoding") else read_compressed_image)(message, received_ns)
