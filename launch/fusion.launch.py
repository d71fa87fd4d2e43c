"""Start the fusion node, and with arguments a camera, a microphone and viewers.

    ros2 launch aecf_ros fusion.launch.py camera_topic:=/camera/image_raw audio_topic:=/audio_stamped
    ros2 launch aecf_ros fusion.launch.py --show-args
"""
import os

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PythonExpression
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue

PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
SHARE = get_package_share_directory("aecf_ros")
CONFIG = os.path.join(SHARE, "config")

ARGUMENTS = {
    "model": (os.path.join(SHARE, "models", "av_digits"), "directory of the model bundle"),
    "device": ("auto", "where the graphs run: auto, cpu, cuda or tensorrt"),
    "camera_topic": ("camera/image", "image topic"),
    "camera_transport": ("auto", "raw for sensor_msgs/Image, compressed for CompressedImage, auto for what is published"),
    "audio_topic": ("audio", "sound topic"),
    "audio_info_topic": ("audio_info", "latched audio_common_msgs/AudioInfo topic"),
    "audio_message": ("auto", "what the sound topic carries: stamped, plain, dialect, foxglove, or auto for what is published"),
    "params_file": (os.path.join(CONFIG, "fusion_node.yaml"), "YAML file of parameters; the arguments here win over it"),
    "namespace": ("", "namespace of the nodes"),
    "use_sim_time": ("false", "take the time from /clock"),
    "log_level": ("info", "debug, info, warn, error or fatal"),
    "respawn": ("true", "start the node again when it dies"),
    "autostart": ("true", "the node configures and activates itself, also after a respawn; false leaves that to a lifecycle manager"),
    "start_camera": ("false", "also start camera_node, which publishes camera_topic"),
    "start_microphone": ("false", "also start microphone_node, which publishes audio_topic"),
    "rviz": ("false", "also start rviz2 with config/fusion.rviz"),
    "foxglove": ("false", "also start foxglove_bridge; its layout is config/foxglove_layout.json"),
}


def on(name: str) -> IfCondition:
    return IfCondition(LaunchConfiguration(name))


def text(name: str) -> ParameterValue:
    return ParameterValue(LaunchConfiguration(name), value_type=str)


def truth(name: str) -> ParameterValue:
    return ParameterValue(LaunchConfiguration(name), value_type=bool)


def generate_launch_description() -> LaunchDescription:
    declared = [DeclareLaunchArgument(name, default_value=default, description=what) for name, (default, what) in ARGUMENTS.items()]
    # Large frames need a larger shared-memory segment than Fast DDS has by default; a profile of the user's own wins.
    profile = [] if any(v in os.environ for v in PROFILE_VARIABLES) else [
        SetEnvironmentVariable(v, os.path.join(CONFIG, "fastdds_shared_memory.xml")) for v in PROFILE_VARIABLES]
    namespace = LaunchConfiguration("namespace")
    sensors = [(topic, LaunchConfiguration(f"{argument}_topic")) for topic, argument in
               (("camera/image", "camera"), ("audio", "audio"), ("audio_info", "audio_info"))]
    # The node configures and activates itself: launch's own autostart acts once, and would leave a respawned node unconfigured.
    fusion = LifecycleNode(
        package="aecf_ros", executable="fusion_node", name="fusion_node", namespace=namespace, output="screen",
        respawn=LaunchConfiguration("respawn"), respawn_delay=2.0,
        parameters=[
            ParameterFile(LaunchConfiguration("params_file"), allow_substs=True),
            {"model": text("model"), "device": text("device"), "camera.transport": text("camera_transport"), "audio.message": text("audio_message"),
             "use_sim_time": truth("use_sim_time"), "autostart": truth("autostart")},
        ],
        remappings=sensors, arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")])
    transport = LaunchConfiguration("camera_transport")
    published_as = PythonExpression(["'raw' if '", transport, "' == 'auto' else '", transport, "'"])
    camera = Node(package="aecf_ros", executable="camera_node", namespace=namespace, output="screen", condition=on("start_camera"),
                  parameters=[os.path.join(CONFIG, "camera_node.yaml"), {"transport": ParameterValue(published_as, value_type=str)}],
                  remappings=[("camera/image", LaunchConfiguration("camera_topic"))], respawn=True, respawn_delay=2.0)
    microphone = Node(package="aecf_ros", executable="microphone_node", namespace=namespace, output="screen", condition=on("start_microphone"),
                      parameters=[os.path.join(CONFIG, "microphone_node.yaml")], respawn=True, respawn_delay=2.0,
                      remappings=[("audio", LaunchConfiguration("audio_topic")), ("audio_info", LaunchConfiguration("audio_info_topic"))])
    rviz = Node(package="rviz2", executable="rviz2", arguments=["-d", os.path.join(CONFIG, "fusion.rviz")], condition=on("rviz"))
    foxglove = Node(package="foxglove_bridge", executable="foxglove_bridge", condition=on("foxglove"))
    return LaunchDescription([*declared, *profile, fusion, camera, microphone, rviz, foxglove])
