"""The launch files under the real launch system, where that is installed."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("launch_ros", reason="`launch_ros` cannot be imported: it is not on PyPI, only in an installed ROS 2")

from lifecycle_msgs.msg import State  # noqa: E402
from lifecycle_msgs.srv import GetState  # noqa: E402

from .conftest import Peer  # noqa: E402

RUN = """
import sys
from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
path = get_package_share_directory("aecf_ros") + "/launch/" + sys.argv[1]
service = LaunchService()
arguments = [argument.split(":=", 1) for argument in sys.argv[2:]]
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(PythonLaunchDescriptionSource(path), launch_arguments=arguments)]))
sys.exit(service.run())
"""


@pytest.mark.parametrize(("arguments", "name"), [([], "/fusion_node"), (["namespace:=robot"], "/robot/fusion_node")])
def test_fusion_launch_brings_the_node_to_active(arguments: list[str], name: str, peer: Peer, tmp_path: Path) -> None:
    from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

    try:
        get_package_share_directory("aecf_ros")
    except (PackageNotFoundError, OSError):
        pytest.skip("aecf_ros is not installed in this ROS workspace: colcon build and source it first")
    with (tmp_path / "launch.log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-c", RUN, "fusion.launch.py", *arguments], stdout=log, stderr=subprocess.STDOUT, env=os.environ)
    try:
        client = peer.node.create_client(GetState, f"{name}/get_state")
        peer.wait_for(client.service_is_ready, "the node's lifecycle services")
        states: list[int] = []

        def ask() -> None:
            client.call_async(GetState.Request()).add_done_callback(lambda future: states.append(future.result().current_state.id))

        peer.wait_for(lambda: State.PRIMARY_STATE_ACTIVE in states, "the node to be active", ask)
    finally:
        process.send_signal(2)
        assert process.wait(30) == 0, (tmp_path / "launch.log").read_text()
