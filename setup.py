"""Install the ROS 2 package aecf_ros, by colcon (ament_python) or by pip."""

import os

from setuptools import find_packages, setup

NAME = "aecf_ros"
SHARED_DIRECTORIES = ("launch", "config", "models")


def shared_files() -> list[tuple[str, list[str]]]:
    """Every file of the shared directories, by the folder below share/aecf_ros that it goes to."""
    entries = []
    for directory in SHARED_DIRECTORIES:
        for folder, subfolders, names in os.walk(directory):
            subfolders[:] = sorted(name for name in subfolders if name != "__pycache__")
            if names:
                entries.append((f"share/{NAME}/{folder}", sorted(os.path.join(folder, name) for name in names)))
    return entries


setup(
    name=NAME,
    version="0.1.0",
    description="Sensor fusion that keeps predicting, with a calibrated confidence, when a sensor stops",
    license="Apache-2.0",
    maintainer="aecf_ros maintainers",
    maintainer_email="aecf-ros@users.noreply.github.com",
    python_requires=">=3.10",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={"": ["templates/*"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        *shared_files(),
        # `aecf replay` writes them into recordings, also where ROS is not installed.
        (
            f"share/{NAME}/msg",
            sorted(os.path.join("aecf_msgs", "msg", name) for name in os.listdir(os.path.join("aecf_msgs", "msg"))),
        ),
    ],
    zip_safe=False,
    # rclpy and the message packages come from the ROS installation: pip cannot provide them.
    install_requires=[
        "click",
        "matplotlib",
        "numpy",
        "onnxruntime",
        "opencv-python",
        "pydantic>=2",
        "PyYAML",
        "rich",
        "rosbags",
        "soxr",
    ],
    extras_require={
        "microphone": ["sounddevice"],
        "train": ["torch", "onnx", "onnxscript", "safetensors", "scikit-learn", "soundfile", "jinja2"],
        "tune": ["optuna"],
        "parquet": ["pyarrow"],
        "fleet": ["ray"],
    },
    entry_points={
        "console_scripts": [
            "aecf = aecf_ros.cli:main",
            "camera_node = aecf_ros.nodes.drivers.camera_node:main",
            "fusion_node = aecf_ros.nodes.fusion.node:main",
            "microphone_node = aecf_ros.nodes.drivers.microphone_node:main",
            "evaluator_node = aecf_ros.nodes.tools.evaluator_node:main",
        ],
    },
)
