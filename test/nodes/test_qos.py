"""Quality of service can be overridden on every topic of every node."""
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from audio_common_msgs.msg import AudioInfo
from rcl_interfaces.srv import ListParameters
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from aecf_ros.core.types import StreamState

from .alsa import NAME, AlsaMicrophone
from .conftest import Peer
from .processes import NodeProcess
from .test_fusion_node import Robot

ROS_OWN = ("/rosout", "/parameter_events", "/clock", "transition_event")


def topics_without_overrides(peer: Peer, name: str) -> set[str]:
    """Topics of a node for which it has no parameters ``qos_overrides.TOPIC.*``."""
    client = peer.node.create_client(ListParameters, f"/{name}/list_parameters")
    peer.wait_for(client.service_is_ready, f"the parameters of {name}")
    answer = client.call_async(ListParameters.Request())
    peer.wait_for(answer.done, "the list of parameters")
    names = answer.result().result.names
    peer.wait_for(lambda: name in peer.node.get_node_names(), f"{name} to be in the graph")  # its services may be seen before it
    published = {topic for topic, _ in peer.node.get_publisher_names_and_types_by_node(name, "/") if not topic.endswith(ROS_OWN)}
    read = {topic for topic, _ in peer.node.get_subscriber_names_and_types_by_node(name, "/") if not topic.endswith(ROS_OWN)}
    assert published
    return {f"{topic} {what}" for what, topics in (("publisher", published), ("subscription", read)) for topic in topics
            if not all(f"qos_overrides.{topic}.{what}.{policy}" in names for policy in ("depth", "history", "reliability", "durability"))}


def test_every_topic_of_the_fusion_node(start_node, robot: Robot) -> None:
    start_node()
    robot.peer.wait_for(lambda: robot.predictions, "the node to be active")
    assert topics_without_overrides(robot.peer, "fusion_node") == set()


def test_every_topic_of_the_camera_node(peer: Peer, tmp_path: Path) -> None:
    video = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 20.0, (160, 120))
    writer.write(np.zeros((120, 160, 3), np.uint8))
    writer.release()
    node = NodeProcess("aecf_ros.nodes.camera_node", tmp_path / "log", f"source:={video}", "loop:=true")
    try:
        assert topics_without_overrides(peer, "camera_node") == set()
    finally:
        node.end()


def test_every_topic_of_the_microphone_node(peer: Peer, tmp_path: Path) -> None:
    pytest.importorskip("sounddevice", reason="PortAudio is not installed: apt install libportaudio2, pip install sounddevice", exc_type=OSError)
    microphone = AlsaMicrophone(tmp_path, np.random.default_rng(5).integers(-8000, 8000, 16000, dtype=np.int16))
    node = NodeProcess("aecf_ros.nodes.microphone_node", tmp_path / "log", f"device:={NAME}", environment=microphone.environment)
    try:
        assert topics_without_overrides(peer, "microphone_node") == set()
    finally:
        node.end()
        microphone.unplug()


def test_an_info_that_is_not_latched_is_heard_with_the_override_that_the_log_names(start_node, robot: Robot) -> None:
    robot.peer.node.destroy_publisher(robot.audio_info)
    robot.audio_info = robot.peer.node.create_publisher(AudioInfo, "audio_info", QoSProfile(depth=1))
    start_node("qos_overrides./audio_info.subscription.durability:=volatile")

    def feed() -> None:
        robot.tell_format()
        robot.audio.publish(robot.chunk())

    robot.until("audio", StreamState.OK, feed)


@pytest.fixture
def robot(peer: Peer) -> Robot:
    return Robot(peer, Image)
