"""How a node's process starts and ends: ROS is shut down between two callbacks, never inside one."""
from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import rclpy
from rclpy.executors import Executor
from rclpy.signals import SignalHandlerOptions

LONGEST_WAIT_S = 0.5
"""A signal that comes while nothing happens is noticed after at most so long."""


@contextmanager
def ros_process(args: list[str] | None = None) -> Iterator[threading.Event]:
    """Initialize ROS, and give an event that SIGINT or SIGTERM sets; ROS is shut down at the end.

    rclpy's own handlers invalidate the context at once, so that a callback that is just publishing fails. Call from the main
    thread. A second signal has its default effect.
    """
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    stopping = threading.Event()

    def stop(number: int, frame: object) -> None:
        stopping.set()
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        rclpy.try_shutdown()


def spin(executor: Executor, stopping: threading.Event) -> None:
    """Serve callbacks until ``stopping`` is set or ROS is shut down from elsewhere."""
    while not stopping.is_set() and rclpy.ok():
        executor.spin_once(timeout_sec=LONGEST_WAIT_S)
