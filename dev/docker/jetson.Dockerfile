# ROS 2 Jazzy on a Jetson (JetPack 6). Not built by us: unverified. On the Jetson, from the repository root:
#   docker build -f dev/docker/jetson.Dockerfile -t aecf_ros . && docker run --rm --runtime nvidia --net host --ipc host aecf_ros
FROM dustynv/ros:jazzy-ros-base-r36.4.0
# onnxruntime-gpu for Jetson comes from NVIDIA's own index, not from PyPI; name it here for your JetPack.
ARG JETSON_INDEX=https://pypi.jetson-ai-lab.dev/jp6/cu126
RUN pip install --extra-index-url ${JETSON_INDEX} 'pydantic>=2' onnxruntime-gpu rosbags soxr sounddevice
COPY . /ws/src/aecf_ros
RUN cd /ws && . /opt/ros/jazzy/install/setup.sh && rosdep install --from-paths src src/aecf_ros/aecf_msgs --ignore-src -y \
    --skip-keys "python3-onnxruntime-pip" && colcon build --base-paths src src/aecf_ros/aecf_msgs
CMD ["bash", "-c", ". /ws/install/setup.sh && exec ros2 launch aecf_ros fusion.launch.py device:=cuda"]
