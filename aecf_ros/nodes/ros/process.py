"""Start and stop of a node's process: ROS is shut down between two callbacks, never inside one."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import rclpy
from rclpy.executors import Executor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from aecf_ros.nodes.ros.executor import SteadyExecutor

LONGEST_WAIT_S = 0.5
"""Longest wait before a signal is noticed."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 1 << 25


def keep_freed_memory() -> None:
    """Let glibc keep up to 32 MB of freed memory for the next message.

    By default it may return the memory of a large frame to the system and take it anew, page by page, for the next
    one. A raw frame of 1920x1080 then takes 9 ms to arrive instead of 4.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # other C libraries lack it
        for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            libc.mallopt(option, _KEPT_BYTES)


@contextmanager
def ros_process(args: list[str] | None = None) -> Iterator[threading.Event]:
    """Initialize ROS and yield an event that SIGINT or SIGTERM sets; shut ROS down at the end.

    rclpy's own handlers invalidate the context at once, so that a callback that is publishing fails. Call from the
    main thread. A second signal has its default effect. Freed memory is kept (:func:`keep_freed_memory`).
    """
    keep_freed_memory()
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


class NodeEnd(Exception):  # noqa: N818, it is not an error
    """Raised in a callback of a node that is done; its process exits with ``code``."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def run_node(
    make_node: Callable[[], Node],
    name: str,
    refusals: tuple[type[Exception], ...],
    args: list[str] | None = None,
    start: Callable[[Node], bool] = lambda node: True,
    make_executor: Callable[[Node], Executor] = lambda node: SteadyExecutor(),
) -> NoReturn:
    """Make a node and spin it until SIGINT, SIGTERM or :class:`NodeEnd`.

    The process exits with 0 then, and with 1 if the node cannot start. A node stops its threads in ``destroy_node``.

    Args:
        refusals: exceptions whose line says why the node cannot start; they are logged as fatal.
        start: called before spinning; the process exits with 1 if it returns false.
        make_executor: makes the executor of the node.
    """
    code = 0
    with ros_process(args) as stopping:
        try:
            node = make_node()
            executor = make_executor(node)
            executor.add_node(node)
            try:
                if start(node):
                    spin(executor, stopping)
                else:
                    code = 1
            finally:
                executor.shutdown()
                node.destroy_node()
        except NodeEnd as end:
            code = end.code
        except refusals as error:
            rclpy.logging.get_logger(name).fatal(str(error))
            code = 1
    sys.exit(code)


def stop_process(process: subprocess.Popen, patience_s: float) -> int:
    """Interrupt a process as Ctrl-C does, so that it cleans up shared memory; kill it after ``patience_s``.

    Returns:
        Its exit code.
    """
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        return process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
