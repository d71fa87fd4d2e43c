"""Entry points of ``ros2 run aecf_ros NAME``, which name a missing package in one line."""

from __future__ import annotations

import importlib
import sys

from aecf_ros.core.errors import BUILD_MESSAGES


def _run(module: str) -> None:
    try:
        main = importlib.import_module(module).main
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in ("", "aecf_ros"):
            raise
        remedy = (
            BUILD_MESSAGES
            if package == "aecf_msgs"
            else "install it, and source the setup.bash of ROS and of your workspace"
        )
        sys.exit(f"{package} cannot be imported: {remedy}")
    main()


def fusion_node() -> None:
    """Run the fusion node."""
    _run("aecf_ros.nodes.fusion.node")


def camera_node() -> None:
    """Run the camera driver."""
    _run("aecf_ros.nodes.drivers.camera_node")


def microphone_node() -> None:
    """Run the microphone driver."""
    _run("aecf_ros.nodes.drivers.microphone_node")


def evaluator_node() -> None:
    """Run the node that evaluates the predictions of a played recording."""
    _run("aecf_ros.nodes.tools.evaluator_node")
