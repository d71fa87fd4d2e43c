"""`aecf doctor`: what this machine has, what is wrong with it, and what to do.

Every check takes what it judges as arguments with real defaults, and gives findings; none of them imports what may be
missing before it knows that it is there, and none of them raises.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from aecf_ros.core.errors import BUILD_MESSAGES
from aecf_ros.nodes.ros.shared_memory import SHARED_MEMORY, orphans

Verdict = Literal["OK", "WARN", "FAIL"]
MESSAGE_PACKAGES = (
    "aecf_msgs",
    "audio_common_msgs",
    "diagnostic_msgs",
    "sensor_msgs",
    "std_msgs",
    "std_srvs",
    "vision_msgs",
)
OPTIONAL_PACKAGES = ("vision_msgs",)
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
"""Fast DDS 2 reads the first name alone, Fast DDS 3 the second."""
FAST_DDS_2 = ("humble", "iron", "jazzy")
WHEELS = "jazzy"
"""The distribution that is on PyPI."""
LEAST_SHARED_MEMORY_MIB = 256
GPU_PROVIDERS = ("TensorrtExecutionProvider", "CUDAExecutionProvider")
LOCK_SUFFIX = "_el"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it is, what was found, and what to do where that is not OK."""

    check: str
    verdict: Verdict
    found: str
    do: str = ""


def examine(checks: Sequence[Callable[[], list[Finding]]] | None = None) -> list[Finding]:
    """Every finding of every check. A check that breaks is a finding too."""
    findings = []
    for check in CHECKS if checks is None else checks:
        try:
            findings += check()
        except Exception as error:  # a broken installation can raise anything
            name = check.__name__.removeprefix("check_")
            findings.append(
                Finding(
                    name,
                    "FAIL",
                    f"the check broke: {type(error).__name__}:"
                    f" {str(error).strip().splitlines()[0] if str(error) else ''}",
                    f"reinstall what concerns {name}",
                )
            )
    return findings


def findings_table(findings: Sequence[Finding]) -> Table:
    """A line for each finding."""
    styles = {"OK": "green", "WARN": "yellow", "FAIL": "bold red"}
    table = Table("", "check", "found, and what to do", box=SIMPLE_HEAD, header_style="dim", pad_edge=False)
    for f in findings:
        table.add_row(
            Text(f.verdict, styles[f.verdict]),
            f.check,
            Text(f.found) + (Text(f"\n-> {f.do}", "bold") if f.do else Text("")),
        )
    return table


def findings_json(findings: Sequence[Finding]) -> str:
    """The same as JSON: ``{"ok": bool, "findings": [{check, verdict, found, do}, ...]}``."""
    return json.dumps(
        {"ok": all(f.verdict != "FAIL" for f in findings), "findings": [asdict(f) for f in findings]}, indent=2
    )


# --- ROS ---


def check_python(running: tuple[int, int] = sys.version_info[:2]) -> list[Finding]:
    """Python is one that the package supports."""
    version = f"{running[0]}.{running[1]} at {sys.executable}, {platform.platform()}"
    return [
        (
            Finding("python", "OK", version)
            if running >= (3, 10)
            else Finding("python", "FAIL", version, "use Python 3.10 or later")
        )
    ]


def check_ros(
    environment: Mapping[str, str] = os.environ, has: Callable[[str], bool] = lambda name: find_spec(name) is not None
) -> list[Finding]:
    """rclpy can be imported, and from which distribution."""
    if not has("rclpy"):
        return [
            Finding(
                "ros",
                "FAIL",
                "rclpy cannot be imported",
                "source /opt/ros/DISTRO/setup.bash, or `make setup-demo` for the wheels",
            )
        ]
    import rclpy

    where = Path(rclpy.__file__).parent
    distro = _distribution(environment)
    if not distro:
        return [
            Finding(
                "ros",
                "WARN",
                f"rclpy at {where}, but ROS_DISTRO is not set",
                "source the setup.bash of the ROS installation",
            )
        ]
    source = "" if environment.get("ROS_DISTRO") else ", from PyPI"
    return [
        Finding(
            "ros", "OK", f"{distro}{source}; rclpy at {where}; ROS_DOMAIN_ID {environment.get('ROS_DOMAIN_ID', '0')}"
        )
    ]


def check_middleware() -> list[Finding]:
    """The middleware that is really loaded."""
    from rclpy.utilities import get_rmw_implementation_identifier

    name = get_rmw_implementation_identifier()
    if name != "rmw_fastrtps_cpp":
        return [
            Finding(
                "middleware",
                "WARN",
                name,
                "large images were measured with rmw_fastrtps_cpp only; check that frames arrive: `ros2 topic hz`",
            )
        ]
    return [Finding("middleware", "OK", name)]


def check_messages(load: Callable[[str], object] = importlib.import_module) -> list[Finding]:
    """Every message package, and which of the two packages named ``audio_common_msgs`` is installed."""
    findings = []
    missing = [name for name in MESSAGE_PACKAGES if _missing(name, load)]
    required = [name for name in missing if name not in OPTIONAL_PACKAGES]
    if required:
        packages = " ".join(f"ros-$ROS_DISTRO-{name.replace('_', '-')}" for name in required if name != "aecf_msgs")
        how = [f"apt install {packages}"] if packages else []
        how += [BUILD_MESSAGES] if "aecf_msgs" in required else []
        findings.append(Finding("messages", "FAIL", f"missing: {', '.join(required)}", "; ".join(how)))
    else:
        findings.append(Finding("messages", "OK", ", ".join(name for name in MESSAGE_PACKAGES if name not in missing)))
    if optional := [name for name in missing if name in OPTIONAL_PACKAGES]:
        findings.append(
            Finding(
                "messages",
                "WARN",
                f"missing: {', '.join(optional)}; ~/classification is not published",
                f"apt install {' '.join('ros-$ROS_DISTRO-' + name.replace('_', '-') for name in optional)}, if you"
                " want it",
            )
        )
    if "audio_common_msgs" not in missing:
        findings.append(
            audio_dialect({name for name in dir(load("audio_common_msgs.msg")) if not name.startswith("_")})
        )
    return findings


def audio_dialect(names: set[str]) -> Finding:
    """Which ``audio_common_msgs`` has these message types."""
    if "AudioDataStamped" in names:
        return Finding("audio messages", "OK", "audio_common_msgs as apt ships it: AudioDataStamped, AudioInfo")
    if "AudioStamped" in names:
        return Finding(
            "audio messages",
            "WARN",
            "audio_common_msgs of the other origin: microphone_node publishes its AudioStamped and fusion_node hears"
            " it; AudioDataStamped, as apt ships it, is not understood here",
            "for machines, drivers or recordings with AudioDataStamped: apt install ros-$ROS_DISTRO-audio-common-msgs,"
            " and source it last",
        )
    return Finding(
        "audio messages",
        "FAIL",
        f"audio_common_msgs has neither AudioDataStamped nor AudioStamped: {', '.join(sorted(names)) or 'nothing'}",
        "apt install ros-$ROS_DISTRO-audio-common-msgs",
    )


# --- shared memory ---


def check_profile(environment: Mapping[str, str] = os.environ) -> list[Finding]:
    """A Fast DDS profile with a larger segment is set under the name that this distribution reads, and its file is
    there.
    """
    from aecf_ros.nodes.fusion.parameters import shipped

    set_to = {name: environment[name] for name in PROFILE_VARIABLES if environment.get(name)}
    if gone := [f"{name}={path}" for name, path in set_to.items() if not Path(path).is_file()]:
        return [
            Finding("fast dds profile", "FAIL", f"no such file: {', '.join(gone)}", "correct the variable, or unset it")
        ]
    profiles = ", ".join(f"{name}={path}" for name, path in set_to.items())
    distro = _distribution(environment)
    read = PROFILE_VARIABLES if not distro else PROFILE_VARIABLES[:1] if distro in FAST_DDS_2 else PROFILE_VARIABLES[1:]
    if not (lacking := [name for name in read if name not in set_to]):
        return [Finding("fast dds profile", "OK", profiles)]
    by = f", which {distro} reads" if distro else " (ROS_DISTRO does not say which is read)"
    path = next(iter(set_to.values()), str(shipped("config/fastdds_shared_memory.xml")))
    return [
        Finding(
            "fast dds profile",
            "WARN",
            f"not set: {', '.join(lacking)}{by}{f'; set: {profiles}' if profiles else ''}: the "
            f"segment is 512 KB, and raw"
            " images of 640x480 and above get lost",
            f"for every node: export {' '.join(f'{name}={path}' for name in PROFILE_VARIABLES)}; fusion.launch.py sets"
            " both for what it starts",
        )
    ]


def check_shared_memory(folder: Path = SHARED_MEMORY) -> list[Finding]:
    """Size of the shared memory, and segments that dead processes left there."""
    if not folder.is_dir():
        return [
            Finding(
                "shared memory",
                "FAIL",
                f"{folder} does not exist",
                "mount a tmpfs there; in Docker: --shm-size=1g or --ipc=host",
            )
        ]
    usage = shutil.disk_usage(folder)
    total_mib, free_mib = usage.total // 2**20, usage.free // 2**20
    memory = f"{folder}: {free_mib} of {total_mib} MiB free"
    findings = [
        (
            Finding("shared memory", "OK", memory)
            if free_mib >= LEAST_SHARED_MEMORY_MIB
            else Finding(
                "shared memory",
                "WARN",
                f"{memory}; each participant takes 32 MiB with the shipped profile",
                "in Docker: --shm-size=1g or --ipc=host",
            )
        )
    ]
    return [*findings, leaked_segments(folder)]


def leaked_segments(folder: Path = SHARED_MEMORY) -> Finding:
    """Segments of Fast DDS that no living process has mapped."""
    segments = {path for path in folder.glob("*fast*") if not path.name.endswith(LOCK_SUFFIX)}
    leaked = sorted(orphans(segments))
    if leaked:
        size_mib = sum(path.stat().st_size for path in leaked if path.exists()) / 2**20
        return Finding(
            "leaked segments",
            "WARN",
            f"{folder}: {len(leaked)} of Fast DDS that no process uses, {size_mib:.0f} MiB, the first {leaked[0].name}",
            "`fastdds shm clean`, or remove them while no node runs",
        )
    return Finding("leaked segments", "OK", f"none; {len(segments)} in use" if segments else "none")


# --- inference ---


def check_bundle(model: Path | None = None) -> list[Finding]:
    """The shipped bundle is whole and its graphs run, and on which device."""
    from aecf_ros.core.bundle import BundleError, load_bundle
    from aecf_ros.nodes.fusion.parameters import shipped_model
    from aecf_ros.runtime.backends import BackendError, make_backend

    path = model or shipped_model()
    try:
        bundle = load_bundle(path)
    except BundleError as error:
        return [Finding("model", "FAIL", str(error), "restore the model directory, or reinstall aecf_ros")]
    findings = [
        Finding(
            "model", "OK", f"{bundle.manifest.name} at {path}: {len(bundle.manifest.files)} files match their SHA-256"
        )
    ]
    try:
        backend = make_backend("onnxruntime", bundle)
    except BackendError as error:
        return [*findings, Finding("inference", "FAIL", str(error), "see the versions of onnxruntime and CUDA")]
    return [*findings, Finding("inference", "OK", f"the graphs of {bundle.manifest.name} load on {backend.device}")]


def check_onnxruntime() -> list[Finding]:
    """Providers of onnxruntime, against the GPU of this machine."""
    import onnxruntime

    return [judge_providers(onnxruntime.get_available_providers(), gpu(), onnxruntime.__version__)]


def judge_providers(providers: Sequence[str], gpu_found: str, installed: str) -> Finding:
    """Whether onnxruntime can use the GPU that is there."""
    providers_found = f"{installed}: {', '.join(providers)}; " + (f"GPU: {gpu_found}" if gpu_found else "no GPU seen")
    if gpu_found and not set(providers) & set(GPU_PROVIDERS):
        return Finding(
            "onnxruntime",
            "WARN",
            f"{providers_found}; a GPU is there but onnxruntime cannot use it",
            "pip uninstall onnxruntime && pip install onnxruntime-gpu (on a Jetson: NVIDIA's wheel)",
        )
    return Finding("onnxruntime", "OK", providers_found)


def gpu(devices: Path = Path("/dev"), find: Callable[[str], str | None] = shutil.which) -> str:
    """What says that a GPU is there; empty if nothing does."""
    nodes = sorted(p.name for p in devices.glob("nvidia[0-9]*")) + sorted(p.name for p in devices.glob("nvhost-gpu"))
    if nodes:
        return ", ".join(f"{devices}/{name}" for name in nodes)
    return "nvidia-smi is installed" if find("nvidia-smi") else ""


def check_torch() -> list[Finding]:
    """torch, which only training needs."""
    installed = _version("torch")
    return [
        Finding(
            "torch",
            "OK",
            f"{installed}, for `aecf train`" if installed else "not installed; only `aecf train` needs it",
        )
    ]


# --- sensors ---

LIST_MICROPHONES = """
from aecf_ros.nodes.drivers.devices import DeviceError
from aecf_ros.nodes.drivers.microphone import input_devices, portaudio
try:
    print(", ".join(f"{d.index} '{d.name}' ({d.channels} ch, {d.rate_hz:.0f} Hz)" for d in input_devices(portaudio())))
except DeviceError as error:
    raise SystemExit(str(error))
"""


def check_microphones(program: str = LIST_MICROPHONES) -> list[Finding]:
    """PortAudio, and what it can record from; in a process of its own, which a broken ALSA configuration ends."""
    listed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    said = (listed.stderr.strip().splitlines() or [""])[-1]
    if listed.returncode == 1:
        said_part, _, do = said.rpartition("; ")
        return [
            Finding(
                "microphones",
                "WARN",
                said_part or said,
                f"{do if said_part else 'see `arecord -l`'}; only microphone_node needs it",
            )
        ]
    if listed.returncode:
        return [
            Finding(
                "microphones",
                "WARN",
                f"listing them ended with {listed.returncode}: {said or 'ALSA or PortAudio broke'}",
                "see `arecord -l`, the ALSA configuration (~/.asoundrc, /etc/asound.conf) and `apt install"
                " libasound2-data`",
            )
        ]
    if not listed.stdout.strip():
        return [
            Finding(
                "microphones",
                "WARN",
                "PortAudio finds no input device",
                "plug a microphone in, and see `arecord -l`; in Docker: --device /dev/snd",
            )
        ]
    return [Finding("microphones", "OK", listed.stdout.strip())]


def check_cameras(
    folder: Path = Path("/dev"), readable: Callable[[Path], bool] = lambda p: os.access(p, os.R_OK | os.W_OK)
) -> list[Finding]:
    """Video devices, and whether this user may open them."""
    cameras = sorted(folder.glob("video[0-9]*"))
    if not cameras:
        return [
            Finding(
                "cameras",
                "WARN",
                f"no {folder}/video*",
                "plug a camera in, or publish camera/image from elsewhere; in Docker: --device /dev/video0",
            )
        ]
    closed = [p for p in cameras if not readable(p)]
    if closed:
        return [
            Finding(
                "cameras",
                "WARN",
                f"no permission for {', '.join(map(str, closed))}",
                "sudo usermod -aG video $USER, and log in again",
            )
        ]
    return [Finding("cameras", "OK", ", ".join(map(str, cameras)))]


def _missing(name: str, load: Callable[[str], object]) -> bool:
    try:
        load("std_srvs.srv" if name == "std_srvs" else f"{name}.msg")
    except ImportError:
        return True
    return False


def _distribution(environment: Mapping[str, str]) -> str:
    """The ROS distribution: the one that is sourced, else that of the wheels; empty where there is neither."""
    return environment.get("ROS_DISTRO") or (WHEELS if _version(f"ros-{WHEELS}-rclpy") else "")


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


CHECKS: tuple[Callable[[], list[Finding]], ...] = (
    check_python,
    check_ros,
    check_middleware,
    check_messages,
    check_profile,
    check_shared_memory,
    check_bundle,
    check_onnxruntime,
    check_torch,
    check_microphones,
    check_cameras,
)
