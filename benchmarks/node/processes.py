"""The processes under test, what they cost, and what they answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile

from aecf_msgs.msg import FusedPrediction
from aecf_ros.nodes.ros.process import stop_process

REPOSITORY = Path(__file__).resolve().parents[2]
PROFILE = REPOSITORY / "config" / "fastdds_shared_memory.xml"
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class BenchmarkError(RuntimeError):
    """A process that does not come up; says which and where its output is."""


def environment(domain: int) -> dict[str, str]:
    """Additions to this environment for every process: Fast DDS profile, a domain of its own, this repository."""
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "FASTDDS_DEFAULT_PROFILES_FILE": str(PROFILE),
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(PROFILE),
        "ROS_DOMAIN_ID": str(domain),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "PYTHONPATH": os.pathsep.join(paths),
    }


class System:
    """One process under test, in a namespace of its own."""

    def __init__(self, name: str, topic: str, module: str, arguments: Sequence[str], log: Path) -> None:
        self.name = name
        self.topic = topic
        self.log = log
        with log.open("w") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments], stdout=sink, stderr=subprocess.STDOUT, cwd=REPOSITORY
            )

    def cpu_s(self) -> float:
        """Seconds of CPU used so far by all threads: exact where the kernel counts them, else in ticks."""
        total = 0
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except (FileNotFoundError, ProcessLookupError, IndexError):  # a thread that has just ended
                continue
        if total:
            return total / 1e9
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK_S

    def rss_mb(self) -> float:
        """Resident memory, without what is shared with other processes by Fast DDS."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        kilobytes = {
            key: int(rest.split()[0])
            for key, _, rest in (line.partition(":") for line in status.splitlines())
            if key.startswith("Rss")
        }
        return (kilobytes.get("RssAnon", 0) + kilobytes.get("RssFile", 0)) / 1024

    def stop(self) -> None:
        """Politely first, so that nothing is left in shared memory."""
        stop_process(self.process, 10)


class Sensors:
    """The publisher's process and its two pipes."""

    def __init__(
        self,
        namespaces: Sequence[str],
        jpeg: bool,
        cameras: Sequence[str] = ("camera",),
        microphones: Sequence[str] = ("audio",),
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.node.publisher"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )
        self._send(
            {"namespaces": list(namespaces), "jpeg": jpeg, "cameras": list(cameras), "microphones": list(microphones)}
        )

    def wait_ready(self) -> None:
        """Until everybody listens to every sensor."""
        if not self.answer().get("ready"):
            raise BenchmarkError("not every process under test subscribed to the sensors within 60 s")

    def play(self, namespace: str, seconds: float, traffic: dict) -> None:
        """Begin to publish; :meth:`answer` waits for the end."""
        self._send({"to": namespace, "seconds": seconds, "traffic": traffic})

    def answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise BenchmarkError("the publisher ended early")
        return json.loads(line)

    def _send(self, command: dict) -> None:
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def stop(self) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Sink:
    """Receives every prediction, and the node's diagnostics, in this process."""

    def __init__(self, systems: Sequence[System]) -> None:
        rclpy.init()
        self._node = rclpy.create_node("sink")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self.received: dict[str, list[tuple[int, int]]] = {s.name: [] for s in systems}
        self.diagnostics: list[tuple[int, DiagnosticArray]] = []
        for s in systems:
            self._node.create_subscription(
                FusedPrediction, s.topic, self._receiver(self.received[s.name]), QoSProfile(depth=50)
            )
        self._node.create_subscription(
            DiagnosticArray,
            "/diagnostics",
            lambda m: self.diagnostics.append((time.time_ns(), m)),
            QoSProfile(depth=10),
        )

    @staticmethod
    def _receiver(received: list[tuple[int, int]]):
        def receive(message: FusedPrediction) -> None:
            now_ns = time.time_ns()
            received.append((message.header.stamp.sec * 10**9 + message.header.stamp.nanosec, now_ns))

        return receive

    def spin_for(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.try_shutdown()
