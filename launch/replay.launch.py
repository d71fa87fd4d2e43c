"""Play a recording to the fusion node and score what it says: the summary.json of `aecf evaluate`, over ROS.

ros2 launch aecf_ros replay.launch.py bag:=/path/to/bag camera_topic:=/camera/image_raw
"""

from __future__ import annotations

import importlib.util
import os

from ament_index_python.packages import get_package_share_directory
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessExit, OnProcessIO
from launch.events import Shutdown
from launch.events.process import ProcessExited, ProcessIO
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from aecf_ros.core.errors import BUILD_MESSAGES
from launch import LaunchContext, LaunchDescription

SHARE = get_package_share_directory("aecf_ros")
ARGUMENTS = {
    "bag": (None, "rosbag2 recording with a camera, a microphone and a label topic"),
    "out": ("out/replay", "folder for summary.json and report.html"),
    "rate": ("1.0", "speed of the replay"),
    "model": (os.path.join(SHARE, "models", "av_digits"), "directory of the model bundle"),
    "device": ("", "where the graphs run: auto, cpu, cuda or tensorrt; empty leaves it to params_file"),
    "params_file": (
        os.path.join(SHARE, "config", "fusion_node.yaml"),
        "YAML file of parameters of fusion_node; arguments that are given win over it",
    ),
    "label_topic": ("label", "std_msgs/String topic with the label that is true now"),
    "camera_topic": ("camera/image", "image topic of the recording"),
    "camera_transport": (
        "",
        (
            "raw, compressed, or auto for what the recording has; empty leaves it to params_file, where auto is the"
            " default"
        ),
    ),
    "audio_topic": ("audio", "sound topic of the recording"),
    "audio_info_topic": ("audio_info", "latched AudioInfo topic of the recording"),
    "remap": (
        "",
        "topics of the recording for a bundle's other streams, blanks between them: text:=/sentence/embedding",
    ),
}
PASSED_ON = (
    "model",
    "device",
    "params_file",
    "camera_topic",
    "camera_transport",
    "audio_topic",
    "audio_info_topic",
    "remap",
)
READY = b"ready to score"
DELAY_S = "2.0"
"""From the player's announcing its topics to its first message: the node looks once a second at what type they are
published as.
"""


def generate_launch_description() -> LaunchDescription:
    if importlib.util.find_spec("aecf_msgs") is None:  # before any node starts: a respawn would not help
        raise RuntimeError(f"aecf_msgs cannot be imported: {BUILD_MESSAGES}")
    declared = [
        DeclareLaunchArgument(name, **({} if default is None else {"default_value": default}), description=what)
        for name, (default, what) in ARGUMENTS.items()
    ]
    fusion = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(os.path.join(SHARE, "launch", "fusion.launch.py")),
        launch_arguments={
            **{name: LaunchConfiguration(name) for name in PASSED_ON},
            "use_sim_time": "true",
            "respawn": "false",
        }.items(),
    )
    evaluator = Node(
        package="aecf_ros",
        executable="evaluator_node",
        output="screen",
        sigterm_timeout="120",  # it writes its report on SIGINT
        parameters=[
            {
                name: ParameterValue(LaunchConfiguration(name), value_type=str)
                for name in ("model", "label_topic", "out")
            },
            {"use_sim_time": True},
        ],
    )
    play = ExecuteProcess(
        cmd=[
            "ros2",
            "bag",
            "play",
            LaunchConfiguration("bag"),
            "--clock",
            "100",
            "--rate",
            LaunchConfiguration("rate"),
            "--delay",
            DELAY_S,
            "--disable-keyboard-controls",
        ],
        output="screen",
    )

    def start_when_ready(event: ProcessIO) -> ExecuteProcess | None:
        return play if READY in event.text else None

    def end_of(action: ExecuteProcess, reason: str) -> RegisterEventHandler:
        def end(_: ProcessExited, context: LaunchContext) -> EmitEvent | None:
            return None if context.is_shutdown else EmitEvent(event=Shutdown(reason=reason))

        return RegisterEventHandler(OnProcessExit(target_action=action, on_exit=end))

    return LaunchDescription(
        [
            *declared,
            RegisterEventHandler(OnProcessIO(target_action=evaluator, on_stdout=start_when_ready)),
            end_of(play, "the recording has been played"),
            end_of(evaluator, "the evaluator has ended"),
            fusion,
            evaluator,
        ]
    )
