"""What `ros2` says of a running node, where the command is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Peer
from .processes import NodeProcess

pytest.importorskip(
    "ros2cli", reason="the command `ros2` cannot be imported: it is not on PyPI, only in an installed ROS 2"
)
if shutil.which("ros2") is None:
    pytest.skip("the command `ros2` is not on PATH", allow_module_level=True)

UNHURRIED = ("--no-daemon", "--spin-time", "5")

ASKED = {
    "lifecycle": (("lifecycle", "get", "/fusion_node", *UNHURRIED), ("active [3]",)),
    "describe": (
        ("param", "describe", "/fusion_node", "camera.stale_after_s", "autostart", *UNHURRIED),
        (
            "Silence after which the stream is STALE and leaves the fusion [s]; takes effect at once",
            "Min value: 0.01",
            "Configure and activate at once",
            "Read only: true",
        ),
    ),
    "refused": (
        ("param", "set", "/fusion_node", "device", "abacus", *UNHURRIED),
        ("parameter device is 'abacus'; use one of auto, cpu",),
    ),
    "changed": (
        ("param", "set", "/fusion_node", "audio.late_after_s", "0.75", *UNHURRIED),
        ("Set parameter successful",),
    ),
    "topics": (("topic", "list", "-t", *UNHURRIED), ("/fusion_node/prediction [aecf_msgs/msg/FusedPrediction]",)),
    "echo": (
        ("topic", "echo", "--once", "/fusion_node/prediction", *UNHURRIED),
        ("abstain_reason: no usable stream", "coverage: 0.99"),
    ),
    "call": (
        ("service", "call", "/fusion_node/reload_model", "std_srvs/srv/Trigger"),
        ("success=True", "av_digits on "),
    ),
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        one = NodeProcess("aecf_ros.nodes.fusion.node", tmp_path_factory.mktemp("node") / "log")
        peer = Peer(int(os.environ["ROS_DOMAIN_ID"]))
        peer.wait_for(lambda: "model av_digits" in one.output(), "the node")
        peer.close()
        yield one
        one.end()


@pytest.mark.parametrize("question", ASKED)
def test_the_command_line_is_answered(question: str, node: NodeProcess) -> None:
    arguments, expected = ASKED[question]
    answered = subprocess.run(["ros2", *arguments], capture_output=True, text=True, timeout=60, check=False)
    for part in expected:
        assert part in answered.stdout + answered.stderr, answered.stdout + answered.stderr
    assert node.process.poll() is None


def test_ros2_run_starts_the_node(tmp_path: Path, peer: Peer) -> None:
    from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

    try:
        get_package_share_directory("aecf_ros")
    except (PackageNotFoundError, OSError):
        pytest.skip("aecf_ros is not installed in this ROS workspace: colcon build and source it first")
    log = tmp_path / "log"
    with (
        log.open("w") as sink,
        subprocess.Popen(
            ["ros2", "run", "aecf_ros", "fusion_node"], stdout=sink, stderr=subprocess.STDOUT, start_new_session=True
        ) as process,
    ):
        try:
            peer.wait_for(lambda: "model av_digits" in log.read_text(), "the node")
        finally:
            os.killpg(process.pid, 2)
        assert process.wait(30) == 0, log.read_text()
