"""The shipped Fast DDS profile carries large best-effort frames between processes, which the default does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT

PROFILE = ROOT / "config" / "fastdds_shared_memory.xml"
FRAMES = 20

ECHO = """
import rclpy
from aecf_ros.nodes.ros.process import ros_process, spin
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import UInt64
with ros_process() as stopping:
    node = rclpy.create_node("echo")
    answers = node.create_publisher(UInt64, "echo", 10)
    def answer(frame):
        answers.publish(UInt64(data=frame.header.stamp.nanosec))

    node.create_subscription(Image, "frames", answer, qos_profile_sensor_data)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    spin(executor, stopping)
    node.destroy_node()
"""

SEND = """
import sys, time, rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import UInt64
width, height, frames = map(int, sys.argv[1:])
rclpy.init()
node = rclpy.create_node("sender")
executor = SingleThreadedExecutor()
executor.add_node(node)
echoed = set()
node.create_subscription(UInt64, "echo", lambda m: echoed.add(m.data), 10)
publisher = node.create_publisher(Image, "frames", qos_profile_sensor_data)
give_up = time.monotonic() + 60
while 0 not in echoed and time.monotonic() < give_up:  # small ones, until both sides have found each other
    publisher.publish(Image())
    executor.spin_once(timeout_sec=0.05)
image = Image(width=width, height=height, encoding="rgb8", step=3 * width, data=bytes(3 * width * height))
for i in range(1, frames + 1):
    image.header.stamp.nanosec = i
    publisher.publish(image)
    wait = time.monotonic() + 2
    while i not in echoed and time.monotonic() < wait:
        executor.spin_once(timeout_sec=0.05)
print(len(echoed - {0}))
node.destroy_node()
rclpy.shutdown()
"""


def delivered(width: int, height: int, profile: Path | None) -> int:
    """How many of FRAMES raw frames arrive in another process, each sent when the one before it was answered or
    given up.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    environment.pop("FASTDDS_DEFAULT_PROFILES_FILE", None)
    environment.pop("FASTRTPS_DEFAULT_PROFILES_FILE", None)
    if profile is not None:
        environment |= {"FASTDDS_DEFAULT_PROFILES_FILE": str(profile), "FASTRTPS_DEFAULT_PROFILES_FILE": str(profile)}
    with subprocess.Popen([sys.executable, "-c", ECHO], env=environment) as echo:
        try:
            sent = subprocess.run(
                [sys.executable, "-c", SEND, str(width), str(height), str(FRAMES)],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
                timeout=200,
            )
        finally:
            echo.terminate()
    return int(sent.stdout)


@pytest.mark.parametrize(("width", "height"), [(640, 480), (1280, 720), (1920, 1080)])
def test_every_large_frame_arrives_with_the_profile(width: int, height: int, domain: int) -> None:
    assert delivered(width, height, PROFILE) == FRAMES
