"""The usual design: approximate time synchronization, cv_bridge's conversion, inference in the callback.

``message_filters`` is used where it is installed (apt, with ROS 2), otherwise :class:`ApproximateTimeSynchronizer`
below, written from its public documentation: a queue of ``queue_size`` messages for each input; a set is passed on when
all stamps lie within ``slop``; messages of a set are not used again.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import rclpy
from audio_common_msgs.msg import AudioDataStamped
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image

from aecf_msgs.msg import FusedPrediction
from aecf_ros.core.bundle import load_bundle
from aecf_ros.nodes.ros.process import ros_process
from benchmarks.node.floor import session

QUEUE_SIZE, SLOP_S = 10, 0.1
"""What the tutorials of message_filters use."""

try:
    import message_filters

    SOURCE = "message_filters, installed"
except ModuleNotFoundError:
    message_filters = None
    SOURCE = "written for this benchmark from the documentation of message_filters, which is not installed here"


class ApproximateTimeSynchronizer:
    """Two inputs. The stamps of a set differ by at most ``slop_s``; of several partners the nearest is taken."""

    def __init__(self, queue_size: int, slop_s: float, callback: Callable[[Any, Any], None]) -> None:
        self._size, self._slop_ns, self._callback = queue_size, int(slop_s * 1e9), callback
        self._queues: tuple[dict[int, Any], dict[int, Any]] = ({}, {})

    def add(self, message: Any, index: int) -> None:
        """A message of input ``index`` has arrived."""
        stamp_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        mine, others = self._queues[index], self._queues[1 - index]
        mine[stamp_ns] = message
        while len(mine) > self._size:
            del mine[min(mine)]
        partner_ns = min(others, key=lambda other: abs(other - stamp_ns), default=None)
        if partner_ns is None or abs(partner_ns - stamp_ns) > self._slop_ns:
            return
        pair = (mine.pop(stamp_ns), others.pop(partner_ns))
        self._callback(*(pair if index == 0 else pair[::-1]))


def synchronize(node: Node, image_type: type, callback: Callable[[Any, Any], None]) -> None:
    """Call ``callback(image, audio)`` for each set of messages."""
    if message_filters is not None:
        inputs = [
            message_filters.Subscriber(node, kind, topic, qos_profile=qos_profile_sensor_data)
            for kind, topic in ((image_type, "camera/image"), (AudioDataStamped, "audio"))
        ]
        node.synchronizer = message_filters.ApproximateTimeSynchronizer(inputs, QUEUE_SIZE, SLOP_S)
        node.synchronizer.registerCallback(callback)
        return
    synchronizer = ApproximateTimeSynchronizer(QUEUE_SIZE, SLOP_S, callback)
    node.create_subscription(image_type, "camera/image", lambda m: synchronizer.add(m, 0), qos_profile_sensor_data)
    node.create_subscription(AudioDataStamped, "audio", lambda m: synchronizer.add(m, 1), qos_profile_sensor_data)


def to_picture(message: Any) -> np.ndarray:
    """uint8 (H, W, 3) RGB, as ``imgmsg_to_cv2(message, "rgb8")`` and ``compressed_imgmsg_to_cv2`` give it."""
    if isinstance(message, CompressedImage):
        return cv2.cvtColor(cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return np.ndarray((message.height, message.width, 3), np.uint8, buffer=message.data)


def main(model: str, jpeg: bool, threads: int) -> None:
    bundle = load_bundle(model)
    camera, audio = bundle.manifest.modalities
    see, hear, fuse = (
        session(str(bundle.path(f)), threads) for f in (camera.encoder, audio.encoder, bundle.manifest.head)
    )
    window = np.zeros((1, audio.window_samples), np.float32)
    with ros_process() as stopping:
        node = rclpy.create_node("naive")
        publisher = node.create_publisher(FusedPrediction, "prediction", QoSProfile(depth=10))

        def on_pair(image: Any, sound: AudioDataStamped) -> None:
            picture = cv2.resize(to_picture(image), (camera.width, camera.height), interpolation=cv2.INTER_LINEAR)
            samples = np.frombuffer(sound.audio.data, "<i2")
            window[0] = np.roll(window[0], -len(samples))
            window[0, -len(samples) :] = samples / np.float32(32768)
            probabilities = fuse.run(
                ("probabilities",),
                {
                    "embedding_camera": see.run(None, {"image": picture[None]})[0],
                    "embedding_audio": hear.run(None, {"samples": window})[0],
                    "present": np.ones((1, 2), bool),
                },
            )[0][0]
            message = FusedPrediction(
                class_id=int(probabilities.argmax()), probabilities=array("f", probabilities.tobytes())
            )
            message.header = image.header
            publisher.publish(message)

        synchronize(node, CompressedImage if jpeg else Image, on_pair)
        while not stopping.is_set() and rclpy.ok():
            rclpy.spin_once(node, timeout_sec=0.5)
        node.destroy_node()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] == "jpeg", int(sys.argv[3]))
