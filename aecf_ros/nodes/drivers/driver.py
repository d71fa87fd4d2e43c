"""What plain nodes share: the drivers and the evaluator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rclpy.exceptions import ParameterException
from rclpy.node import Node

from aecf_ros.nodes.drivers.devices import DeviceError
from aecf_ros.nodes.fusion.parameters import Parameter, ParameterError, Value

CANNOT_START = (DeviceError, ParameterError, ParameterException)


def read_once(parameters: Sequence[Parameter]) -> tuple[Parameter, ...]:
    """The parameters of a plain node, which reads them when it starts."""
    return tuple(replace(p, life="start") for p in parameters)


def declare(node: Node, parameters: Sequence[Parameter]) -> dict[str, Value]:
    """Declare parameters that are read once, and give their values by name.

    Raises:
        ParameterError: a value has the wrong type, is out of bounds or is not one of the choices.
    """
    return {p.name: p.declare(node) for p in read_once(parameters)}
