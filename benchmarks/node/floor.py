"""The floor: subscription, encoder, publish. Only what cannot be left out.

Frames are taken as serialized bytes, read in place and resized bilinearly to the encoder's size. No stream health, no
fusion, no checks.
"""

from __future__ import annotations

import struct
import sys
from array import array

import cv2
import numpy as np
import onnxruntime as ort
import rclpy
from audio_common_msgs.msg import AudioDataStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from aecf_msgs.msg import FusedPrediction
from aecf_ros.core.bundle import Manifest, load_bundle
from aecf_ros.nodes.ros.process import ros_process, spin

NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


def session(path: str, threads: int) -> ort.InferenceSession:
    """On the CPU, for one sample at a time; ``threads`` 0 is onnxruntime's default."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_free_dimension_override_by_name("batch", 1)
    if threads:
        options.intra_op_num_threads = options.inter_op_num_threads = threads
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def pixels(raw: bytes, jpeg: bool) -> np.ndarray:
    """The picture in a serialized CompressedImage or rgb8 Image, uint8 (H, W, 3); the latter is not copied."""
    at = _behind_text(raw, 12)  # stamp, then frame_id
    if jpeg:
        at = _behind_text(raw, at)
        (size,) = struct.unpack_from("<I", raw, at)
        return cv2.cvtColor(
            cv2.imdecode(np.frombuffer(raw, np.uint8, size, at + 4), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
        )
    height, width = struct.unpack_from("<II", raw, at)
    at = _behind_text(raw, at + 8, then=1)  # encoding, then is_bigendian
    _, size = struct.unpack_from("<II", raw, at)
    return np.frombuffer(raw, np.uint8, size, at + 8).reshape(height, width, 3)


def _behind_text(raw: bytes, at: int, then: int = 0) -> int:
    """Where the next aligned field begins behind a string at ``at`` and ``then`` bytes."""
    (length,) = struct.unpack_from("<I", raw, at)
    return (at + 4 + length + then + 3) // 4 * 4


def main(model: str, jpeg: bool, lead: str) -> None:
    bundle = load_bundle(model)
    manifest: Manifest = bundle.manifest
    camera, audio = manifest.modalities
    see, hear = (session(str(bundle.path(m.encoder)), 1) for m in (camera, audio))
    window = np.zeros((1, audio.window_samples), np.float32)
    with ros_process() as stopping:
        node = rclpy.create_node("floor")
        publisher = node.create_publisher(FusedPrediction, "prediction", QoSProfile(depth=10))

        def answer(stamp: tuple[int, int], embedding: np.ndarray) -> None:
            message = FusedPrediction(probabilities=array("f", embedding[0, :10].tobytes()))
            message.header.stamp.sec, message.header.stamp.nanosec = stamp
            publisher.publish(message)

        def on_frame(raw: bytes) -> None:
            image = cv2.resize(pixels(raw, jpeg), (camera.width, camera.height), interpolation=cv2.INTER_LINEAR)
            answer(struct.unpack_from("<iI", raw, 4), see.run(("embedding",), {"image": image[None]})[0])

        def on_audio(message: AudioDataStamped) -> None:
            samples = np.frombuffer(message.audio.data, "<i2")
            window[0, : -len(samples)] = window[0, len(samples) :]
            window[0, -len(samples) :] = samples * np.float32(1 / 32768)
            embedding = hear.run(("embedding",), {"samples": window})[0]
            if lead == "audio":
                end_ns = (
                    message.header.stamp.sec * 10**9
                    + message.header.stamp.nanosec
                    + len(samples) * 10**9 // audio.rate_hz
                )
                answer(divmod(end_ns, 10**9), embedding)

        node.create_subscription(CompressedImage if jpeg else Image, "camera/image", on_frame, NEWEST, raw=True)
        node.create_subscription(
            AudioDataStamped, "audio", on_audio, QoSProfile(depth=20, reliability=ReliabilityPolicy.BEST_EFFORT)
        )
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        spin(executor, stopping)
        executor.shutdown()
        node.destroy_node()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] == "jpeg", sys.argv[3])
