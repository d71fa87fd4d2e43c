"""Predictions as ``vision_msgs/Classification``, where that package is installed."""

from __future__ import annotations

from importlib.util import find_spec

from rclpy.lifecycle import LifecycleNode

from aecf_ros.core.bundle import Manifest
from aecf_ros.core.types import Prediction
from aecf_ros.nodes.fusion.inputs import LATCHED_QOS
from aecf_ros.nodes.ros.convert import ns_to_stamp
from aecf_ros.nodes.ros.qos import OVERRIDABLE, UNWATCHED

INSTALLED = find_spec("vision_msgs") is not None


class ClassificationPublisher:
    """Publishes ``~/classification`` (the probability of every class) and a latched ``~/label_info``."""

    def __init__(self, node: LifecycleNode) -> None:
        self._labels: list[str] = []
        if not INSTALLED:
            return
        from vision_msgs.msg import Classification, LabelInfo

        self._classification = node.create_lifecycle_publisher(
            Classification, "~/classification", 10, qos_overriding_options=OVERRIDABLE, event_callbacks=UNWATCHED
        )
        self._label_info = node.create_publisher(
            LabelInfo, "~/label_info", LATCHED_QOS, qos_overriding_options=OVERRIDABLE, event_callbacks=UNWATCHED
        )

    def announce(self, manifest: Manifest) -> None:
        """Publish the labels of a model."""
        self._labels = manifest.labels
        if not INSTALLED:
            return
        from vision_msgs.msg import LabelInfo, VisionClass

        self._label_info.publish(
            LabelInfo(class_map=[VisionClass(class_id=i, class_name=name) for i, name in enumerate(manifest.labels)])
        )

    def publish(self, prediction: Prediction, frame_id: str) -> None:
        """Publish one prediction, if the topic has subscribers."""
        if not INSTALLED or not self._classification.get_subscription_count():
            return
        from vision_msgs.msg import Classification, ObjectHypothesis

        results = [
            ObjectHypothesis(class_id=label, score=float(p))
            for label, p in zip(self._labels, prediction.probabilities, strict=True)
        ]
        message = Classification(results=sorted(results, key=lambda r: -r.score))
        message.header.stamp = ns_to_stamp(prediction.stamp_ns)
        message.header.frame_id = frame_id
        self._classification.publish(message)
