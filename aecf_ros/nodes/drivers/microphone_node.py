"""The microphone node: publishes what PortAudio records, stamped with the time of its first sample."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from aecf_ros.nodes.drivers.audio_publisher import sound_publisher
from aecf_ros.nodes.drivers.driver import CANNOT_START, declare
from aecf_ros.nodes.drivers.microphone import Health, Microphone, MicrophoneSettings, Sound
from aecf_ros.nodes.fusion.diagnostics import key_values
from aecf_ros.nodes.fusion.parameters import Parameter
from aecf_ros.nodes.ros.process import NodeEnd, run_node
from aecf_ros.nodes.ros.qos import OVERRIDABLE

FULL_SCALE = 32768.0
SILENCE_DBFS = -120.0

MICROPHONE = (
    Parameter(
        "device", "", "Input device: index, name or a part of it that only one has; empty takes the system's default"
    ),
    Parameter("rate_hz", 16000, "Sample rate", "Hz", (1000, 384000)),
    Parameter("channels", 1, "Channels, interleaved in the message", bounds=(1, 64)),
    Parameter("chunk_ms", 100, "Sound in one message", "ms", (1, 1000)),
    Parameter("frame_id", "microphone", "Frame named in the header"),
    Parameter(
        "open_within_s", 15.0, "Time that the device may take to open, after which the node gives up", "s", (0.1, 600.0)
    ),
    Parameter(
        "silent_after_s",
        1.0,
        "Time without sound after which the device is given up and opened again",
        "s",
        (0.1, 60.0),
    ),
    Parameter(
        "reopen_after_s",
        0.25,
        "Time before the first attempt to open a lost device again; doubles with each attempt",
        "s",
        (0.05, 60.0),
    ),
    Parameter("reopen_at_most_s", 1.0, "Longest time between two attempts", "s", (0.05, 600.0)),
    Parameter("diagnostics_period_s", 1.0, "Time between diagnostics while nothing changes", "s", (0.1, 60.0)),
)


class MicrophoneNode(Node):
    """Publishes ``audio`` (S16LE; a latched ``audio_info`` beside it, unless each message says its format) and
    ``/diagnostics``.

    PortAudio's thread only queues and triggers a guard condition; the executor publishes.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("microphone_node", **kwargs)
        values = declare(self, MICROPHONE)
        frame_id = str(values.pop("frame_id"))
        period_s = float(values.pop("diagnostics_period_s"))
        self._settings = MicrophoneSettings(**values)  # type: ignore[arg-type]
        s = self._settings
        self._publish_sound = sound_publisher(self, s.rate_hz, s.channels, s.block_frames, frame_id)
        self._diagnostics = self.create_publisher(
            DiagnosticArray, "/diagnostics", 10, qos_overriding_options=OVERRIDABLE
        )
        self._news = self.create_guard_condition(self._on_news)
        self._meter = _Meter(self._settings)
        self._trouble = ""
        self._lost_s = 0.0
        self._overflows_said = 0
        self._microphone = Microphone(self._settings, lambda: self.get_clock().now().nanoseconds, self._news.trigger)
        self._microphone.start()
        self.get_logger().info(
            f"microphone '{self._microphone.health().device}' at {s.rate_hz} Hz, {s.channels} channels, {s.chunk_ms} ms"
            " in a message"
        )
        self.create_timer(period_s, self._publish_diagnostics, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def destroy_node(self) -> None:
        """Close the device, then the node."""
        self._microphone.stop()
        super().destroy_node()

    def _on_news(self) -> None:
        for sound in self._microphone.take():
            self._publish(sound)
        health = self._microphone.health()
        if bool(health.trouble) != bool(self._trouble):
            self._note_change(health)
        self._trouble = health.trouble
        if health.fatal:
            self.get_logger().fatal(f"{health.trouble}; only a new process can open it again")
            raise NodeEnd(1)

    def _publish(self, sound: Sound) -> None:
        self._publish_sound(sound.stamp_ns, sound.data)
        self._meter.add(sound.data)

    def _note_change(self, health: Health) -> None:
        if health.trouble:
            self._lost_s = time.monotonic()
            self.get_logger().error(f"{health.trouble}; trying to open it again")
        else:
            self.get_logger().info(
                f"microphone '{health.device}' is back after {time.monotonic() - self._lost_s:.1f} s"
            )
        self._publish_diagnostics(health)

    def _publish_diagnostics(self, health: Health | None = None) -> None:
        health = health or self._microphone.health()
        new_overflows = health.overflows - self._overflows_said
        self._overflows_said = health.overflows
        level, text = DiagnosticStatus.OK, f"recording from '{health.device}'"
        if health.trouble:
            level, text = DiagnosticStatus.ERROR, health.trouble
        elif new_overflows:
            level, text = (
                DiagnosticStatus.WARN,
                f"{new_overflows} overflows: sound was lost because this machine is too busy",
            )
        rate_hz, level_dbfs = self._meter.read()
        message = DiagnosticArray(
            status=[
                DiagnosticStatus(
                    level=level,
                    name=f"{self.get_name()}: microphone",
                    message=text,
                    hardware_id=health.device,
                    values=key_values(
                        {
                            "device": health.device,
                            "sample rate (Hz)": self._settings.rate_hz,
                            "measured rate (Hz)": f"{rate_hz:.0f}",
                            "channels": self._settings.channels,
                            "chunk (ms)": self._settings.chunk_ms,
                            "level (dBFS RMS)": f"{level_dbfs:.1f}",
                            "overflows": health.overflows,
                            "dropped (messages)": health.dropped,
                            "opened (times)": health.openings,
                        }
                    ),
                )
            ]
        )
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


class _Meter:
    """Level and rate of the sound since they were last read."""

    def __init__(self, settings: MicrophoneSettings) -> None:
        self._channels = settings.channels
        self._samples = 0
        self._squares = 0.0
        self._since_s = time.monotonic()

    def add(self, data: bytes) -> None:
        samples = np.frombuffer(data, "<i2").astype(np.float64)
        self._samples += len(samples)
        self._squares += float(samples @ samples)

    def read(self) -> tuple[float, float]:
        """Samples of a channel in a second, and the RMS level against full scale in dB, not below ``SILENCE_DBFS``."""
        now_s = time.monotonic()
        rms = math.sqrt(self._squares / max(1, self._samples)) / FULL_SCALE
        rate_hz = self._samples / self._channels / max(1e-3, now_s - self._since_s)
        self._samples, self._squares, self._since_s = 0, 0.0, now_s
        return rate_hz, max(SILENCE_DBFS, 20 * math.log10(rms)) if rms > 0 else SILENCE_DBFS


def main(args: list[str] | None = None) -> None:
    """Entry point of ``ros2 run aecf_ros microphone_node``."""
    run_node(MicrophoneNode, "microphone_node", CANNOT_START, args)


if __name__ == "__main__":
    main()
