"""Install the ROS 2 package aecf_ros, by colcon (ament_python) or by pip."""

import os
import sys
from pathlib import Path

from setuptools import find_packages, setup

sys.path.insert(0, str(Path(__file__).resolve().parent))
from aecf_ros.core.errors import BUILD_MESSAGES  # noqa: E402, the path comes first

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


def refuse_half_a_build() -> None:
    """Stop colcon where it builds this package without ``aecf_msgs``, which lies inside it.

    colcon sets COLCON in its environment, and puts what a package depends on into AMENT_PREFIX_PATH.
    """
    if os.environ.get("COLCON") != "1" or not {"install", "develop"} & set(sys.argv):
        return
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    if not any(Path(prefix, "share", "aecf_msgs", "package.xml").is_file() for prefix in prefixes if prefix):
        sys.exit(f"aecf_msgs is not built: {BUILD_MESSAGES}")


refuse_half_a_build()

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
            "camera_node = aecf_ros.nodes.executables:camera_node",
            "fusion_node = aecf_ros.nodes.executables:fusion_node",
            "microphone_node = aecf_ros.nodes.executables:microphone_node",
            "evaluator_node = aecf_ros.nodes.executables:evaluator_node",
        ],
    },
)
