"""The camera node: publishes what OpenCV grabs, stamped when it was grabbed."""

from __future__ import annotations

import time
from array import array
from typing import Any

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from aecf_ros.nodes.drivers.camera import Camera, CameraHealth, CameraSettings, Shot, silence_libraries
from aecf_ros.nodes.drivers.driver import CANNOT_START, declare
from aecf_ros.nodes.fusion.diagnostics import key_values
from aecf_ros.nodes.fusion.parameters import Parameter
from aecf_ros.nodes.ros.convert import ns_to_stamp
from aecf_ros.nodes.ros.process import NodeEnd, run_node
from aecf_ros.nodes.ros.qos import OVERRIDABLE

IMAGE_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
"""Reliable fits every subscription; depth 1 keeps no old frame for a slow one."""

CAMERA = (
    Parameter("source", "0", "Camera index, device path, video file or stream URL"),
    Parameter(
        "fourcc",
        "",
        "Pixel format asked of a camera; USB cameras reach their rate at 1280x720 and above with MJPG only; empty takes"
        " its own",
        choices=("", "MJPG", "YUYV"),
    ),
    Parameter("width", 0, "Width asked of a camera; 0 takes its own", "pixels", (0, 16384)),
    Parameter("height", 0, "Height asked of a camera; 0 takes its own", "pixels", (0, 16384)),
    Parameter(
        "rate_hz", 0.0, "Frame rate asked of a camera, or the pace of a file; 0 takes its own", "Hz", (0.0, 1000.0)
    ),
    Parameter("loop", False, "Start a video file again at its end; otherwise the node ends with it"),
    Parameter(
        "transport",
        "raw",
        "Message type of the image topic: sensor_msgs/Image or CompressedImage (JPEG)",
        choices=("raw", "compressed"),
    ),
    Parameter(
        "encoding",
        "bgr8",
        "Order of the colors in sensor_msgs/Image; bgr8 costs no conversion",
        choices=("bgr8", "rgb8"),
    ),
    Parameter("jpeg_quality", 90, "Quality of the JPEG", bounds=(1, 100)),
    Parameter("frame_id", "camera", "Frame named in the header"),
    Parameter(
        "silent_after_s",
        2.0,
        "Time without a frame after which diagnostics are an ERROR, and a stream is opened again",
        "s",
        (0.1, 60.0),
    ),
    Parameter(
        "reopen_after_s",
        0.25,
        "Time before the first attempt to open a lost source again; doubles with each attempt",
        "s",
        (0.05, 60.0),
    ),
    Parameter("reopen_at_most_s", 2.0, "Longest time between two attempts", "s", (0.05, 600.0)),
    Parameter("diagnostics_period_s", 1.0, "Time between diagnostics while nothing changes", "s", (0.1, 60.0)),
)


class CameraNode(Node):
    """Publishes ``camera/image`` and ``/diagnostics``.

    A thread grabs into a slot for one frame and triggers a guard condition; the executor takes the newest frame and
    publishes it.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("camera_node", **kwargs)
        values = declare(self, CAMERA)
        self._frame_id = str(values.pop("frame_id"))
        self._encoding = str(values.pop("encoding"))
        self._quality = [cv2.IMWRITE_JPEG_QUALITY, int(values.pop("jpeg_quality"))]
        self._compressed = values.pop("transport") == "compressed"
        period_s = float(values.pop("diagnostics_period_s"))
        self._settings = CameraSettings(**values)  # type: ignore[arg-type]
        self._images = self.create_publisher(
            CompressedImage if self._compressed else Image,
            "camera/image",
            IMAGE_QOS,
            qos_overriding_options=OVERRIDABLE,
        )
        self._diagnostics = self.create_publisher(
            DiagnosticArray, "/diagnostics", 10, qos_overriding_options=OVERRIDABLE
        )
        self._news = self.create_guard_condition(self._on_news)
        self._trouble = ""
        self._lost_s = 0.0
        self._published = 0
        self._counted = (0, 0, time.monotonic())
        self._last_shot_s = time.monotonic()
        self._camera = Camera(self._settings, lambda: self.get_clock().now().nanoseconds, self._news.trigger)
        self._camera.start()
        self.get_logger().info(
            f"camera '{self._settings.source}' open, publishing {'jpeg' if self._compressed else self._encoding}"
        )
        self.create_timer(period_s, self._publish_diagnostics, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def destroy_node(self) -> None:
        """Release the camera, then the node."""
        self._camera.stop()
        super().destroy_node()

    def _on_news(self) -> None:
        shot = self._camera.take()
        if shot is not None:
            self._publish(shot)
        health = self._camera.health()
        if bool(health.trouble) != bool(self._trouble):
            self._note_change(health)
        self._trouble = health.trouble
        if health.ended:
            self.get_logger().info(
                f"the file {self._settings.source} has ended after {health.grabbed} frames; set loop to start it again"
            )
            raise NodeEnd(0)

    def _publish(self, shot: Shot) -> None:
        self._images.publish(self._compress(shot) if self._compressed else self._raw(shot))
        self._published += 1
        self._last_shot_s = time.monotonic()

    def _raw(self, shot: Shot) -> Image:
        image = (
            cv2.cvtColor(shot.image, cv2.COLOR_BGR2RGB)
            if self._encoding == "rgb8"
            else np.ascontiguousarray(shot.image)
        )
        height, width, _ = image.shape
        message = Image(
            height=height, width=width, encoding=self._encoding, step=3 * width, data=array("B", image.tobytes())
        )
        message.header.stamp = ns_to_stamp(shot.stamp_ns)
        message.header.frame_id = self._frame_id
        return message

    def _compress(self, shot: Shot) -> CompressedImage:
        _, jpeg = cv2.imencode(".jpg", shot.image, self._quality)
        message = CompressedImage(format="jpeg", data=array("B", jpeg.tobytes()))
        message.header.stamp = ns_to_stamp(shot.stamp_ns)
        message.header.frame_id = self._frame_id
        return message

    def _note_change(self, health: CameraHealth) -> None:
        if health.trouble:
            self._lost_s = time.monotonic()
            self.get_logger().error(f"{health.trouble}; trying to open it again")
        else:
            self.get_logger().info(
                f"camera '{self._settings.source}' is back after {time.monotonic() - self._lost_s:.1f} s"
            )
        self._publish_diagnostics(health)

    def _publish_diagnostics(self, health: CameraHealth | None = None) -> None:
        health = health or self._camera.health()
        now_s = time.monotonic()
        grabbed, published, since_s = self._counted
        self._counted = (health.grabbed, self._published, now_s)
        elapsed_s = max(1e-3, now_s - since_s)
        silent_s = now_s - self._last_shot_s
        level, text = DiagnosticStatus.OK, f"grabbing from '{self._settings.source}'"
        if health.trouble:
            level, text = DiagnosticStatus.ERROR, health.trouble
        elif silent_s > self._settings.silent_after_s:
            level, text = DiagnosticStatus.ERROR, f"no frame for {silent_s:.1f} s"
        message = DiagnosticArray(
            status=[
                DiagnosticStatus(
                    level=level,
                    name=f"{self.get_name()}: camera",
                    message=text,
                    hardware_id=self._settings.source,
                    values=key_values(
                        {
                            "source": self._settings.source,
                            "size (pixels)": f"{health.width}x{health.height}",
                            "grabbed (Hz)": f"{(health.grabbed - grabbed) / elapsed_s:.2f}",
                            "published (Hz)": f"{(self._published - published) / elapsed_s:.2f}",
                            "grabbed (frames)": health.grabbed,
                            "dropped (frames)": health.dropped,
                            "opened (times)": health.openings,
                        }
                    ),
                )
            ]
        )
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def main(args: list[str] | None = None) -> None:
    """Entry point of ``ros2 run aecf_ros camera_node``."""
    silence_libraries()
    run_node(CameraNode, "camera_node", CANNOT_START, args)


if __name__ == "__main__":
    main()
