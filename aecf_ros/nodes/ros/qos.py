"""QoS policies that users may override on every topic of every node.

The parameters are ``qos_overrides.TOPIC.publisher|subscription.POLICY``.
"""

from __future__ import annotations

from rclpy.publisher import PublisherEventCallbacks  # from here, because its own module is another in Humble
from rclpy.qos import QoSPolicyKind
from rclpy.qos_overriding_options import QoSOverridingOptions

OVERRIDABLE = QoSOverridingOptions(
    (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)
)
"""rclpy's defaults and durability, which a subscriber to an ``audio_info`` that is not latched has to lower."""

UNWATCHED = PublisherEventCallbacks(use_default_callbacks=False)
"""No event callbacks, for the secondary publishers: rclpy checks each event before and after every message."""
