"""What set-up, colcon and pip see of this repository."""

import ast
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import aecf_ros

ROOT = Path(__file__).resolve().parents[2]
OWN_DISTRIBUTIONS = {"aecf-ros"}

FUSED_PREDICTION = {
    "header": "std_msgs/Header",
    "model": "string",
    "label": "string",
    "class_id": "uint32",
    "confidence": "float",
    "probabilities": "sequence<float>",
    "prediction_set": "sequence<string>",
    "coverage": "float",
    "agreement": "float",
    "gate_entropy": "float",
    "abstain": "boolean",
    "abstain_reason": "string",
    "modalities": "sequence<aecf_msgs/ModalityReport>",
    "latency": "builtin_interfaces/Duration",
}
MODALITY_REPORT = {
    "name": "string",
    "state": "uint8",
    "used": "boolean",
    "gate_weight": "float",
    "age": "builtin_interfaces/Duration",
    "label": "string",
    "confidence": "float",
}
STATES = ["WAITING", "OK", "LATE", "DEGRADED", "STALE", "DROPPED", "FROZEN", "REJECTED", "CLOCK_FAULT"]


def normalize(name: str) -> str:
    """Name of a distribution as the packaging standard compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def set_up_by_make() -> bool:
    """Whether this Python is the environment that `dev/setup/prepare.py` made."""
    return Path(sys.prefix) == ROOT / ".venv"


def test_colcon_names_exactly_the_two_packages():
    pytest.importorskip("colcon_core", reason="colcon is not installed for this Python")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COLCON_")}
    environment["COLCON_LOG_PATH"] = os.devnull
    listing = subprocess.run(
        [sys.executable, "-m", "colcon", "list"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout
    packages = {tuple(line.split("\t")) for line in listing.splitlines()}
    assert packages == {("aecf_msgs", "aecf_msgs", "(ros.ament_cmake)"), ("aecf_ros", ".", "(ros.ament_python)")}


def test_messages_carry_the_documented_fields():
    messages = pytest.importorskip("aecf_msgs.msg", reason="the message packages are not built for this Python")
    assert messages.FusedPrediction.get_fields_and_field_types() == FUSED_PREDICTION
    assert messages.ModalityReport.get_fields_and_field_types() == MODALITY_REPORT


def test_stream_states_are_numbered_in_the_documented_order():
    messages = pytest.importorskip("aecf_msgs.msg", reason="the message packages are not built for this Python")
    assert [getattr(messages.ModalityReport, name) for name in STATES] == list(range(9))


@pytest.mark.parametrize(
    "name, fields",
    [
        ("audio_common_msgs.AudioData", {"data": "sequence<uint8>"}),
        ("audio_common_msgs.AudioDataStamped", {"header": "std_msgs/Header", "audio": "audio_common_msgs/AudioData"}),
        (
            "audio_common_msgs.AudioInfo",
            {
                "channels": "uint8",
                "sample_rate": "uint32",
                "sample_format": "string",
                "bitrate": "uint32",
                "coding_format": "string",
            },
        ),
        ("vision_msgs.ObjectHypothesis", {"class_id": "string", "score": "double"}),
        (
            "vision_msgs.Classification",
            {"header": "std_msgs/Header", "results": "sequence<vision_msgs/ObjectHypothesis>"},
        ),
        ("vision_msgs.VisionClass", {"class_id": "uint16", "class_name": "string"}),
        (
            "vision_msgs.LabelInfo",
            {"header": "std_msgs/Header", "class_map": "sequence<vision_msgs/VisionClass>", "threshold": "float"},
        ),
    ],
)
def test_stand_in_messages_match_what_apt_ships(name, fields):
    package, message = name.split(".")
    module = pytest.importorskip(f"{package}.msg", reason="the message packages are not built for this Python")
    assert getattr(module, message).get_fields_and_field_types() == fields


def test_versions_agree():
    setup = ast.parse((ROOT / "setup.py").read_text())
    keywords = [node for node in ast.walk(setup) if isinstance(node, ast.keyword) and node.arg == "version"]
    manifests = [ElementTree.parse(ROOT / path / "package.xml").findtext("version") for path in (".", "aecf_msgs")]
    assert manifests == [aecf_ros.__version__] * 2
    assert [keyword.value.value for keyword in keywords] == [aecf_ros.__version__]
    assert aecf_ros.__version__ in (ROOT / "CHANGELOG.rst").read_text()


def test_every_shared_file_is_installed_once(monkeypatch):
    captured = {}
    monkeypatch.setattr("setuptools.setup", lambda **keywords: captured.update(keywords))
    monkeypatch.chdir(ROOT)
    specification = importlib.util.spec_from_file_location("aecf_setup", ROOT / "setup.py")
    specification.loader.exec_module(importlib.util.module_from_spec(specification))
    installed = [file for _, files in captured["data_files"] for file in files]
    present = [
        str(path.relative_to(ROOT))
        for folder in ("launch", "config", "models", "aecf_msgs/msg")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    assert sorted(installed) == sorted([*present, "package.xml", "resource/aecf_ros"])
    assert all(folder.startswith("share/") for folder, _ in captured["data_files"])
    assert not [package for package in captured["packages"] if not package.startswith("aecf_ros")]


def test_every_file_of_the_package_is_installed():
    setup = (ROOT / "setup.py").read_text()
    patterns = ast.literal_eval(re.search(r"package_data=(\{.*?\})", setup).group(1))
    assert list(patterns) == [""]  # of every package
    files = [p for p in (ROOT / "aecf_ros").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    data = [p for p in files if p.suffix != ".py"]
    assert {p.name for p in data} >= {"MODEL_CARD.md.jinja", "index.html.jinja"}
    for path in data:
        package = path.parents[1]
        assert (package / "__init__.py").is_file(), path
        assert any(path.relative_to(package).match(pattern) for pattern in patterns[""]), path


def test_torch_is_never_required_to_run_the_node():
    text = (ROOT / "setup.py").read_text()
    required = ast.literal_eval(re.search(r"install_requires=(\[.*?\])", text, re.DOTALL).group(1))
    assert not [name for name in required if re.match(r"torch|onnx$|onnxscript|scikit", name)]


def test_setup_has_nothing_to_do_the_second_time():
    if not set_up_by_make():
        pytest.skip("this Python is not the checkout's own .venv")
    result = subprocess.run(
        [sys.executable, ROOT / "dev" / "setup" / "prepare.py", "test"], capture_output=True, text=True, check=True
    )
    assert result.stdout == "[setup] nothing to do for test\n"


def test_setup_names_an_unknown_profile():
    result = subprocess.run(
        [sys.executable, ROOT / "dev" / "setup" / "prepare.py", "fly"], capture_output=True, text=True
    )
    assert result.returncode == 2
    assert "invalid choice: 'fly'" in result.stderr


def test_every_installed_distribution_is_pinned():
    if not set_up_by_make():
        pytest.skip("this Python is not the checkout's own .venv")
    pins = {}
    for line in (ROOT / "dev" / "setup" / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = line.partition(";")[0].strip().split("==")
            pins.setdefault(normalize(name), set()).add(version)
    unpinned = []
    for distribution in importlib.metadata.distributions(path=[sysconfig.get_path("purelib")]):
        # Message packages bring an egg-info of their own; pip installed the wheel around them.
        installed_by_pip = (distribution.read_text("INSTALLER") or "").strip() == "pip"
        name = normalize(distribution.metadata["Name"])
        if not installed_by_pip or name in OWN_DISTRIBUTIONS | {"pip"}:
            continue
        # The CUDA libraries of PyPI's torch follow from torch's own exact requirements.
        if re.match(r"nvidia-|cuda-|triton$", name):
            continue
        if distribution.version.partition("+")[0] not in pins.get(name, ()):
            unpinned.append(f"{name}=={distribution.version}")
    assert unpinned == []


@pytest.fixture
def prepare(monkeypatch):
    """The set-up script as a module, on a machine with no Debian package and no command but dpkg-query."""
    monkeypatch.syspath_prepend(ROOT / "dev" / "setup")
    module = importlib.import_module("prepare")
    monkeypatch.setattr(module.shutil, "which", lambda name: name if name == "dpkg-query" else None)
    monkeypatch.setattr(module, "VENV", ROOT / "never-made")
    monkeypatch.setattr(module, "distribution_in_use", lambda: None)
    return module


def answer_dpkg(monkeypatch, module, listing):
    """Let dpkg-query report `listing`, and any other command fail the test."""

    def run(command, **_):
        assert command[0] == "dpkg-query"
        return subprocess.CompletedProcess(command, 0, stdout=listing)

    monkeypatch.setattr(module.subprocess, "run", run)


def test_a_user_without_root_is_told_in_one_line_what_to_install(prepare, monkeypatch):
    answer_dpkg(monkeypatch, prepare, "installed|libgl1|\ninstalled|ninja-build|\ndeinstall|cmake|\n")
    monkeypatch.setattr(prepare.os, "geteuid", lambda: 1000)
    with pytest.raises(prepare.SetupError) as caught:
        prepare.prepare("demo")
    line = str(caught.value)
    assert "\n" not in line
    assert "sudo apt-get install libglib2.0-0 python3-ament-package g++ cmake" in line
    assert "libgl1" not in line and "ninja-build" not in line and "espeak-ng" not in line


def test_a_renamed_debian_package_counts_by_the_name_it_provides(prepare, monkeypatch):
    listing = "installed|libglib2.0-0t64|libglib2.0-0 (= 2.80.0-6)\ninstalled|libgl1|\n"
    answer_dpkg(monkeypatch, prepare, listing)
    assert not {"libglib2.0-0", "libgl1"} & set(prepare.missing_debian_packages("demo", with_wheels=False))


def test_only_the_test_profile_wants_a_voice_and_a_sound_device(prepare, monkeypatch):
    answer_dpkg(monkeypatch, prepare, "")
    extra = {"libportaudio2", "espeak-ng", "alsa-utils", "libasound2-plugins"}
    assert not extra & set(prepare.missing_debian_packages("demo", with_wheels=True))
    assert extra <= set(prepare.missing_debian_packages("test", with_wheels=True))


def test_a_failed_step_shows_the_end_of_the_log_and_where_it_is(prepare, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(prepare, "ROOT", tmp_path)
    monkeypatch.setattr(prepare, "BUILD", tmp_path / "build")
    monkeypatch.setattr(prepare, "LOG", tmp_path / "build" / "setup.log")
    command = [sys.executable, "-c", "print('the reason'); raise SystemExit(3)"]
    with pytest.raises(prepare.SetupError, match=r"failed \(3\) while: Step; see build/setup.log"):
        prepare.Steps().run("Step", lambda: prepare.run_logged(command))
    assert "the reason" in capsys.readouterr().err


def test_a_step_runs_again_only_when_its_inputs_change(prepare, monkeypatch, tmp_path):
    monkeypatch.setattr(prepare, "BUILD", tmp_path / "build")
    monkeypatch.setattr(prepare, "LOG", tmp_path / "build" / "setup.log")
    monkeypatch.setattr(prepare, "STAMPS", tmp_path / "stamps")
    ran = []
    for inputs in ("a", "a", "b", "b"):
        prepare.Steps().stamped("step", inputs, "Step", lambda inputs=inputs: ran.append(inputs))
    assert ran == ["a", "b"]


def test_the_upstream_baseline_stays_out_of_the_environment(prepare, monkeypatch):
    commands = []
    monkeypatch.setattr(prepare, "run_logged", lambda command, environment: commands.append(command))
    prepare.install_upstream()
    (command,) = commands
    folder = command[command.index("--target") + 1]
    assert prepare.VENV == ROOT / "never-made" and folder.name == "upstream" and "site-packages" not in folder.parts
    assert command[-1] == prepare.UPSTREAM and "--no-deps" in command


def test_wheels_exports_are_redirected_to_this_machines_headers(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "dev" / "setup")
    messages = importlib.import_module("messages")
    folder = tmp_path / "share" / "std_msgs" / "cmake"
    folder.mkdir(parents=True)
    export = folder / "export_std_msgs__rosidl_generator_pyExport.cmake"
    foreign = "/opt/python/cp312-cp312"
    export.write_text(
        f'DIRS "{foreign}/include/python3.12;{foreign}/lib/python3.12/site-packages/numpy/_core/include"\n'
    )
    assert messages.redirect_exported_includes(tmp_path, Path("/p/include"), Path("/n/include")) == 1
    assert export.read_text() == 'DIRS "/p/include;/n/include"\n'
    assert messages.redirect_exported_includes(tmp_path, Path("/p/include"), Path("/n/include")) == 0


@pytest.mark.parametrize("name", ["jazzy-cuda", "jetson"])
def test_images_install_what_the_package_needs_and_start_what_it_has(name):
    """Images are not built here: a requirement that they forget would be seen on the robot only."""
    image = (ROOT / "dev" / "docker" / f"{name}.Dockerfile").read_text()
    required = re.search(r"install_requires=\[(.*?)\]", (ROOT / "setup.py").read_text(), re.DOTALL)[1]
    packages = {re.split(r"[>=]", found)[0] for found in re.findall(r'"(.+?)"', required)}
    comes_with_the_base = {"numpy", "opencv-python"}
    lacking = {p for p in packages - comes_with_the_base if p.lower().removeprefix("py") not in image.lower()}
    assert not lacking
    (launched,) = re.findall(r"ros2 launch aecf_ros (\S+\.py)", image)
    assert (ROOT / "launch" / launched).is_file()
    assert "--base-paths src src/aecf_ros/aecf_msgs" in image
    assert "unverified" in image.splitlines()[0]
    for source, target in re.findall(r"(?m)^COPY (\S+) (\S+)$", image):
        assert (ROOT / source).exists() and target == "/ws/src/aecf_ros"
    # ROS packages beyond those of ros_base come by apt, or from a repository that is cloned into the workspace.
    depended = {e.text for e in ElementTree.parse(ROOT / "package.xml").getroot() if e.tag == "depend"}
    for package, named in (("audio_common_msgs", "audio.common"), ("vision_msgs", "vision.msgs")):
        assert package in depended and re.search(named, image)
    arguments = dict(argument.split(":=") for argument in re.findall(r"\S+:=\w+", image))
    declared = set(re.findall(r'(?m)^    "(\w+)": \("', (ROOT / "launch" / launched).read_text()))
    assert set(arguments) <= declared


def build_by_colcon(workspace: Path, prefix: Path) -> subprocess.CompletedProcess[str]:
    """`colcon build` without a flag, in a workspace whose `src` holds this repository."""
    pytest.importorskip("colcon_core", reason="colcon is not installed for this Python")
    ignored = shutil.ignore_patterns(
        ".*", "build", "install", "log", "out", "models", "test", "docs", "benchmarks", "*.egg-info"
    )
    shutil.copytree(ROOT, workspace / "src" / "aecf_ros", ignore=ignored)
    (workspace / "src" / "aecf_ros" / "models").mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("COLCON", "AMENT"))}
    environment |= {"AMENT_PREFIX_PATH": str(prefix), "COLCON_HOME": str(workspace)}
    command = [sys.executable, "-m", "colcon", "build"]
    return subprocess.run(command, cwd=workspace, env=environment, capture_output=True, text=True)


def test_colcon_without_the_message_package_stops_with_the_command_that_builds_both(tmp_path: Path) -> None:
    done = build_by_colcon(tmp_path / "ws", tmp_path)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if "aecf_msgs is not built" in line]
    assert len(lines) == 1 and "`colcon build --base-paths src src/aecf_ros/aecf_msgs`" in lines[0]
    assert "Traceback" not in done.stderr + done.stdout


def test_colcon_with_the_message_package_beneath_builds(tmp_path: Path) -> None:
    (tmp_path / "share" / "aecf_msgs").mkdir(parents=True)
    shutil.copy(ROOT / "aecf_msgs" / "package.xml", tmp_path / "share" / "aecf_msgs")
    done = build_by_colcon(tmp_path / "ws", tmp_path)
    assert done.returncode == 0, done.stderr
    executables = tmp_path / "ws" / "install" / "aecf_ros" / "lib" / "aecf_ros"
    assert {"fusion_node", "camera_node", "microphone_node", "evaluator_node"} <= {
        path.name for path in executables.iterdir()
    }


@pytest.mark.parametrize("package", ["aecf_msgs", "rclpy"])
def test_a_node_names_the_package_that_it_lacks_in_one_line(package: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; from aecf_ros.nodes import executables as e; e.fusion_node()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1
    assert f"{package} cannot be imported" in done.stderr
    assert ("colcon build --base-paths" in done.stderr) == (package == "aecf_msgs")
