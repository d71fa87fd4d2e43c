"""Start the fusion node, and with arguments a camera, a microphone and viewers.

ros2 launch aecf_ros fusion.launch.py camera_topic:=/camera/image_raw audio_topic:=/audio_stamped
ros2 launch aecf_ros fusion.launch.py --show-args
"""

import importlib.util
import os

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue

from aecf_ros.core.errors import BUILD_MESSAGES
from launch import LaunchContext, LaunchDescription

PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
SHARE = get_package_share_directory("aecf_ros")
CONFIG = os.path.join(SHARE, "config")

ARGUMENTS = {
    "model": ("", "directory of the model bundle; empty leaves it to params_file, and there to the shipped av_digits"),
    "device": ("", "where the graphs run; empty leaves it to params_file"),
    "camera_topic": ("camera/image", "image topic"),
    "camera_transport": (
        "",
        (
            "raw for sensor_msgs/Image, compressed for CompressedImage, auto for what is published; empty leaves it to"
            " params_file"
        ),
    ),
    "audio_topic": ("audio", "sound topic"),
    "audio_info_topic": ("audio_info", "latched audio_common_msgs/AudioInfo topic"),
    "audio_message": (
        "",
        "what the sound topic carries (docs/parameters.md), auto for what is published; empty leaves it to params_file",
    ),
    "remap": (
        "",
        (
            "topics of a bundle's other streams, blanks between them: text:=/sentence/embedding"
            " rear/image:=/rear/image_raw"
        ),
    ),
    "params_file": (
        os.path.join(CONFIG, "fusion_node.yaml"),
        "YAML file of parameters of fusion_node; arguments that are given win over it",
    ),
    "namespace": ("", "namespace of the nodes"),
    "use_sim_time": ("false", "take the time from /clock"),
    "log_level": ("info", "least severity that fusion_node logs"),
    "respawn": ("true", "start the node again when it dies"),
    "autostart": (
        "true",
        "the node configures and activates itself, also after a respawn; false leaves that to a lifecycle manager",
    ),
    "start_camera": ("false", "also start camera_node, which publishes camera_topic"),
    "camera_source": (
        "",
        "camera_node: camera index, device path, video file or stream URL; empty leaves it to camera_params_file",
    ),
    "camera_params_file": (os.path.join(CONFIG, "camera_node.yaml"), "YAML file of parameters of camera_node"),
    "start_microphone": ("false", "also start microphone_node, which publishes audio_topic"),
    "microphone_device": (
        "",
        "microphone_node: index or name of a device, or a part of the name; empty leaves it to microphone_params_file",
    ),
    "microphone_params_file": (
        os.path.join(CONFIG, "microphone_node.yaml"),
        "YAML file of parameters of microphone_node",
    ),
    "rviz": ("false", "also start rviz2 with config/fusion.rviz"),
    "foxglove": ("false", "also start foxglove_bridge; its layout is config/foxglove_layout.json"),
}

CHOICES = {
    "device": ["", "auto", "cpu", "cuda", "tensorrt"],
    "camera_transport": ["", "auto", "raw", "compressed"],
    "audio_message": ["", "auto", "stamped", "plain", "dialect", "foxglove"],
    "log_level": ["debug", "info", "warn", "error", "fatal"],
}


def on(name: str) -> IfCondition:
    return IfCondition(LaunchConfiguration(name))


def truth(name: str) -> ParameterValue:
    return ParameterValue(LaunchConfiguration(name), value_type=bool)


def parameters(context: LaunchContext, file: str, arguments: dict[str, str]) -> list:
    """Those of the file that the argument ``file`` names, then each of ``arguments`` (by the parameter that it sets)
    that is not empty.
    """
    values = {name: LaunchConfiguration(argument).perform(context) for name, argument in arguments.items()}
    given = [{name: ParameterValue(value, value_type=str)} for name, value in values.items() if value]
    return [ParameterFile(LaunchConfiguration(file), allow_substs=True), *given]


def remapped(context: LaunchContext) -> list[tuple[str, str]]:
    """The pairs of the argument ``remap``."""
    pairs = [tuple(pair.split(":=")) for pair in LaunchConfiguration("remap").perform(context).split()]
    for pair in pairs:
        if len(pair) != 2 or not all(pair):
            raise RuntimeError(f"remap: '{':='.join(pair)}' is not NAME:=TOPIC, such as text:=/sentence/embedding")
    return pairs


def nodes(context: LaunchContext) -> list[Node]:
    namespace = LaunchConfiguration("namespace")
    image = ("camera/image", LaunchConfiguration("camera_topic"))
    sound = [("audio", LaunchConfiguration("audio_topic")), ("audio_info", LaunchConfiguration("audio_info_topic"))]
    # The node configures and activates itself: launch's own autostart acts once, and would leave a respawned node
    # unconfigured.
    fusion = LifecycleNode(
        package="aecf_ros",
        executable="fusion_node",
        name="fusion_node",
        namespace=namespace,
        output="screen",
        respawn=LaunchConfiguration("respawn"),
        respawn_delay=2.0,
        parameters=[
            *parameters(
                context,
                "params_file",
                {
                    "model": "model",
                    "device": "device",
                    "camera.transport": "camera_transport",
                    "audio.message": "audio_message",
                },
            ),
            {"use_sim_time": truth("use_sim_time"), "autostart": truth("autostart")},
        ],
        remappings=[image, *sound, *remapped(context)],
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
    )
    transport = (
        {} if LaunchConfiguration("camera_transport").perform(context) == "auto" else {"transport": "camera_transport"}
    )
    camera = Node(
        package="aecf_ros",
        executable="camera_node",
        namespace=namespace,
        output="screen",
        condition=on("start_camera"),
        parameters=parameters(context, "camera_params_file", {"source": "camera_source", **transport}),
        remappings=[image],
        respawn=True,
        respawn_delay=2.0,
    )
    microphone = Node(
        package="aecf_ros",
        executable="microphone_node",
        namespace=namespace,
        output="screen",
        condition=on("start_microphone"),
        parameters=parameters(context, "microphone_params_file", {"device": "microphone_device"}),
        remappings=sound,
        respawn=True,
        respawn_delay=2.0,
    )
    rviz = Node(
        package="rviz2", executable="rviz2", arguments=["-d", os.path.join(CONFIG, "fusion.rviz")], condition=on("rviz")
    )
    foxglove = Node(package="foxglove_bridge", executable="foxglove_bridge", condition=on("foxglove"))
    return [fusion, camera, microphone, rviz, foxglove]


def generate_launch_description() -> LaunchDescription:
    if importlib.util.find_spec("aecf_msgs") is None:  # before any node starts: a respawn would not help
        raise RuntimeError(f"aecf_msgs cannot be imported: {BUILD_MESSAGES}")
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=what, choices=CHOICES.get(name))
        for name, (default, what) in ARGUMENTS.items()
    ]
    # Large frames need a larger shared-memory segment than Fast DDS has by default; a profile of the user's own wins,
    # under either name.
    file = next(
        (own for v in PROFILE_VARIABLES if (own := os.environ.get(v))),
        os.path.join(CONFIG, "fastdds_shared_memory.xml"),
    )
    profile = [SetEnvironmentVariable(v, file) for v in PROFILE_VARIABLES if not os.environ.get(v)]
    return LaunchDescription([*declared, *profile, OpaqueFunction(function=nodes)])
