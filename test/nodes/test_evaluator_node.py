"""A recording played to the running node and scored there: what replay.launch.py starts, without `launch`. `ros2 bag
play` is a mock, the rest is real.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import MODEL, ROOT, WAIT_S, Peer
from .processes import NodeProcess, started_together
from .recordings import first_seconds

SECONDS = 9.0


def evaluated(recording: Path, out: Path) -> dict:
    """The summary that `aecf evaluate` writes."""
    command = [
        sys.executable,
        "-m",
        "aecf_ros.cli",
        "evaluate",
        "--model",
        str(MODEL),
        "--bag",
        str(recording),
        "--out",
        str(out),
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return json.loads((out / "summary.json").read_text())


def same_as_evaluated(played: dict, exact: dict) -> None:
    """The same keys, and close to the same answers: what is lost over ROS is lost at the edges of the recording."""
    assert set(played) == set(exact)
    for part in ("overall", "subsets", "streams", "latency_ms", "monotonicity"):
        assert set(played[part]) == set(exact[part]), part
    assert played["predictions"] == pytest.approx(exact["predictions"], rel=0.25)
    assert played["overall"]["accuracy"] == pytest.approx(exact["overall"]["accuracy"], abs=0.1)
    assert played["subsets"]["camera+audio"]["n"] > 0.6 * exact["subsets"]["camera+audio"]["n"]


def test_a_recording_played_to_the_node_is_scored_with_the_summary_of_evaluate(domain: int, tmp_path: Path) -> None:
    recording = first_seconds(SECONDS, tmp_path / "bag")
    fusion = NodeProcess("aecf_ros.nodes.fusion.node", tmp_path / "fusion.log", "use_sim_time:=true")
    evaluator = NodeProcess(
        "aecf_ros.nodes.tools.evaluator_node",
        tmp_path / "evaluator.log",
        "use_sim_time:=true",
        f"out:={tmp_path / 'out'}",
    )
    peer = Peer(domain)
    try:
        exact = evaluated(recording, tmp_path / "exact")
        peer.wait_for(lambda: "ready to score av_digits" in evaluator.output(), "the evaluator to be ready")
        subprocess.run(
            [
                sys.executable,
                "-m",
                "test.nodes.mock_ros2",
                "bag",
                "play",
                str(recording),
                "--clock",
                "100",
                "--rate",
                "1.0",
                "--delay",
                "1.0",
            ],
            cwd=ROOT,
            env=os.environ,
            check=True,
            timeout=2 * WAIT_S,
        )
        assert evaluator.stop() == 0, evaluator.output()
        assert fusion.stop() == 0, fusion.output()
    finally:
        fusion.end()
        evaluator.end()
        peer.close()
    played = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (tmp_path / "out" / "report.html").is_file()
    same_as_evaluated(played, exact)


REFUSED = {
    ("wait_s:=1.0",): "no fusion node had a model within 1 s",
    ("model:=/nowhere",): "no such model directory",
    ("faults:=/nowhere.yaml",): "/nowhere.yaml",
}


def test_an_evaluator_that_has_nothing_to_score_says_why_in_one_line(tmp_path: Path) -> None:
    with started_together("aecf_ros.nodes.tools.evaluator_node", tmp_path, REFUSED) as nodes:
        for parameters, node in nodes.items():
            assert node.process.wait(WAIT_S) == 1
            assert REFUSED[parameters] in node.output() and len(node.output().splitlines()) == 1, node.output()
