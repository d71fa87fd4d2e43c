"""Every module can be imported by Python 3.10, which ROS 2 Humble runs on."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STUBBED = (
    "torch onnxscript rclpy sounddevice optuna ray pyarrow ament_index_python aecf_msgs audio_common_msgs vision_msgs "
    "sensor_msgs std_msgs std_srvs diagnostic_msgs rcl_interfaces lifecycle_msgs builtin_interfaces "
    "foxglove_msgs rosgraph_msgs"
)
"""Stand-ins for what this Python cannot have here: torch's wheels for 3.10 bring gigabytes of CUDA, ROS has none for
it.
"""
WITHOUT_TORCH = ["onnx", "safetensors", "scikit-learn", "soundfile", "jinja2"]


def python310() -> str | None:
    """A Python 3.10 of this machine, on the path or of pyenv."""
    candidates = [shutil.which("python3.10"), *map(str, sorted(Path.home().glob(".pyenv/versions/3.10.*/bin/python")))]
    for candidate in candidates:
        if candidate and subprocess.run([candidate, "-c", "import venv, ssl"], capture_output=True).returncode == 0:
            return candidate
    return None


@pytest.mark.timeout(600)
def test_every_module_is_imported_by_python_310(tmp_path: Path) -> None:
    base = python310()
    if base is None:
        pytest.skip("no Python 3.10 on this machine")
    # A start-up file of the ROS wheels marks the environment of the Python that it restarted.
    environment = {
        key: os.environ[key] for key in os.environ if "ROS" not in key and key not in ("PYTHONPATH", "PYTHONHOME")
    }
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([base, "-m", "venv", tmp_path / "venv"], check=True, env=environment)
    setup = ROOT / "dev" / "setup"
    install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", setup / "constraints.txt"]
    done = subprocess.run(
        [*install, "-r", setup / "demo.txt", *WITHOUT_TORCH], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    command = [python, ROOT / "dev" / "import_all.py", "--stub", STUBBED.replace(" ", ",")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
