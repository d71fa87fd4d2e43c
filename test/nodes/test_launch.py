"""The launch files under the real launch system, where that is installed."""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip(
    "launch_ros", reason="`launch_ros` cannot be imported: it is not on PyPI, only in an installed ROS 2"
)

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from lifecycle_msgs.msg import State  # noqa: E402
from lifecycle_msgs.srv import GetState  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from aecf_msgs.msg import EmbeddingStamped, FusedPrediction  # noqa: E402
from aecf_ros.nodes.fusion.parameters import NODE, options_of  # noqa: E402
from test.conftest import write_bundle  # noqa: E402

from .alsa import NAME, RATE_HZ, AlsaMicrophone  # noqa: E402
from .conftest import ROOT, WAIT_S, Peer  # noqa: E402
from .recordings import first_seconds  # noqa: E402
from .test_evaluator_node import SECONDS, evaluated, same_as_evaluated  # noqa: E402

RUN = """
import sys
from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
path = get_package_share_directory("aecf_ros") + "/launch/" + sys.argv[1]
service = LaunchService()
arguments = [argument.split(":=", 1) for argument in sys.argv[2:]]
included = IncludeLaunchDescription(PythonLaunchDescriptionSource(path), launch_arguments=arguments)
service.include_launch_description(LaunchDescription([included]))
sys.exit(service.run())
"""


class Launched:
    """A launch file in a process of its own; its output is kept."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self._log = log
        with log.open("w") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-c", RUN, *arguments], stdout=sink, stderr=subprocess.STDOUT, env=os.environ
            )

    def output(self) -> str:
        return self._log.read_text()

    def pids(self) -> list[int]:
        """Of the fusion node, and of those that came after it."""
        return [int(pid) for pid in re.findall(r"fusion_node-1\]: process started with pid \[(\d+)\]", self.output())]

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        assert self.process.wait(30) == 0, self.output()


@pytest.fixture
def launch(domain: int, tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

    try:
        get_package_share_directory("aecf_ros")
    except (PackageNotFoundError, OSError):
        pytest.skip("aecf_ros is not installed in this ROS workspace: colcon build and source it first")
    started: list[Launched] = []

    def start(*arguments: str) -> Launched:
        started.append(Launched(tmp_path / "launch.log", *arguments))
        return started[-1]

    yield start
    for one in started:
        one.stop()


def wait_until_active(peer: Peer, name: str = "/fusion_node") -> None:
    """Ask the node for its state until it is active; it is asked anew each second, since a killed node's service is
    still found for a while.
    """
    states: list[int] = []
    asked_s = 0.0
    client = peer.node.create_client(GetState, f"{name}/get_state")

    def ask() -> None:
        nonlocal asked_s
        if client.service_is_ready() and time.monotonic() > asked_s + 1.0:
            asked_s = time.monotonic()
            client.call_async(GetState.Request()).add_done_callback(
                lambda future: states.append(future.result().current_state.id)
            )

    peer.wait_for(lambda: State.PRIMARY_STATE_ACTIVE in states, "the node to be active", ask)


@pytest.mark.parametrize(("arguments", "name"), [([], "/fusion_node"), (["namespace:=robot"], "/robot/fusion_node")])
def test_fusion_launch_brings_the_node_to_active(
    arguments: list[str], name: str, peer: Peer, launch: Callable[..., Launched]
) -> None:
    launch("fusion.launch.py", *arguments)
    wait_until_active(peer, name)


def test_a_node_that_is_killed_is_active_again_after_its_respawn(peer: Peer, launch: Callable[..., Launched]) -> None:
    launched = launch("fusion.launch.py")
    peer.wait_for(lambda: "model av_digits" in launched.output(), "the first start")
    os.kill(launched.pids()[0], signal.SIGKILL)
    peer.wait_for(lambda: len(launched.pids()) == 2, "the respawn")
    wait_until_active(peer)


PROFILES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")


@pytest.mark.parametrize("named", ["", *PROFILES])
def test_both_names_have_the_users_profile_or_else_the_shipped_one(
    named: str, peer: Peer, launch: Callable[..., Launched], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = str(ROOT / "config" / "fastdds_shared_memory.xml")
    for variable in PROFILES:
        monkeypatch.delenv(variable, raising=False)
    if named:
        monkeypatch.setenv(named, own)
    launched = launch("fusion.launch.py")
    peer.wait_for(lambda: "model av_digits" in launched.output(), "the node")
    environment = Path(f"/proc/{launched.pids()[0]}/environ").read_text().split("\0")
    inherited = dict(pair.split("=", 1) for pair in environment if pair.startswith(PROFILES))
    if named:
        assert inherited == dict.fromkeys(PROFILES, own)
    else:
        assert set(inherited) == set(PROFILES)
        assert all(
            value.endswith("share/aecf_ros/config/fastdds_shared_memory.xml") and value != own
            for value in inherited.values()
        )


def test_drivers_are_started_on_what_the_arguments_name_and_feed_the_node(
    peer: Peer, launch: Callable[..., Launched], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(
        "sounddevice",
        reason="PortAudio is not installed: apt install libportaudio2, pip install sounddevice",
        exc_type=OSError,
    )
    video = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 20.0, (160, 120))
    noise = np.random.default_rng(0)
    for _ in range(40):
        writer.write(noise.integers(0, 256, (120, 160, 3), np.uint8))
    writer.release()
    camera = tmp_path / "camera.yaml"
    camera.write_text("/**: {ros__parameters: {loop: true}}")
    microphone = AlsaMicrophone(tmp_path, noise.integers(-8000, 8000, 20 * RATE_HZ, dtype=np.int16))
    monkeypatch.setenv("ALSA_CONFIG_PATH", microphone.environment["ALSA_CONFIG_PATH"])
    predictions: list[FusedPrediction] = []
    peer.node.create_subscription(FusedPrediction, "/robot/fusion_node/prediction", predictions.append, 10)
    try:
        launched = launch(
            "fusion.launch.py",
            "namespace:=robot",
            "camera_topic:=front/image_raw",
            "start_camera:=true",
            f"camera_source:={video}",
            f"camera_params_file:={camera}",
            "start_microphone:=true",
            f"microphone_device:={NAME}",
        )
        peer.wait_for(
            lambda: predictions and all(m.used for m in predictions[-1].modalities), "a prediction from both drivers"
        )
        assert peer.node.get_publishers_info_by_topic("/robot/front/image_raw"), launched.output()
    finally:
        microphone.unplug()


def test_a_stream_of_vectors_is_heard_on_the_topic_that_remap_names(
    peer: Peer, launch: Callable[..., Launched], tmp_path: Path
) -> None:
    bundle = write_bundle(tmp_path / "told", {"camera": "image", "text": "vector"})
    heard: list[FusedPrediction] = []
    peer.node.create_subscription(FusedPrediction, "/fusion_node/prediction", heard.append, 10)
    says = peer.node.create_publisher(EmbeddingStamped, "/sentence/embedding", 5)
    numbers = np.random.default_rng(0)

    def say() -> None:
        header = Header(stamp=peer.node.get_clock().now().to_msg())
        says.publish(EmbeddingStamped(header=header, values=np.eye(3)[1] + numbers.normal(0, 0.01, 3)))

    launch("fusion.launch.py", f"model:={bundle}", "remap:=text:=/sentence/embedding rear/image:=/rear/image_raw")
    peer.wait_for(
        lambda: heard and [m.name for m in heard[-1].modalities if m.used] == ["text"],
        "an answer from vectors alone",
        say,
    )


@pytest.mark.parametrize("file", [("fusion.launch.py",), ("replay.launch.py", "bag:=/nowhere")])
def test_a_remapping_that_names_no_topic_is_refused(
    launch: Callable[..., Launched], tmp_path: Path, file: tuple[str, ...]
) -> None:
    launched = Launched(tmp_path / "launch.log", *file, "remap:=text:=/sentence rear")
    assert launched.process.wait(WAIT_S) == 1
    assert "remap: 'rear' is not NAME:=TOPIC" in launched.output() and "process started" not in launched.output()


def test_a_parameter_of_the_file_holds_where_its_argument_is_not_given(
    launch: Callable[..., Launched], peer: Peer, tmp_path: Path
) -> None:
    file = tmp_path / "robot.yaml"
    file.write_text("/**: {ros__parameters: {model: /nowhere/of/the/file, device: cpu}}")
    launched = launch("fusion.launch.py", f"params_file:={file}", "respawn:=false")
    peer.wait_for(
        lambda: "/nowhere/of/the/file: no such model directory" in launched.output(), "the file's model to be refused"
    )


def test_an_argument_that_is_no_choice_is_refused_by_launch(launch: Callable[..., Launched], tmp_path: Path) -> None:
    launched = Launched(tmp_path / "launch.log", "fusion.launch.py", "device:=abacus")
    assert launched.process.wait(WAIT_S) == 1
    assert (
        'Argument "device" provided value "abacus" is not valid' in launched.output()
        and "process started" not in launched.output()
    )


def test_the_choices_of_the_launch_file_are_those_of_the_parameters(launch: Callable[..., Launched]) -> None:
    from ament_index_python.packages import get_package_share_directory

    choices = runpy.run_path(get_package_share_directory("aecf_ros") + "/launch/fusion.launch.py")["CHOICES"]
    declared = {p.name: p.choices for p in (*NODE, *options_of("image"), *options_of("audio"))}
    expected = {
        "device": declared["device"],
        "camera_transport": declared["transport"],
        "audio_message": declared["message"],
    }
    assert {name: tuple(choices[name][1:]) for name in expected} == expected


def test_autostart_false_leaves_the_node_unconfigured(peer: Peer, launch: Callable[..., Launched]) -> None:
    launched = launch("fusion.launch.py", "autostart:=false")
    answer = peer.ask(peer.node.create_client(GetState, "/fusion_node/get_state"), GetState.Request())
    assert answer.current_state.id == State.PRIMARY_STATE_UNCONFIGURED and "model av_digits" not in launched.output()


@pytest.mark.parametrize("raw", [False, True])
def test_replay_launch_plays_scores_and_ends_by_itself(
    raw: bool, domain: int, launch: Callable[..., Launched], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = first_seconds(SECONDS, tmp_path / "bag", raw)
    mock = tmp_path / "bin" / "ros2"  # stands in for the real command, which is no Python package
    mock.parent.mkdir()
    mock.write_text(f'#!/bin/sh\ncd {ROOT} && exec {sys.executable} -m test.nodes.mock_ros2 "$@"\n')
    mock.chmod(0o755)
    monkeypatch.setenv("PATH", str(mock.parent), prepend=os.pathsep)
    launched = launch("replay.launch.py", f"bag:={recording}", f"out:={tmp_path / 'out'}", "rate:=1.0")
    assert launched.process.wait(2 * WAIT_S) == 0, launched.output()
    same_as_evaluated(
        json.loads((tmp_path / "out" / "summary.json").read_text()), evaluated(recording, tmp_path / "exact")
    )


def test_replay_launch_ends_with_the_reason_when_the_model_is_bad(
    launch: Callable[..., Launched], tmp_path: Path
) -> None:
    launched = launch("replay.launch.py", "bag:=/nowhere", "model:=/nowhere", f"out:={tmp_path / 'out'}")
    assert launched.process.wait(WAIT_S) == 0, launched.output()
    assert "/nowhere: no such model directory" in launched.output()


@pytest.mark.parametrize("file", ["fusion", "replay"])
def test_launch_starts_nothing_without_the_message_package(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from ament_index_python.packages import get_package_share_directory

    path = get_package_share_directory("aecf_ros") + f"/launch/{file}.launch.py"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="colcon build --base-paths src src/aecf_ros/aecf_msgs"):
        runpy.run_path(path)["generate_launch_description"]()
