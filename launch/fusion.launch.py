"""Start the fusion node: ros2 launch aecf_ros fusion.launch.py camera_topic:=/camera/image_raw audio_topic:=/audio_stamped"""
import os

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue

PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")


def generate_launch_description() -> LaunchDescription:
    share = get_package_share_directory("aecf_ros")
    arguments = {
        "model": (os.path.join(share, "models", "av_digits"), "directory of the model bundle"),
        "device": ("auto", "where the graphs run: auto, cpu, cuda or tensorrt"),
        "camera_topic": ("camera/image", "image topic"),
        "camera_transport": ("raw", "raw for sensor_msgs/Image, compressed for sensor_msgs/CompressedImage"),
        "audio_topic": ("audio", "audio_common_msgs/AudioDataStamped topic"),
        "audio_info_topic": ("audio_info", "latched audio_common_msgs/AudioInfo topic"),
        "params_file": (os.path.join(share, "config", "fusion_node.yaml"), "YAML file of parameters"),
        "namespace": ("", "namespace of the node"),
        "use_sim_time": ("false", "take the time from /clock"),
        "log_level": ("info", "debug, info, warn, error or fatal"),
    }
    declared = [DeclareLaunchArgument(name, default_value=default, description=text) for name, (default, text) in arguments.items()]
    # Large frames need a larger shared-memory segment than Fast DDS has by default; a profile of the user's own wins.
    profile = [] if any(v in os.environ for v in PROFILE_VARIABLES) else [
        SetEnvironmentVariable(v, os.path.join(share, "config", "fastdds_shared_memory.xml")) for v in PROFILE_VARIABLES]
    node = Node(
        package="aecf_ros", executable="fusion_node", name="fusion_node", namespace=LaunchConfiguration("namespace"), output="screen",
        parameters=[
            ParameterFile(LaunchConfiguration("params_file"), allow_substs=True),
            {
                "model": ParameterValue(LaunchConfiguration("model"), value_type=str),
                "device": ParameterValue(LaunchConfiguration("device"), value_type=str),
                "camera.transport": ParameterValue(LaunchConfiguration("camera_transport"), value_type=str),
                "use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool),
            },
        ],
        remappings=[
            ("camera/image", LaunchConfiguration("camera_topic")),
            ("audio", LaunchConfiguration("audio_topic")),
            ("audio_info", LaunchConfiguration("audio_info_topic")),
        ],
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")])
    return LaunchDescription([*declared, *profile, node])
