"""Many recordings evaluated together: pooled, kept, and what is broken named."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from aecf_ros.core.metrics.classification import subset_metrics
from aecf_ros.replay.scoring.aggregate import Sums, latency_counts, latency_quantile_ms
from aecf_ros.replay.scoring.batch import Job, run_here
from test.command_line import aecf


def predictions(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet([0.3] * 4, n).astype(np.float32)
    return probabilities, rng.integers(0, 4, n), probabilities > 0.2


def test_what_is_pooled_are_the_metrics_of_everything_together() -> None:
    parts = [predictions(n, n) for n in (1, 700, 0, 1300)]
    found = sum((Sums.of(*part) for part in parts), Sums.none()).metrics()
    due = subset_metrics(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    floor, due_floor = found.pop("ece_noise_floor"), due.pop("ece_noise_floor")
    assert found == pytest.approx(due) and floor == pytest.approx(due_floor, rel=0.05)
    assert (
        Sums.from_json(json.loads(json.dumps(Sums.of(*parts[1]).to_json()))).metrics() == Sums.of(*parts[1]).metrics()
    )
    assert Sums.none().metrics() == {"n": 0}


def test_quantiles_of_latencies_are_within_a_hundredth() -> None:
    latencies_s = np.random.default_rng(0).lognormal(-6, 1, 5000)
    counts = [latency_counts(part) for part in np.split(np.append(latencies_s, np.nan)[:5000], 5)]
    for q in (0.0, 0.5, 0.99, 1.0):
        assert latency_quantile_ms(counts, q) == pytest.approx(
            1e3 * np.quantile(latencies_s[:5000], q, method="lower"), rel=0.011
        )
    assert latency_quantile_ms([], 0.5) == 0.0


@pytest.fixture
def fleet(new_recording: Callable, tmp_path: Path) -> Path:
    """Three recordings in folders, one of which is no recording at all."""
    for name, first, second in (("monday/a", "red", "blue"), ("monday/b", "green", "red"), ("c", "blue", "green")):
        (tmp_path / "fleet" / name).parent.mkdir(parents=True, exist_ok=True)
        new_recording().info(0).scene(0, 2, first).scene(2, 4, second).write(tmp_path / "fleet" / name)
    (tmp_path / "fleet" / "broken.mcap").write_bytes(b"not a recording")
    return tmp_path / "fleet"


def summary_of(out: Path) -> dict:
    return json.loads((out / "summary.json").read_text())


def test_a_folder_is_evaluated_and_what_is_broken_is_named(fleet: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    done = aecf("evaluate", "--model", tiny_bundle, "--bag", fleet, "--out", tmp_path / "out")
    assert done.exit_code == 1 and "3 evaluated, 0 kept, 1 failed" in done.output and "broken.mcap" in done.output
    summary = summary_of(tmp_path / "out")
    assert list(summary["fleet"]["failed"]) == ["broken.mcap"] and set(summary["recordings"]) == {
        "monday/a",
        "monday/b",
        "c",
    }
    parts = [
        json.loads((tmp_path / "out" / "recordings" / name / "summary.json").read_text())
        for name in summary["recordings"]
    ]
    assert summary["samples"] == sum(part["samples"] for part in parts) > 0
    assert summary["predictions"] == sum(part["predictions"] for part in parts)
    both = [part["subsets"]["camera+audio"] for part in parts]
    n = sum(m["n"] for m in both)
    assert summary["subsets"]["camera+audio"]["nll"] == pytest.approx(sum(m["n"] * m["nll"] for m in both) / n)
    assert summary["longest_gap_s"] == max(part["longest_gap_s"] for part in parts)
    html = (tmp_path / "out" / "report.html").read_text()
    assert "monday/b" in html and "Failed" in html and 'alt="Reliability' in html


def test_what_was_evaluated_is_kept_until_something_changes(
    fleet: Path, tiny_bundle: Path, tmp_path: Path, new_recording: Callable
) -> None:
    (fleet / "broken.mcap").unlink()
    words = ("evaluate", "--model", tiny_bundle, "--bag", fleet, "--out", tmp_path / "out")
    assert aecf(*words).exit_code == 0
    first = summary_of(tmp_path / "out")
    (tmp_path / "out" / "recordings" / "c" / "evaluated.json").write_text('{"key": "')  # cut short
    again = aecf(*words)
    assert again.exit_code == 0 and "1 evaluated, 2 kept, 0 failed" in again.output
    for key in ("overall", "subsets", "samples", "streams", "monotonicity"):
        assert summary_of(tmp_path / "out")[key] == first[key]
    faults = tmp_path / "faults.yaml"
    faults.write_text("- {stream: camera, kind: drop, start_s: 1, end_s: 2}")
    with_faults = aecf(*words, "--faults", faults)
    assert "3 evaluated, 0 kept" in with_faults.output
    shown = summary_of(tmp_path / "out")["streams"]["camera"]["faults"]
    assert sorted(fault["recording"] for fault in shown) == ["c", "monday/a", "monday/b"]
    (fleet / "c.csv").write_text("start_s,end_s,label\n0,4,red\n")
    relabeled = aecf(*words, "--faults", faults)
    assert "1 evaluated, 2 kept" in relabeled.output and "times real time with 1 worker; wrote" in relabeled.output
    assert "0 evaluated, 3 kept, 0 failed; nothing was replayed; wrote" in aecf(*words, "--faults", faults).output


def test_processes_give_what_one_gives(fleet: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    words = ("evaluate", "--model", tiny_bundle, "--bag", fleet / "monday", "--bag", fleet / "c")
    assert aecf(*words, "--out", tmp_path / "one").exit_code == 0
    assert aecf(*words, "--workers", 2, "--out", tmp_path / "two").exit_code == 0
    one, two = summary_of(tmp_path / "one"), summary_of(tmp_path / "two")
    assert list(one["recordings"]) == list(two["recordings"]) == ["a", "b", "c"]
    for key in ("overall", "subsets", "settling", "samples", "predictions", "streams", "longest_gap_s"):
        assert one[key] == two[key], key


class Deadly(Job):
    """Ends the process that it is sent to."""

    def __reduce__(self) -> tuple:
        return os._exit, (1,)


def test_a_process_that_dies_costs_one_recording(fleet: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    jobs = [Job("c", fleet / "c", tiny_bundle, tmp_path / "c"), Deadly("x", fleet / "x", tiny_bundle, tmp_path / "x")]
    outcomes = {outcome.name: outcome for outcome in run_here(jobs, 2)}
    assert "died" in outcomes["x"].failed and outcomes["c"].failed == "" and outcomes["c"].result.summary.samples > 0


def test_ray_gives_what_one_process_gives(
    fleet: Path, tiny_bundle: Path, tmp_path: Path, ray_on_two_cpus: None
) -> None:
    words = ("evaluate", "--model", tiny_bundle, "--bag", fleet)
    assert aecf(*words, "--ray", "--out", tmp_path / "ray").exit_code == 1
    assert aecf(*words, "--out", tmp_path / "one").exit_code == 1
    found, due = summary_of(tmp_path / "ray"), summary_of(tmp_path / "one")
    assert found["fleet"]["failed"].keys() == due["fleet"]["failed"].keys() and found["fleet"]["workers"] == 2
    assert found["overall"] == due["overall"] and found["streams"] == due["streams"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--sweep", "camera"), "for one recording"),
        (("--labels", "x.csv"), "NAME.csv"),
        (("--faults", "nothing.yaml"), "nothing.yaml"),
    ],
)
def test_what_does_not_go_with_many_is_said(
    fleet: Path, tiny_bundle: Path, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    done = aecf("evaluate", "--model", tiny_bundle, "--bag", fleet, "--out", tmp_path / "out", *options)
    assert done.exit_code in (1, 2) and words in done.output and not (tmp_path / "out").exists()


def test_two_recordings_of_one_name_are_told_apart_or_refused(fleet: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    done = aecf(
        "evaluate",
        "--model",
        tiny_bundle,
        "--bag",
        fleet / "monday" / "a",
        "--bag",
        fleet / "monday",
        "--out",
        tmp_path / "out",
    )
    assert done.exit_code == 1 and "both called a" in done.output
