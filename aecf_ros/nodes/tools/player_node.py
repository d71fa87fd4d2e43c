"""Play a recording over DDS in real time, with its sensors failing on a schedule.

What `ros2 bag play` does, where that is not installed, and two things more: it injects faults, and it moves header
stamps to the present. Run it as its own process: ``python -m aecf_ros.nodes.tools.player_node --bag B --model M --log
OUT.json [--faults F]``.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message

from aecf_ros.core.bundle import BundleError, load_manifest
from aecf_ros.core.types import NANOSECONDS
from aecf_ros.modalities.messages import stamp_to_ns
from aecf_ros.nodes.fusion.inputs import LATCHED_QOS, load_type
from aecf_ros.nodes.ros.convert import ns_to_stamp
from aecf_ros.nodes.ros.process import ros_process
from aecf_ros.replay.bag.reader import Bag, BagError, RecordedMessage, Topics, open_bag
from aecf_ros.replay.faults.schedule import FaultError, FaultInjector, load_faults
from aecf_ros.replay.scoring.driver import arrivals, stream_kinds

SENSOR_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
MATCH_TIMEOUT_S = 20.0


class PlayError(RuntimeError):
    """The recording cannot be played: a topic has no subscriber, or a message type is not installed."""


def play(
    node: Node,
    bag: Bag,
    topics: Topics,
    injector: FaultInjector,
    on_start: Callable[[int], None],
    stopping: threading.Event,
) -> dict[str, list[int]]:
    """Publish the recording once, in its own time.

    Args:
        injector: applies the faults.
        on_start: called with the node time in ns at which the recording starts, before any sample is published.
        stopping: ends the play when set.

    Returns:
        Header stamps of what was published, in ns, by modality.

    Raises:
        PlayError: a message type is not installed, or a topic found no subscriber within ``MATCH_TIMEOUT_S``.
    """
    types = {topic: _installed(bag.types[topic]) for topic in (*topics.streams.values(), *topics.infos.values())}
    publishers = {topic: node.create_publisher(types[topic], topic, SENSOR_QOS) for topic in topics.streams.values()}
    publishers |= {topic: node.create_publisher(types[topic], topic, LATCHED_QOS) for topic in topics.infos.values()}
    _wait_for_subscribers(publishers, stopping)
    described = _describe_sound(bag, topics, publishers, types)

    start_ns = node.get_clock().now().nanoseconds + NANOSECONDS // 2
    on_start(start_ns)
    offset_ns = start_ns - bag.start_ns
    published: dict[str, list[int]] = {name: [] for name in topics.streams}

    def read(recorded: RecordedMessage) -> Any:
        message = deserialize_message(recorded.data, types[recorded.topic])
        if hasattr(message, "header"):
            message.header.stamp = ns_to_stamp(stamp_to_ns(message.header.stamp) + offset_ns)
        return message

    for arrival in arrivals(bag.messages(list(publishers)), bag.start_ns, topics, injector, read):
        name = arrival.stream
        wait_ns = arrival.at_ns + offset_ns - node.get_clock().now().nanoseconds
        if stopping.wait(max(0.0, wait_ns / NANOSECONDS)):
            break
        if arrival.info is not None and arrival.info != described.get(name):
            described[name] = arrival.info
            publishers[topics.infos[name]].publish(arrival.info)
        publishers[topics.streams[name]].publish(arrival.message)
        header = getattr(arrival.message, "header", None)
        published[name].append(arrival.at_ns + offset_ns if header is None else stamp_to_ns(header.stamp))
    return published


def _installed(name: str) -> Any:
    message_type = load_type(name)
    if message_type is None:
        raise PlayError(
            f"the recording holds {name}, which is not installed here; install its package, or see `aecf doctor` for a"
            " mismatched one"
        )
    return message_type


def _describe_sound(
    bag: Bag, topics: Topics, publishers: Mapping[str, Publisher], types: Mapping[str, Any]
) -> dict[str, Any]:
    """Publish the first AudioInfo of each stream before any sound, as a latched topic would have it; gives them by
    modality.
    """
    described = {}
    for name, topic in topics.infos.items():
        recorded = next(bag.messages([topic]), None)
        if recorded is not None:
            described[name] = deserialize_message(recorded.data, types[topic])
            publishers[topic].publish(described[name])
    return described


def _wait_for_subscribers(publishers: Mapping[str, Publisher], stopping: threading.Event) -> None:
    give_up = time.monotonic() + MATCH_TIMEOUT_S
    while missing := [topic for topic, publisher in publishers.items() if publisher.get_subscription_count() == 0]:
        if time.monotonic() > give_up:
            raise PlayError(
                f"no node subscribes to {', '.join(missing)} after {MATCH_TIMEOUT_S:.0f} s; "
                "start the fusion node first, in the same ROS_DOMAIN_ID"
            )
        if stopping.wait(0.02):
            raise PlayError("stopped before a node subscribed")


def main(argv: list[str] | None = None) -> int:
    """Play one recording; exit code 0 when it was played, 1 when it could not be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bag", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--faults", type=Path)
    parser.add_argument("--log", type=Path, required=True, help="JSON to write: start_ns at once, published at the end")
    args = parser.parse_args(argv)
    log: dict[str, object] = {}

    def note(**entries: object) -> None:
        log.update(entries)
        args.log.write_text(json.dumps(log), encoding="utf-8")

    with ros_process() as stopping:
        node = Node("player")
        try:
            manifest = load_manifest(args.model)
            kinds = stream_kinds(manifest)
            faults = load_faults(args.faults, kinds) if args.faults else ()
            with open_bag(args.bag) as bag:
                published = play(
                    node,
                    bag,
                    bag.choose_topics(manifest),
                    FaultInjector(faults, kinds),
                    lambda start_ns: note(start_ns=start_ns),
                    stopping,
                )
            note(published=published)
            return 1 if stopping.is_set() else 0
        except (BagError, BundleError, FaultError, PlayError) as error:
            node.get_logger().fatal(str(error))
            return 1
        finally:
            node.destroy_node()


if __name__ == "__main__":
    sys.exit(main())
