"""The sensors, as a process: reads one JSON command a line, publishes, answers with what it sent.

A command is ``{"to": NAMESPACE, "seconds": s, "traffic": Traffic}``; the answer
``{"camera": [stamp_ns, ...], "audio": [...]}``. Frames are
handed over serialized, with their stamp patched in, so that this process costs little.
"""

from __future__ import annotations

import json
import sys
import time
from array import array

import cv2
import numpy as np
import rclpy
from audio_common_msgs.msg import AudioDataStamped, AudioInfo
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image

from aecf_ros.nodes.fusion.inputs import LATCHED_QOS
from aecf_ros.nodes.ros.convert import ns_to_stamp
from benchmarks.node.cases import Traffic

CHUNK_S, RATE_HZ = 0.1, 16_000
STAMP = slice(4, 12)
"""Where the stamp of a message that begins with a header lies in its CDR bytes: behind four bytes of encapsulation."""
FRAMES = 8


def frames(traffic: Traffic) -> list[bytearray]:
    """A few different serialized pictures: a gradient with a sensor's noise."""
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.linspace(40, 220, traffic.width), np.linspace(0, 30, traffic.height))
    made = []
    for _ in range(FRAMES):
        picture = (x + y)[..., None] + rng.normal(0, 2, (traffic.height, traffic.width, 3))
        picture = picture.clip(0, 255).astype(np.uint8)
        if traffic.jpeg:
            message = CompressedImage(
                format="jpeg",
                data=array("B", cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()),
            )
        else:
            message = Image(
                height=traffic.height,
                width=traffic.width,
                encoding="rgb8",
                step=3 * traffic.width,
                data=array("B", picture.tobytes()),
            )
        made.append(bytearray(serialize_message(message)))
    return made


class Sensors:
    """Publishers of one namespace."""

    def __init__(self, node: Node, namespace: str, jpeg: bool, cameras: list[str], microphones: list[str]) -> None:
        kind = CompressedImage if jpeg else Image
        self.cameras = [
            node.create_publisher(kind, f"/{namespace}/{name}/image", qos_profile_sensor_data) for name in cameras
        ]
        self.microphones = [
            node.create_publisher(AudioDataStamped, f"/{namespace}/{name}", qos_profile_sensor_data)
            for name in microphones
        ]
        self.infos = [
            node.create_publisher(AudioInfo, f"/{namespace}/{name}_info", LATCHED_QOS) for name in microphones
        ]
        for publisher in self.infos:
            publisher.publish(AudioInfo(channels=1, sample_rate=RATE_HZ, sample_format="S16LE", coding_format="wave"))

    def heard(self) -> bool:
        """Whether somebody listens to every sensor."""
        return all(p.get_subscription_count() for p in (*self.cameras, *self.microphones))

    def play(
        self, traffic: Traffic, seconds: float, pictures: list[bytearray], sound: np.random.Generator
    ) -> dict[str, list[int]]:
        """Publish on schedule; gives the stamps."""
        sent: dict[str, list[int]] = {"camera": [], "audio": []}
        start = time.monotonic() + 0.02
        events = (
            [(i / traffic.camera_hz, "camera", i) for i in range(int(seconds * traffic.camera_hz))]
            if traffic.camera_hz
            else []
        )
        # Off the frames' beat, as a sound card's clock is.
        events += (
            [(0.0117 + i / traffic.audio_hz, "audio", i) for i in range(int(seconds * traffic.audio_hz))]
            if traffic.audio_hz
            else []
        )
        for at_s, kind, i in sorted(events):
            time.sleep(max(0.0, start + at_s - time.monotonic()))
            if kind == "camera":
                picture = pictures[i % FRAMES]
                for number, publisher in enumerate(self.cameras):
                    stamp_ns = time.time_ns()
                    picture[STAMP] = np.array(divmod(stamp_ns, 10**9), "<u4").tobytes()
                    publisher.publish(bytes(picture))
                    if number == 0:
                        sent["camera"].append(stamp_ns)
            else:
                message = AudioDataStamped()
                # Never the same twice: the node counts a microphone that repeats itself as frozen.
                message.audio.data = array("B", sound.normal(0, 3000, int(CHUNK_S * RATE_HZ)).astype("<i2").tobytes())
                end_ns = time.time_ns() - int(traffic.audio_late_s * 1e9)
                message.header.stamp = ns_to_stamp(end_ns - int(CHUNK_S * 1e9))
                for publisher in self.microphones:
                    publisher.publish(message)
                sent["audio"].append(end_ns)
        return sent


def main() -> None:
    rclpy.init()
    node = rclpy.create_node("sensors")
    setup = json.loads(sys.stdin.readline())
    sensors = {
        name: Sensors(node, name, setup["jpeg"], setup["cameras"], setup["microphones"]) for name in setup["namespaces"]
    }
    give_up = time.monotonic() + 60
    while not all(s.heard() for s in sensors.values()) and time.monotonic() < give_up:
        time.sleep(0.05)
    pictures, known = [], None
    sound = np.random.default_rng(0)
    print(json.dumps({"ready": all(s.heard() for s in sensors.values())}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        traffic = Traffic(**command["traffic"])
        if traffic != known:
            pictures, known = frames(traffic), traffic
        print(json.dumps(sensors[command["to"]].play(traffic, command["seconds"], pictures, sound)), flush=True)
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
