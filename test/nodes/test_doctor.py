"""`aecf doctor`: run for real on this machine, and each verdict on made-up ones."""

from __future__ import annotations

import json
import mmap
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from aecf_ros.nodes.ros.shared_memory import SHARED_MEMORY  # noqa: E402
from aecf_ros.nodes.tools import doctor  # noqa: E402
from aecf_ros.nodes.tools.doctor import Finding  # noqa: E402

from .conftest import ROOT


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "aecf_ros.cli", "doctor", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


def test_real_run_prints_the_same_findings_as_text_and_as_json() -> None:
    told = run("--json")
    report = json.loads(told.stdout)
    findings = {f["check"]: f for f in report["findings"]}
    assert {
        "python",
        "ros",
        "middleware",
        "messages",
        "audio messages",
        "fast dds profile",
        "shared memory",
        "leaked segments",
        "model",
        "inference",
        "onnxruntime",
        "torch",
        "microphones",
        "cameras",
    } <= set(findings)
    assert findings["python"]["verdict"] == "OK" and findings["inference"]["found"].endswith(
        ("cpu", "cuda", "tensorrt")
    )
    assert all(f["do"] for f in report["findings"] if f["verdict"] != "OK")
    assert told.returncode == (0 if report["ok"] else 1)
    text = run()
    assert text.returncode == told.returncode
    assert all(check in text.stdout for check in findings)


def test_a_profile_that_is_not_there_fails_and_exits_with_1() -> None:
    told = run("--json", FASTDDS_DEFAULT_PROFILES_FILE="/nowhere/profile.xml")
    assert told.returncode == 1
    found = next(f for f in json.loads(told.stdout)["findings"] if f["check"] == "fast dds profile")
    assert found["verdict"] == "FAIL" and "/nowhere/profile.xml" in found["found"]


def test_a_check_that_breaks_is_a_finding_and_the_others_are_still_made() -> None:
    def check_radio() -> list[Finding]:
        raise ValueError("no antenna")

    broken, fine = doctor.examine([check_radio, lambda: [Finding("clock", "OK", "ticks")]])
    assert (broken.check, broken.verdict) == ("radio", "FAIL") and "no antenna" in broken.found
    assert fine.verdict == "OK"


@pytest.mark.parametrize(("running", "verdict"), [((3, 9), "FAIL"), ((3, 10), "OK"), ((3, 13), "OK")])
def test_python(running: tuple[int, int], verdict: str) -> None:
    assert doctor.check_python(running)[0].verdict == verdict


def test_ros_without_rclpy_says_to_source_it() -> None:
    found = doctor.check_ros({}, has=lambda name: False)[0]
    assert found.verdict == "FAIL" and "source /opt/ros" in found.do


def test_ros_names_the_distribution() -> None:
    found = doctor.check_ros({"ROS_DISTRO": "humble", "ROS_DOMAIN_ID": "7"})[0]
    assert found.verdict == "OK" and found.found.startswith("humble") and "ROS_DOMAIN_ID 7" in found.found


def loader(*missing: str):
    def load(name: str) -> object:
        if name.split(".")[0] in missing:
            raise ModuleNotFoundError(name)
        return SimpleNamespace(AudioDataStamped=object)

    return load


@pytest.mark.parametrize(
    ("missing", "verdicts", "do"),
    [
        ((), ["OK", "OK"], ""),
        (("vision_msgs",), ["OK", "WARN", "OK"], "apt install ros-$ROS_DISTRO-vision-msgs"),
        (("aecf_msgs",), ["FAIL", "OK"], "colcon"),
        (("audio_common_msgs",), ["FAIL"], "apt install ros-$ROS_DISTRO-audio-common-msgs"),
    ],
)
def test_message_packages(missing: tuple[str, ...], verdicts: list[str], do: str) -> None:
    findings = doctor.check_messages(loader(*missing))
    assert [f.verdict for f in findings] == verdicts
    assert do in " ".join(f.do for f in findings)


@pytest.mark.parametrize(
    ("names", "verdict", "says"),
    [
        ({"AudioData", "AudioDataStamped", "AudioInfo"}, "OK", "as apt ships it"),
        ({"Audio", "AudioStamped"}, "WARN", "other origin"),
        ({"Noise"}, "FAIL", "neither"),
    ],
)
def test_dialect_of_audio_messages(names: set[str], verdict: str, says: str) -> None:
    found = doctor.audio_dialect(names)
    assert found.verdict == verdict and says in found.found


def test_the_other_dialect_is_said_to_do_for_microphone_node() -> None:
    found = doctor.audio_dialect({"Audio", "AudioStamped"})
    assert "microphone_node publishes its AudioStamped" in found.found and "microphone_node needs" not in found.do


FAST_DDS_2, FAST_DDS_3 = "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"


@pytest.mark.parametrize(
    ("distro", "named", "verdict", "says"),
    [
        ("jazzy", [], "WARN", f"not set: {FAST_DDS_2}, which jazzy reads:"),
        ("jazzy", [FAST_DDS_2], "OK", f"{FAST_DDS_2}="),
        ("jazzy", [FAST_DDS_3], "WARN", f"not set: {FAST_DDS_2}, which jazzy reads; set: {FAST_DDS_3}="),
        ("humble", [FAST_DDS_3], "WARN", f"not set: {FAST_DDS_2}, which humble reads; set:"),
        ("kilted", [FAST_DDS_2], "WARN", f"not set: {FAST_DDS_3}, which kilted reads; set:"),
        ("kilted", [FAST_DDS_3], "OK", f"{FAST_DDS_3}="),
        ("jazzy", [FAST_DDS_2, FAST_DDS_3], "OK", f"{FAST_DDS_3}="),
        ("", [FAST_DDS_2], "WARN", f"not set: {FAST_DDS_3} (ROS_DISTRO does not say which is read); set:"),
        ("", [FAST_DDS_2, FAST_DDS_3], "OK", f"{FAST_DDS_3}="),
    ],
)
def test_profile_is_right_under_the_name_that_the_distribution_reads(
    distro: str, named: list[str], verdict: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_version", lambda distribution: "")
    profile = tmp_path / "profile.xml"
    profile.write_text("<dds/>")
    found = doctor.check_profile({"ROS_DISTRO": distro, **dict.fromkeys(named, str(profile))})[0]
    assert found.verdict == verdict and says in found.found
    if verdict == "WARN":
        path = profile if named else ROOT / "config" / "fastdds_shared_memory.xml"
        assert f"export {FAST_DDS_2}={path} {FAST_DDS_3}={path};" in found.do


def test_profile_that_is_no_file(tmp_path: Path) -> None:
    assert doctor.check_profile({FAST_DDS_3: str(tmp_path / "none.xml")})[0].verdict == "FAIL"


def test_small_and_missing_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_shared_memory(tmp_path / "shm")[0].verdict == "FAIL"
    for free_mib, verdict in ((64, "WARN"), (4096, "OK")):
        monkeypatch.setattr(
            doctor.shutil,
            "disk_usage",
            lambda folder, mib=free_mib: SimpleNamespace(total=mib * 2**20, free=mib * 2**20),
        )
        assert doctor.check_shared_memory(tmp_path)[0].verdict == verdict


def test_a_segment_that_nobody_has_mapped_is_leaked_and_one_in_use_is_not() -> None:
    folder = SHARED_MEMORY / f"test_doctor_{os.getpid()}"
    folder.mkdir()
    try:
        (folder / "fastrtps_left").write_bytes(bytes(100))
        (folder / "fastrtps_used").write_bytes(bytes(100))
        with (folder / "fastrtps_used").open("r+b") as file, mmap.mmap(file.fileno(), 100):
            found = doctor.leaked_segments(folder)
            assert (
                found.verdict == "WARN"
                and ": 1 of Fast DDS" in found.found
                and "fastrtps_left" in found.found
                and "fastdds shm clean" in found.do
            )
            (folder / "fastrtps_left").unlink()
            assert doctor.leaked_segments(folder).found == "none; 1 in use"
    finally:
        shutil.rmtree(folder)


def test_a_model_that_does_not_verify_fails(tmp_path: Path) -> None:
    assert doctor.check_bundle(tmp_path / "gone")[0].verdict == "FAIL"


CPU, CUDA = ["AzureExecutionProvider", "CPUExecutionProvider"], ["CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("providers", "gpu", "verdict"), [(CPU, "", "OK"), (CUDA, "/dev/nvidia0", "OK"), (CPU, "/dev/nvidia0", "WARN")]
)
def test_a_gpu_that_onnxruntime_cannot_use_is_a_warning(providers: list[str], gpu: str, verdict: str) -> None:
    found = doctor.judge_providers(providers, gpu, "1.20")
    assert found.verdict == verdict
    assert ("onnxruntime-gpu" in found.do) == (verdict == "WARN")


def test_a_gpu_is_seen_by_its_device_or_its_tool(tmp_path: Path) -> None:
    assert doctor.gpu(tmp_path, lambda name: None) == ""
    assert doctor.gpu(tmp_path, lambda name: "/usr/bin/nvidia-smi") == "nvidia-smi is installed"
    (tmp_path / "nvidiactl").touch()
    (tmp_path / "nvidia0").touch()
    assert doctor.gpu(tmp_path, lambda name: None) == f"{tmp_path}/nvidia0"


def test_cameras_present_absent_and_forbidden(tmp_path: Path) -> None:
    assert doctor.check_cameras(tmp_path)[0].verdict == "WARN"
    (tmp_path / "video0").touch()
    assert doctor.check_cameras(tmp_path)[0].found == f"{tmp_path}/video0"
    forbidden = doctor.check_cameras(tmp_path, readable=lambda p: False)[0]
    assert forbidden.verdict == "WARN" and "usermod" in forbidden.do


def test_microphones_of_a_machine_are_listed(tmp_path: Path) -> None:
    pytest.importorskip("sounddevice", exc_type=OSError)
    (tmp_path / "asoundrc").write_text("pcm.default { type null }\npcm.robot_mic { type null\n hint.show on }\n")
    report = json.loads(run("--json", ALSA_CONFIG_PATH=str(tmp_path / "asoundrc")).stdout)
    found = next(f for f in report["findings"] if f["check"] == "microphones")
    assert found["verdict"] == "OK" and "'robot_mic'" in found["found"]


@pytest.mark.parametrize(
    ("program", "says", "do"),
    [
        ("pass", "PortAudio finds no input device", "plug a microphone in"),
        ("import os; os.abort()", "listing them ended with -6", "ALSA configuration"),
        (
            "raise SystemExit('sounddevice is not installed; pip install sounddevice')",
            "sounddevice is not installed",
            "only microphone_node needs it",
        ),
    ],
)
def test_no_microphone_a_broken_alsa_and_no_portaudio_are_told_apart(program: str, says: str, do: str) -> None:
    (found,) = doctor.check_microphones(program)
    assert found.verdict == "WARN" and says in found.found and do in found.do
