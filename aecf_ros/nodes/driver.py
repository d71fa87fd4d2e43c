"""What the two drivers share."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rclpy.exceptions import ParameterException
from rclpy.node import Node

from aecf_ros.nodes.devices import DeviceError
from aecf_ros.nodes.parameters import Parameter, ParameterError, Value

CANNOT_START = (DeviceError, ParameterError, ParameterException)


def declare(node: Node, parameters: Sequence[Parameter]) -> dict[str, Value]:
    """Declare parameters that are read once, and give their values by name.

    Raises:
        ParameterError: a value has the wrong type, is out of bounds or is not one of the choices.
    """
    return {p.name: replace(p, life="start").declare(node) for p in parameters}
