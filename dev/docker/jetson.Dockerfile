# ROS 2 Humble on a Jetson with JetPack 6, which is Ubuntu 22.04. Not built by us: unverified. On the Jetson, from the repository root:
#   docker build -f dev/docker/jetson.Dockerfile --build-arg JETSON_INDEX=INDEX -t aecf_ros . && docker run --rm --runtime nvidia --net host --ipc host aecf_ros
ARG BASE=dustynv/ros:humble-desktop-l4t-r36.4.0
FROM ${BASE}
# onnxruntime-gpu for Jetson comes from NVIDIA's own index, not from PyPI: --build-arg JETSON_INDEX=(that of your JetPack).
ARG JETSON_INDEX
RUN apt-get update && apt-get install -y --no-install-recommends git libportaudio2 && rm -rf /var/lib/apt/lists/*
RUN pip install --extra-index-url ${JETSON_INDEX:?name it with --build-arg} 'pydantic>=2' onnxruntime-gpu rosbags soxr sounddevice click rich matplotlib pyyaml
# That image's ROS is built from source, where apt's message packages do not fit.
RUN mkdir -p /ws/src && cd /ws/src && git clone --depth 1 -b ros2 https://github.com/ros-drivers/audio_common \
 && git clone --depth 1 -b ros2 https://github.com/ros-perception/vision_msgs
COPY . /ws/src/aecf_ros
RUN cd /ws && . /opt/ros/humble/install/setup.sh && colcon build --base-paths src src/aecf_ros/aecf_msgs --packages-up-to aecf_ros
CMD ["bash", "-c", ". /ws/install/setup.sh && exec ros2 launch aecf_ros fusion.launch.py device:=cuda"]
