# ROS 2 Jazzy with CUDA. Not built by us: unverified. From the repository root:
#   docker build -f dev/docker/jazzy-cuda.Dockerfile -t aecf_ros . && docker run --rm --gpus all --net host --ipc host aecf_ros
FROM nvidia/cuda:12.6.3-cudnn-runtime-ubuntu24.04
ENV DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8
RUN apt-get update && apt-get install -y --no-install-recommends curl ca-certificates gnupg \
 && curl -fsSL https://raw.githubusercontent.com/ros/rosdistro/master/ros.key -o /usr/share/keyrings/ros.gpg \
 && echo "deb [signed-by=/usr/share/keyrings/ros.gpg] http://packages.ros.org/ros2/ubuntu noble main" > /etc/apt/sources.list.d/ros2.list \
 && apt-get update && apt-get install -y --no-install-recommends ros-jazzy-ros-base ros-jazzy-vision-msgs ros-jazzy-audio-common \
    python3-colcon-common-extensions python3-pip python3-opencv python3-click python3-rich python3-matplotlib python3-yaml libportaudio2 && rm -rf /var/lib/apt/lists/*
RUN pip install --break-system-packages 'pydantic>=2' onnxruntime-gpu rosbags soxr sounddevice
COPY . /ws/src/aecf_ros
RUN cd /ws && . /opt/ros/jazzy/setup.sh && colcon build --base-paths src src/aecf_ros/aecf_msgs
CMD ["bash", "-c", ". /ws/install/setup.sh && exec ros2 launch aecf_ros fusion.launch.py"]
