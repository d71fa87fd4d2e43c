"""Subscriptions of the fusion node: one for each modality of a bundle, whatever message carries it."""
from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from audio_common_msgs.msg import AudioData, AudioDataStamped, AudioInfo
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image

from aecf_ros.core.bundle import Modality
from aecf_ros.core.messages import read_compressed_image, read_image, read_plain_audio, read_stamped_audio
from aecf_ros.core.types import RawAudio, RawImage
from aecf_ros.nodes.parameters import StreamParameters

CAMERA_QOS = QoSProfile(depth=1, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)
"""Depth 1: under overload an old frame is worth less than a new one. Best effort matches every publisher."""
AUDIO_QOS = QoSProfile(depth=20, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED_QOS = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL, reliability=ReliabilityPolicy.RELIABLE)

Read = Callable[[Any, int], RawImage | RawAudio]
"""From a message and the node time of its arrival to a record; may raise FormatUnknown."""
OnMessage = Callable[[str, Read, Any], None]
OnPublishers = Callable[[str, int], None]


class Inputs:
    """The subscriptions of all modalities, made and destroyed together. Call from the executor's thread.

    Args:
        on_message: told the modality, how to read the message, and the message.
        on_publishers: told the modality and how many publishers it has, where the middleware says so.
    """

    def __init__(self, node: Node, on_message: OnMessage, on_publishers: OnPublishers) -> None:
        self._node = node
        self._on_message = on_message
        self._on_publishers = on_publishers
        self._infos: dict[str, AudioInfo] = {}
        self._subscriptions: list = []

    def open(self, modality: Modality, parameters: StreamParameters) -> None:
        """Subscribe to what carries one modality."""
        name, options = modality.name, parameters.options
        if modality.kind == "image":
            compressed = options["transport"] == "compressed"
            read = read_compressed_image if compressed else read_image
            self._listen(name, CompressedImage if compressed else Image, f"{name}/image", read, CAMERA_QOS)
            return
        if options["sample_format"]:
            self._infos[name] = AudioInfo(channels=options["channels"], sample_rate=options["rate_hz"], sample_format=options["sample_format"],
                                          coding_format="wave")
        self._subscribe(AudioInfo, f"{name}_info", partial(self._infos.__setitem__, name), LATCHED_QOS)
        stamped = options["message"] == "stamped"
        read_audio = read_stamped_audio if stamped else read_plain_audio
        self._listen(name, AudioDataStamped if stamped else AudioData, name,
                     lambda message, received_ns: read_audio(message, self._infos.get(name), received_ns), AUDIO_QOS)

    def close(self) -> None:
        """Unsubscribe from everything."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()
        self._infos.clear()

    def _listen(self, name: str, message_type: type, topic: str, read: Read, qos: QoSProfile) -> None:
        events = {}
        # Humble's middleware has no matched event; silence then says that a publisher is gone.
        if "matched" in inspect.signature(SubscriptionEventCallbacks).parameters:
            events["matched"] = lambda info: self._on_publishers(name, info.current_count)
        events["incompatible_qos"] = lambda info: self._complain_of_qos(topic, qos, info)
        self._subscribe(message_type, topic, partial(self._on_message, name, read), qos, SubscriptionEventCallbacks(**events))

    def _subscribe(self, message_type: type, topic: str, callback: Callable, qos: QoSProfile,
                   events: SubscriptionEventCallbacks | None = None) -> None:
        self._subscriptions.append(self._node.create_subscription(
            message_type, topic, callback, qos, event_callbacks=events, qos_overriding_options=QoSOverridingOptions.with_default_policies()))

    def _complain_of_qos(self, topic: str, qos: QoSProfile, info: Any) -> None:
        resolved = self._node.resolve_topic_name(topic)
        ours = f"reliability {qos.reliability.name}, durability {qos.durability.name}"
        theirs = "; ".join(f"{e.node_name}: reliability {e.qos_profile.reliability.name}, durability {e.qos_profile.durability.name}"
                           for e in self._node.get_publishers_info_by_topic(resolved)) or "unknown"
        self._node.get_logger().error(f"{resolved}: the publisher's QoS does not fit and nothing will arrive; we ask for {ours}, it offers {theirs}; "
                                      f"set qos_overrides.{resolved}.subscription.*")
