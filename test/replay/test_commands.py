"""`aecf evaluate` and `aecf replay` as they are typed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from aecf_ros.core.bundle import load_manifest
from aecf_ros.replay.faults.sweep import plan, read_severities
from aecf_ros.replay.report.timeline import draw_timeline
from aecf_ros.replay.scoring.prediction_log import PredictionLog
from aecf_ros.replay.scoring.score import Run, summarize
from test.command_line import aecf

KINDS = {"camera": "image", "audio": "audio"}


def faults_file(folder: Path, text: str, name: str = "faults.yaml") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_two_schedules_are_compared_in_one_report(red_then_blue: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    lost = faults_file(tmp_path, "- {stream: camera, kind: drop, start_s: 2, end_s: 4}", "lost.yaml")
    frozen = faults_file(
        tmp_path,
        "- {stream: camera, kind: freeze, start_s: 2, end_s: 4}\n"
        "- {stream: audio, kind: drop, start_s: 99, end_s: 100}",
        "frozen.yaml",
    )
    done = aecf(
        "evaluate",
        "--model",
        tiny_bundle,
        "--bag",
        red_then_blue,
        "--faults",
        lost,
        "--faults",
        frozen,
        "--out",
        tmp_path / "out",
    )
    assert done.exit_code == 0 and "camera from /camera/image" in done.output and "labels from /label" in done.output
    assert "audio drop begins at 99 s" in done.output
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["title"] == "lost" and list(summary["compared"]) == ["frozen"]
    assert summary["compared"]["frozen"]["streams"]["camera"]["faults"][0]["states"][-1] == "FROZEN"
    html = (tmp_path / "out" / "report.html").read_text()
    assert "Compared" in html and html.count('alt="Timeline') == 2


def test_a_sweep_has_a_point_for_each_stream_kind_and_severity(
    red_then_blue: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    done = aecf(
        "evaluate",
        "--model",
        tiny_bundle,
        "--bag",
        red_then_blue,
        "--sweep",
        "camera,audio",
        "--kinds",
        "drop,blur",
        "--severity",
        "0,5",
        "--out",
        tmp_path / "out",
    )
    assert done.exit_code == 0
    points = json.loads((tmp_path / "out" / "summary.json").read_text())["sweep"]
    assert [(p["stream"], p["kind"], p["severity"]) for p in points] == [
        ("camera", "drop", 0),
        ("camera", "drop", 5),
        ("camera", "blur", 0),
        ("camera", "blur", 5),
        ("audio", "drop", 0),
        ("audio", "drop", 5),
    ]
    gone = next(p for p in points if (p["stream"], p["kind"], p["severity"]) == ("camera", "drop", 5))
    assert gone["gate_weights"] == {"camera": 0.0, "audio": 1.0} and gone["metrics"]["n"] > 0


def test_a_label_that_the_model_does_not_know_is_said(
    new_recording: Callable, tiny_bundle: Path, tmp_path: Path
) -> None:
    bag = new_recording().info(0).scene(0, 2, "red").label(1.5, "mauve").write(tmp_path / "bag")
    done = aecf("evaluate", "--model", tiny_bundle, "--bag", bag, "--out", tmp_path / "out")
    assert done.exit_code == 0 and "labels 'mauve' are none of the model's (red, green, blue)" in done.output


def test_sound_that_nothing_describes_is_read_as_the_options_say(
    new_recording: Callable, tiny_bundle: Path, tmp_path: Path
) -> None:
    recording = new_recording()
    for i in range(20):
        recording.image(i * 0.1, "green").plain_sound(i * 0.1 + 0.05, "green").label(i * 0.1, "green")
    bag = recording.write(tmp_path / "bag")
    words = ("evaluate", "--model", tiny_bundle, "--bag", bag, "--out", tmp_path / "out")
    done = aecf(*words)
    assert (
        done.exit_code == 0
        and "warning: /audio: 20 messages cannot be used, the first at 0.05 s: no AudioInfo has arrived" in done.output
    )
    assert (
        "REJECTED"
        in json.loads((tmp_path / "out" / "summary.json").read_text())["streams"]["audio"]["seconds_in_state"]
    )
    assert aecf(*words, "--audio-format", "S16LE", "--audio-rate", 800).exit_code == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["subsets"]["camera+audio"]["n"] > 0


def test_two_runs_give_the_same_summary_apart_from_what_the_machine_took(
    red_then_blue: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    faults = faults_file(
        tmp_path,
        "- {stream: camera, kind: noise, start_s: 2, end_s: 4, severity: 2}\n"
        "- {stream: audio, kind: drop, start_s: 3, end_s: 8, severity: 2}\n"
        "- {stream: camera, kind: corrupt, start_s: 6, end_s: 8, share: 0.5}",
    )
    found = []
    for run in ("one", "two"):
        done = aecf(
            "evaluate", "--model", tiny_bundle, "--bag", red_then_blue, "--faults", faults, "--out", tmp_path / run
        )
        assert done.exit_code == 0 and "cannot be used" not in done.output  # a fault explains it
        found.append(json.loads((tmp_path / run / "summary.json").read_text()))
        assert found[-1].pop("latency_ms")["frames"] > 0 and found[-1].pop("realtime_factor") > 0
    assert found[0] == found[1]


def test_a_recording_is_written_again(red_then_blue: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    done = aecf("replay", "--model", tiny_bundle, "--bag", red_then_blue, "--out", tmp_path / "again.mcap")
    assert done.exit_code == 0 and "on /fusion_node/prediction" in done.output and (tmp_path / "again.mcap").is_file()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--sweep", "camra"), "did you mean 'camera'?"),
        (("--sweep", "audio", "--kinds", "blur"), "'blur' cannot act on audio"),
        (("--sweep", "camera", "--severity", "9"), "write 0:5"),
        (("--topic", "camera=/x"), "no topic /x"),
        (("--audio-format", "S17"), "S17"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    red_then_blue: Path, tiny_bundle: Path, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    done = aecf("evaluate", "--model", tiny_bundle, "--bag", red_then_blue, "--out", tmp_path / "out", *options)
    assert done.exit_code == 1 and words in done.output and "Traceback" not in done.output


def test_severities_are_read_as_a_range_or_a_list() -> None:
    assert read_severities("0:5") == (0, 1, 2, 3, 4, 5) and read_severities("1,3") == (1, 3)
    assert [(f.stream, f.kind) for f in plan(["camera", "audio"], ["nan"], (5,), KINDS, 10)] == [("audio", "nan")]


def test_a_run_without_answers_is_drawn(tiny_bundle: Path) -> None:
    manifest = load_manifest(tiny_bundle)
    log = PredictionLog(manifest)
    assert draw_timeline(Run("", manifest, summarize(log, None, (), manifest, 5, 1), log, None, (), 5.0)).startswith(
        b"\x89PNG"
    )
