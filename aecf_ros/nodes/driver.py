"""What the two drivers share: how they start, end and try again."""
from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from aecf_ros.nodes.devices import DeviceError
from aecf_ros.nodes.parameters import Parameter, ParameterError, Value
from aecf_ros.nodes.process import ros_process, spin


class Ended(Exception):
    """Raised in a callback of a driver that has nothing left to do; the process ends with ``code``."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def declare(node: Node, parameters: Sequence[Parameter]) -> dict[str, Value]:
    """Declare parameters that are read once, and give their values by name.

    Raises:
        ParameterError: a value has the wrong type, is out of bounds or is not one of the choices.
    """
    return {p.name: replace(p, life="start").declare(node) for p in parameters}


def run_driver(make_node: Callable[[], Node], name: str, args: list[str] | None = None) -> None:
    """Make a node and spin it until SIGINT or SIGTERM, or until it says ``Ended``.

    The process ends with 0 then, with 1 when the node cannot start. A node with threads stops them in ``destroy_node``.
    """
    code = 0
    with ros_process(args) as stopping:
        try:
            node = make_node()
            executor = SingleThreadedExecutor()
            executor.add_node(node)
            try:
                spin(executor, stopping)
            finally:
                executor.shutdown()
                node.destroy_node()
        except Ended as end:
            code = end.code
        except (DeviceError, ParameterError, ParameterException) as error:
            rclpy.logging.get_logger(name).fatal(str(error))
            code = 1
    sys.exit(code)
