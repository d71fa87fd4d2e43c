"""Real nodes over real DDS: each test has its own domain on this host, bounded waits and no fixed sleeps."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy is not importable: source ROS 2 or run `make test`")

from rclpy.client import Client  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.task import Future  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "av_digits"
RECORDING = MODEL / "demo.mcap"
WAIT_S = 60.0
ASK_AGAIN_S = 5.0

_domains = itertools.count(101 + os.getpid() % 60)


def segments() -> set[str]:
    """Fast DDS files in shared memory."""
    return {p.name for p in Path("/dev/shm").glob("*fast*")}


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> int:
    """A private ROS domain, also for child processes."""
    number = next(_domains) % 230
    monkeypatch.setenv("ROS_DOMAIN_ID", str(number))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    return number


def private_environment() -> dict[str, str]:
    """This environment with a ROS domain that no other test has, for processes that several tests share."""
    return {**os.environ, "ROS_DOMAIN_ID": str(next(_domains) % 230), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


class Peer:
    """A node in this process that talks to the one under test."""

    def __init__(self, domain: int) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = Node("peer", context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)

    def wait_for(self, condition: Callable[[], object], what: str, between: Callable[[], None] = lambda: None) -> None:
        """Spin until ``condition`` holds, calling ``between`` each round; fails the test after ``WAIT_S``."""
        give_up = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < give_up, f"waited {WAIT_S:.0f} s in vain for {what}"
            between()
            self._executor.spin_once(timeout_sec=0.02)

    def ask(self, client: Client, request: Any, between: Callable[[], None] = lambda: None) -> Any:
        """The answer of a service, asked again where none comes: the middleware drops an answer whose reader the
        server has not discovered 0.1 s
        later, and no client can know whether it has."""
        self.wait_for(client.service_is_ready, f"the service {client.srv_name}", between)
        asked: list[tuple[float, Future]] = []

        def ask_again() -> None:
            between()
            if not asked or time.monotonic() - asked[-1][0] > ASK_AGAIN_S:
                asked.append((time.monotonic(), client.call_async(request)))

        self.wait_for(lambda: any(answer.done() for _, answer in asked), f"an answer of {client.srv_name}", ask_again)
        return next(answer.result() for _, answer in asked if answer.done())

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def peer(domain: int) -> Iterator[Peer]:
    a_peer = Peer(domain)
    yield a_peer
    a_peer.close()


class FusionProcess:
    """The fusion node as its own process; its output is kept."""

    def __init__(self, *parameters: str, log: Path) -> None:
        self.log = log
        overrides = [part for p in parameters for part in ("-p", p)]
        with log.open("w") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "aecf_ros.nodes.fusion.node", "--ros-args", *overrides],
                stdout=sink,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
            )

    def output(self) -> str:
        return self.log.read_text()

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(WAIT_S)


UNPACED = tuple(
    f"{stream}.{check}:=0.0" for stream in ("camera", "audio") for check in ("min_rate_ratio", "max_lost", "max_jitter")
)
"""Parameters that switch the checks of pace off, for tests of something else whose sensors are paced by a busy
machine.
"""


PATIENT = tuple(
    f"{stream}.{limit}"
    for stream in ("camera", "audio")
    for limit in ("stale_after_s:=60.0", "dropped_after_s:=60.0", "late_after_s:=0.0", "too_old_after_s:=0.0")
)
"""Parameters with which a pause of the test is no fault: a busy machine needs long from one message to the next."""


@pytest.fixture
def start_node(domain: int, tmp_path: Path) -> Iterator[Callable[..., FusionProcess]]:
    """Starts fusion nodes with parameters ``name:=value``; stops them when the test ends."""
    started: list[FusionProcess] = []

    def start(*parameters: str) -> FusionProcess:
        started.append(FusionProcess(*parameters, log=tmp_path / f"node{len(started)}.log"))
        return started[-1]

    yield start
    for one in started:
        one.stop()
