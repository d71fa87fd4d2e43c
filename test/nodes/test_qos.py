"""Every topic of every running node is as docs/topics.md says, and its quality of service can be overridden."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest
from audio_common_msgs.msg import AudioInfo
from rcl_interfaces.srv import ListParameters
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image

from aecf_ros.core.types import StreamState

from .alsa import NAME, AlsaMicrophone
from .conftest import ROOT, Peer
from .processes import NodeProcess
from .test_fusion_node import Robot

ROS_OWN = ("/rosout", "/parameter_events", "/clock", "transition_event")
PAGE = (ROOT / "docs" / "topics.md").read_text()


def ask(peer: Peer, service_type: type, name: str) -> object:
    return peer.ask(peer.node.create_client(service_type, name), service_type.Request())


def topics_of(peer: Peer, name: str) -> dict[tuple[str, str], str]:
    """Of a running node, as far as it has been discovered: ``(in|out, topic)`` -> its type."""
    if name not in peer.node.get_node_names():
        return {}
    published, read = (
        peer.node.get_publisher_names_and_types_by_node(name, "/"),
        peer.node.get_subscriber_names_and_types_by_node(name, "/"),
    )
    return {
        (way, topic): kind
        for way, listed in (("out", published), ("in", read))
        for topic, (kind,) in listed
        if not topic.endswith(ROS_OWN)
    }


def qos_of(peer: Peer, name: str, way: str, topic: str) -> str:
    """The QoS that a node has on a topic, in the words of docs/topics.md."""
    details = peer.node.get_publishers_info_by_topic if way == "out" else peer.node.get_subscriptions_info_by_topic

    def profiles() -> list[QoSProfile]:
        return [info.qos_profile for info in details(topic) if info.node_name == name]

    peer.wait_for(profiles, f"the QoS of {name} on {topic}")
    (qos,) = profiles()
    return qos.reliability.name.lower().replace("_", " ") + (
        ", latched" if qos.durability is DurabilityPolicy.TRANSIENT_LOCAL else ""
    )


def topics_without_overrides(peer: Peer, name: str, topics: Iterable[tuple[str, str]]) -> set[str]:
    """Those for which a running node has no parameters ``qos_overrides.TOPIC.*``."""
    names = ask(peer, ListParameters, f"/{name}/list_parameters").result.names
    called = [f"qos_overrides.{topic}.{'publisher' if way == 'out' else 'subscription'}" for way, topic in topics]
    return {
        entity
        for entity in called
        if not all(f"{entity}.{policy}" in names for policy in ("depth", "history", "reliability", "durability"))
    }


def page_of(name: str) -> dict[tuple[str, str], tuple[str, str]]:
    """The rows of a node in docs/topics.md: ``(in|out|service, name)`` -> type, QoS."""
    section = re.search(rf"(?ms)^## `{name}`$(.*?)(?=^## |\Z)", PAGE)[1]
    rows = re.findall(r"(?m)^\| (in|out|service) \| `(\S+)` \| (.*?) \| (.*?) \|", section)
    return {
        (way, topic.replace("~", f"/{name}") if topic[0] in "/~" else f"/{topic}"): (kind, qos)
        for way, topic, kind, qos in rows
    }


def check(peer: Peer, name: str) -> None:
    """Every topic of a running node is in docs/topics.md, with its type and QoS, and can be overridden."""
    page = {entry: row for entry, row in page_of(name).items() if entry[0] != "service"}
    peer.wait_for(lambda: topics_of(peer, name).keys() >= page.keys(), f"{name} to have every topic of docs/topics.md")
    topics = topics_of(peer, name)
    assert topics.keys() == page.keys()
    for entry, kind in topics.items():
        assert f"`{kind}`" in page[entry][0] and qos_of(peer, name, *entry) == page[entry][1].rpartition(",")[0], (
            entry,
            kind,
        )
    assert topics_without_overrides(peer, name, topics) == set()


def test_every_topic_of_the_fusion_node(start_node, robot: Robot) -> None:
    pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not installed")
    start_node()
    robot.peer.wait_for(lambda: robot.predictions, "the node to be active")
    check(robot.peer, "fusion_node")

    def services() -> dict[str, str]:
        listed = robot.peer.node.get_service_names_and_types_by_node("fusion_node", "/")
        return {name: kind for name, (kind,) in listed if kind.startswith("std_srvs")}

    robot.peer.wait_for(lambda: len(services()) > 1, "its services")
    assert services() == {
        name: kind.strip("`") for (way, name), (kind, _) in page_of("fusion_node").items() if way == "service"
    }


def test_every_topic_of_the_camera_node(peer: Peer, tmp_path: Path) -> None:
    video = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 20.0, (160, 120))
    writer.write(np.zeros((120, 160, 3), np.uint8))
    writer.release()
    node = NodeProcess("aecf_ros.nodes.drivers.camera_node", tmp_path / "log", f"source:={video}", "loop:=true")
    try:
        check(peer, "camera_node")
    finally:
        node.end()


def test_every_topic_of_the_microphone_node(peer: Peer, tmp_path: Path) -> None:
    pytest.importorskip(
        "sounddevice",
        reason="PortAudio is not installed: apt install libportaudio2, pip install sounddevice",
        exc_type=OSError,
    )
    microphone = AlsaMicrophone(tmp_path, np.random.default_rng(5).integers(-8000, 8000, 16000, dtype=np.int16))
    node = NodeProcess(
        "aecf_ros.nodes.drivers.microphone_node",
        tmp_path / "log",
        f"device:={NAME}",
        environment=microphone.environment,
    )
    try:
        check(peer, "microphone_node")
    finally:
        node.end()
        microphone.unplug()


def test_every_topic_of_the_evaluator_node(peer: Peer, tmp_path: Path) -> None:
    node = NodeProcess("aecf_ros.nodes.tools.evaluator_node", tmp_path / "log")
    try:
        check(peer, "evaluator_node")
    finally:
        node.end()


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
