"""A mock of the command `ros2 bag play`, which is no Python package: the same arguments, every message of a bag
published as recorded, and /clock.

    python -m test.nodes.mock_ros2 bag play BAG --clock 100 ...

After each picture it waits for the fusion node's answer, and so does /clock: a busy machine plays the recording more
slowly and loses nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from rosbags.highlevel import AnyReader
from rosgraph_msgs.msg import Clock

from aecf_msgs.msg import FusedPrediction
from aecf_ros.modalities.registry import MODALITIES
from aecf_ros.nodes.fusion.inputs import load_type

PATIENCE_S = 5.0
"""For an answer; best-effort readers that have not been found yet give none."""


def arguments() -> argparse.Namespace:
    """The arguments that ros2bag has in Humble and Jazzy, of those that the launch file gives; argparse refuses any
    other.
    """
    parser = argparse.ArgumentParser(prog="ros2")
    parser.add_argument("command", choices=["bag"])
    parser.add_argument("verb", choices=["play"])
    parser.add_argument("bag_path", type=Path)
    parser.add_argument("--clock", type=float, nargs="?", const=40.0, default=0.0)
    parser.add_argument("-r", "--rate", type=float, default=1.0)
    parser.add_argument("-d", "--delay", type=float, default=0.0)
    parser.add_argument("--disable-keyboard-controls", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Play once."""
    args = arguments()
    rclpy.init()
    node = Node("rosbag2_player")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    clock = node.create_publisher(Clock, "/clock", 10)
    answers: list[FusedPrediction] = []
    node.create_subscription(FusedPrediction, "/fusion_node/prediction", answers.append, 10)
    with AnyReader([args.bag_path]) as reader:
        publishers = {}
        for connection in reader.connections:
            latched = any(
                profile.durability.name == "TRANSIENT_LOCAL" for profile in connection.ext.offered_qos_profiles
            )
            durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
            publishers[connection.id] = node.create_publisher(
                load_type(connection.msgtype), connection.topic, QoSProfile(depth=10, durability=durability)
            )
        time.sleep(args.delay)
        wait_for(executor, lambda: all(p.get_subscription_count() for p in publishers.values()))
        started_s, period_ns = time.monotonic(), int(1e9 / args.clock)
        tick_ns = reader.start_time
        for connection, log_ns, data in reader.messages():
            while True:
                due_ns = min(log_ns, tick_ns)
                wait_s = (due_ns - reader.start_time) / 1e9 / args.rate - (time.monotonic() - started_s)
                time.sleep(max(0.0, wait_s))
                started_s += max(0.0, -wait_s)  # nothing is caught up with
                if log_ns < tick_ns:
                    break
                clock.publish(Clock(clock=Time(nanoseconds=tick_ns).to_msg()))
                tick_ns += period_ns
            before = len(answers)
            publishers[connection.id].publish(bytes(data))
            if connection.msgtype in MODALITIES["image"].message_types.values():
                wait_for(executor, lambda: len(answers) > before)  # noqa: B023
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown()


def wait_for(executor: SingleThreadedExecutor, condition: Callable[[], bool]) -> None:
    """Spin until it holds, but no longer than ``PATIENCE_S``."""
    give_up_s = time.monotonic() + PATIENCE_S
    while not condition() and time.monotonic() < give_up_s:
        executor.spin_once(timeout_sec=0.02)


if __name__ == "__main__":
    main()
