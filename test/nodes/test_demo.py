"""The demo end to end: node, player and watcher in three processes over DDS, on the first seconds of the shipped
recording.
"""

from __future__ import annotations

import json
import os
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from aecf_ros.nodes.tools.demo import DemoError, run_demo
from test.summary_contract import CHECKER, differences

from .conftest import MODEL
from .recordings import first_seconds

SECONDS = 22.0
SCHEDULE = """
- {stream: audio, kind: drop, start_s: 4.0, end_s: 7.0}
- {stream: camera, kind: drop, start_s: 9.0, end_s: 12.0}
- {stream: camera, kind: drop, start_s: 14.0, end_s: 17.0}
- {stream: audio, kind: drop, start_s: 14.0, end_s: 17.0}
"""


@pytest.fixture(scope="module")
def short_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first seconds of the shipped recording, as a rosbag2 directory."""
    return first_seconds(SECONDS, tmp_path_factory.mktemp("bags") / "short")


@pytest.fixture(scope="module")
def demo(short_recording: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path, str]:
    """One run of the demo: its summary, its folder and what it printed."""
    out = tmp_path_factory.mktemp("demo")
    faults = out / "faults.yaml"
    faults.write_text(SCHEDULE)
    printed = StringIO()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE"):
            patch.setenv(name, os.environ.get(name, "0"))  # the demo sets its own; put ours back afterwards
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        summary = run_demo(MODEL, short_recording, faults, out, Console(file=printed, width=110)).to_json()
    return summary, out, printed.getvalue()


def test_every_subset_of_sensors_was_seen_and_answered(demo) -> None:
    summary, _, _ = demo
    assert summary["predictions"] > 15 * SECONDS / 3
    assert {name for name, m in summary["subsets"].items() if m["n"]} == {"camera+audio", "camera", "audio", "none"}


def test_every_loss_and_every_recovery_was_noticed(demo) -> None:
    summary, _, _ = demo
    faults = [fault for stream in summary["streams"].values() for fault in stream["faults"]]
    assert len(faults) == 4
    for fault in faults:
        assert (
            fault["detected_after_s"] is not None
            and 0.0 < fault["detected_after_s"] < fault["end_s"] - fault["start_s"]
        )
        assert fault["recovered_after_s"] is not None


def test_states_went_through_stale_and_dropped(demo) -> None:
    summary, _, _ = demo
    for stream in summary["streams"].values():
        assert {"OK", "STALE", "DROPPED"} <= set(stream["seconds_in_state"])
        assert sum(stream["seconds_in_state"].values()) == pytest.approx(SECONDS, abs=0.5)


def test_frames_are_answered_one_by_one(demo) -> None:
    summary, _, _ = demo
    assert summary["frames"]["published"] > 0
    # Depth 1 and best effort: a machine too busy to run the node loses frames before delivery.
    assert summary["frames"]["answered"] >= 0.9 * summary["frames"]["published"]


def test_node_ended_cleanly_and_left_nothing_in_shared_memory(demo) -> None:
    summary, out, _ = demo
    assert summary["node_exit_code"] == 0
    assert [name for name in summary["shared_memory_left"] if "_port" not in name] == []
    assert "Traceback" not in (out / "node.log").read_text()


def test_summary_is_as_the_contract_says(demo) -> None:
    _, out, _ = demo
    if not CHECKER.is_file():
        pytest.skip("../shared/check_summary.py is absent: the contract's checker is not part of the repository")
    assert differences(out / "summary.json") == []


def test_report_is_one_self_contained_page(demo) -> None:
    _, out, printed = demo
    page = (out / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert 'src="http' not in page and 'href="http' not in page
    assert json.loads((out / "summary.json").read_text())["model"] in page
    assert "camera+audio" in printed and "detected after" in printed


def test_a_node_that_cannot_start_is_reported_in_one_line(
    tmp_path: Path, short_recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = tmp_path / "faults.yaml"
    faults.write_text("[]")
    monkeypatch.setattr("aecf_ros.nodes.tools.demo.NODE_MODULE", "aecf_ros.nodes.no_such_node")
    with pytest.raises(DemoError, match="fusion node ended with exit code 1: .*no_such_node"):
        run_demo(MODEL, short_recording, faults, tmp_path / "out", Console(file=StringIO()))
