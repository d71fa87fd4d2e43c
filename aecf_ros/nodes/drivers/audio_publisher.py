"""Publish sound in the installed dialect of ``audio_common_msgs``."""

from __future__ import annotations

from array import array
from collections.abc import Callable

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import Header

from aecf_ros.nodes.drivers.devices import DeviceError
from aecf_ros.nodes.fusion.inputs import LATCHED_QOS, load_type
from aecf_ros.nodes.ros.convert import ns_to_stamp
from aecf_ros.nodes.ros.qos import OVERRIDABLE

SOUND_QOS = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE)
"""Reliable fits every subscription."""
BITS = 16
PORTAUDIO_INT16 = 8

Publish = Callable[[int, bytes], None]
"""From the time of the first sample (node time, ns) and interleaved S16LE."""


def sound_publisher(node: Node, rate_hz: int, channels: int, block_frames: int, frame_id: str) -> Publish:
    """Make the publisher of ``audio``, and publish the latched ``audio_info`` where the format is not in each message.

    Raises:
        DeviceError: no ``audio_common_msgs`` is installed, or one that is neither.
    """
    if load_type("audio_common_msgs/msg/AudioDataStamped") is not None:
        return _of_apt(node, rate_hz, channels, frame_id)
    if load_type("audio_common_msgs/msg/AudioStamped") is not None:
        return _of_the_other(node, rate_hz, channels, block_frames, frame_id)
    raise DeviceError(
        "audio_common_msgs has neither AudioDataStamped nor AudioStamped, or is not installed; apt install"
        " ros-$ROS_DISTRO-audio-common-msgs"
    )


def _of_apt(node: Node, rate_hz: int, channels: int, frame_id: str) -> Publish:
    from audio_common_msgs.msg import AudioData, AudioDataStamped, AudioInfo

    publisher = node.create_publisher(AudioDataStamped, "audio", SOUND_QOS, qos_overriding_options=OVERRIDABLE)
    info = node.create_publisher(AudioInfo, "audio_info", LATCHED_QOS, qos_overriding_options=OVERRIDABLE)
    info.publish(
        AudioInfo(
            channels=channels,
            sample_rate=rate_hz,
            sample_format="S16LE",
            coding_format="wave",
            bitrate=rate_hz * channels * BITS,
        )
    )

    def publish(stamp_ns: int, data: bytes) -> None:
        publisher.publish(
            AudioDataStamped(
                header=Header(stamp=ns_to_stamp(stamp_ns), frame_id=frame_id), audio=AudioData(data=array("B", data))
            )
        )

    return publish


def _of_the_other(node: Node, rate_hz: int, channels: int, block_frames: int, frame_id: str) -> Publish:
    from audio_common_msgs.msg import Audio, AudioData, AudioInfo, AudioStamped

    publisher = node.create_publisher(AudioStamped, "audio", SOUND_QOS, qos_overriding_options=OVERRIDABLE)
    info = AudioInfo(format=PORTAUDIO_INT16, channels=channels, rate=rate_hz, chunk=block_frames)

    def publish(stamp_ns: int, data: bytes) -> None:
        publisher.publish(
            AudioStamped(
                header=Header(stamp=ns_to_stamp(stamp_ns), frame_id=frame_id),
                audio=Audio(audio_data=AudioData(int16_data=array("h", data)), info=info),
            )
        )

    return publish
