"""Quality of service that users may override, for every topic of every node: ``qos_overrides.TOPIC.publisher|subscription.POLICY``."""

from __future__ import annotations

from rclpy.publisher import PublisherEventCallbacks  # from here, because its own module is another in Humble
from rclpy.qos import QoSPolicyKind
from rclpy.qos_overriding_options import QoSOverridingOptions

OVERRIDABLE = QoSOverridingOptions(
    (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)
)
"""rclpy's defaults, and durability: without it a publisher of ``audio_info`` that is not latched could never be heard."""

UNWATCHED = PublisherEventCallbacks(use_default_callbacks=False)
"""For publishers beside the main ones: each event that rclpy watches is looked at before and after every message that a node takes."""
