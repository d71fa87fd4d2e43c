"""A recording drives the node's own pipeline: what it answers, when, and the same every time."""

import json
import re
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from aecf_ros.core.bundle import load_bundle
from aecf_ros.core.types import StreamState
from aecf_ros.replay.bag.reader import open_bag
from aecf_ros.replay.faults.schedule import Fault
from aecf_ros.replay.report.html import write_comparison
from aecf_ros.replay.scoring.driver import drive, evaluate, read_ground_truth
from aecf_ros.replay.scoring.prediction_log import PublishedPrediction
from aecf_ros.runtime.backends import make_backend
from aecf_ros.runtime.pipeline import Pipeline, PipelineConfig
from test.summary_contract import CHECKER, differences

MICROPHONE_LOST = Fault(stream="audio", kind="drop", start_s=2, end_s=4)
CAMERA_LOST = Fault(stream="camera", kind="drop", start_s=6, end_s=8)
BOTH_LOST = (
    Fault(stream="audio", kind="drop", start_s=2, end_s=6),
    Fault(stream="camera", kind="drop", start_s=2, end_s=6),
)


def new_pipeline(directory: Path, **config: object) -> Pipeline:
    bundle = load_bundle(directory)
    return Pipeline(bundle.manifest, make_backend("onnxruntime", bundle, "cpu"), PipelineConfig(**config))


def answers_to(
    bag_path: Path, directory: Path, faults: tuple[Fault, ...] = (), **config: object
) -> list[PublishedPrediction]:
    pipeline = new_pipeline(directory, **config)
    with open_bag(bag_path) as bag:
        return list(drive(bag, bag.choose_topics(pipeline.manifest), pipeline, faults))


def said(answers: list[PublishedPrediction], start_s: float, end_s: float) -> set[tuple[str, str]]:
    return {(a.prediction.subset, a.prediction.label) for a in answers if start_s <= a.at_s < end_s}


def test_a_recording_is_answered_as_the_node_would(red_then_blue: Path, tiny_bundle: Path) -> None:
    answers = answers_to(red_then_blue, tiny_bundle)
    assert said(answers, 1, 5) == {("camera+audio", "red")}
    assert said(answers, 6, 10) == {("camera+audio", "blue")}
    assert len([a for a in answers if 1 <= a.at_s < 9]) == 80  # one for each frame
    assert answers[0].at_s == 0 and answers[0].prediction.subset == "none"
    assert all(
        a.latency_s >= 0.004 for a in answers if a.latency_s is not None
    )  # frames are logged 4 ms after their stamp


def test_faults_take_away_what_they_name_and_predictions_go_on(red_then_blue: Path, tiny_bundle: Path) -> None:
    answers = answers_to(red_then_blue, tiny_bundle, (MICROPHONE_LOST, CAMERA_LOST))
    assert said(answers, 2.5, 4.0) == {("camera", "red")}
    assert said(answers, 4.5, 5.0) == {("camera+audio", "red")}
    assert said(answers, 6.5, 8.0) == {("audio", "blue")}
    assert said(answers, 8.5, 10) == {("camera+audio", "blue")}
    assert np.diff([a.at_s for a in answers]).max() <= 0.2 + 1e-6


def test_with_both_lost_the_prior_is_given_until_one_returns(red_then_blue: Path, tiny_bundle: Path) -> None:
    answers = answers_to(red_then_blue, tiny_bundle, BOTH_LOST, max_gap_s=0.15)
    lost = [a for a in answers if 3.1 <= a.at_s < 6]
    assert {a.prediction.subset for a in lost} == {"none"} and all(a.prediction.abstain for a in lost)
    assert {a.prediction.modalities[0].state for a in lost} == {StreamState.DROPPED}
    assert len(lost) == pytest.approx(2.9 / 0.15, abs=1.5)
    assert said(answers, 6.5, 10) == {("camera+audio", "blue")}


def test_two_runs_give_the_same_answers(red_then_blue: Path, tiny_bundle: Path) -> None:
    first, second = (answers_to(red_then_blue, tiny_bundle, (MICROPHONE_LOST, CAMERA_LOST)) for _ in range(2))
    assert [a.at_s for a in first] == [a.at_s for a in second]
    for a, b in zip(first, second, strict=True):
        assert a.prediction.probabilities.tobytes() == b.prediction.probabilities.tobytes()
        assert (a.prediction.stamp_ns, a.prediction.modalities, a.prediction.prediction_set) == (
            b.prediction.stamp_ns,
            b.prediction.modalities,
            b.prediction.prediction_set,
        )


def test_memory_does_not_grow_with_the_recording(new_recording: Callable, tiny_bundle: Path, tmp_path: Path) -> None:
    path, kept = new_recording().info(0).scene(0, 80, "red").write(tmp_path / "bag"), []
    with open_bag(path) as bag:
        pipeline, topics = new_pipeline(tiny_bundle), bag.choose_topics(load_bundle(tiny_bundle).manifest)
        tracemalloc.start()
        for at_s in (answer.at_s for answer in drive(bag, topics, pipeline)):
            if at_s > 35 + 40 * len(kept):  # 256 chunks are remembered
                kept.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    assert (
        len(kept) == 2 and kept[1] - kept[0] < 150_000
    )  # 400 pictures and 400 chunks lie between, which would be half a megabyte


def test_audio_before_its_info_is_rejected_and_recovers(
    new_recording: Callable, tiny_bundle: Path, tmp_path: Path
) -> None:
    bag = new_recording().scene(0, 4, "red").info(2.0).write(tmp_path / "bag")
    answers = answers_to(bag, tiny_bundle)
    assert said(answers, 0.5, 2) == {("camera", "red")}
    assert {a.prediction.modalities[1].state for a in answers if 0.5 <= a.at_s < 2} == {StreamState.REJECTED}
    assert said(answers, 2.5, 4) == {("camera+audio", "red")}


def test_compressed_images_and_sound_without_headers(
    new_recording: Callable, tiny_bundle: Path, tmp_path: Path
) -> None:
    recording = new_recording().info(0)
    for i in range(30):
        recording.jpeg(i * 0.1, "green").plain_sound(i * 0.1 + 0.05, "green")
    answers = answers_to(recording.write(tmp_path / "bag"), tiny_bundle)
    assert said(answers, 1, 3) == {("camera+audio", "green")}
    at_s, last = answers[-1].at_s, answers[-1].prediction
    assert at_s == pytest.approx(2.9, abs=0.2) and last.confidence > 0.99


def test_truth_comes_from_the_label_topic_or_a_csv(red_then_blue: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    manifest = load_bundle(tiny_bundle).manifest
    csv = tmp_path / "labels.csv"
    csv.write_text("0,4,green\n")
    with open_bag(red_then_blue) as bag:
        topics = bag.choose_topics(manifest)
        from_topic, from_csv = read_ground_truth(bag, topics, manifest), read_ground_truth(bag, topics, manifest, csv)
    assert (
        from_topic.changes_s == pytest.approx((0, 5)) and from_topic.classes == (0, 2) and from_topic.settling_s == 0.75
    )
    assert from_csv.classes == (1, None)


def test_truth_comes_from_numbers_of_classes(new_recording: Callable, tiny_bundle: Path, tmp_path: Path) -> None:
    manifest = load_bundle(tiny_bundle).manifest
    recording = new_recording().info(0).image(0, "red").sound(0.1, "red")
    for at_s, number in ((0, 2), (1, -1), (2, 0)):
        recording.add(at_s, "/label", recording.make("std_msgs/msg/Int32", number))
    with open_bag(recording.write(tmp_path / "bag")) as bag:
        assert read_ground_truth(bag, bag.choose_topics(manifest), manifest).classes == (2, None, 0)


def test_a_recording_without_labels_has_no_truth(new_recording: Callable, tiny_bundle: Path, tmp_path: Path) -> None:
    manifest = load_bundle(tiny_bundle).manifest
    with open_bag(new_recording().info(0).image(0, "red").sound(0.1, "red").write(tmp_path / "bag")) as bag:
        assert read_ground_truth(bag, bag.choose_topics(manifest), manifest) is None


@pytest.fixture(scope="module")
def reports(red_then_blue: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """summary.json and report.html of a run with faults."""
    pipeline, faults = new_pipeline(tiny_bundle), (MICROPHONE_LOST, CAMERA_LOST)
    progress: list[float] = []
    with open_bag(red_then_blue) as bag:
        run = replace(evaluate(bag, pipeline, faults, progress=progress.append), title="a <b>run</b>")
    assert progress == sorted(progress) and len(progress) == len(run.log)
    return write_comparison(tmp_path_factory.mktemp("out") / "deep" / "down", [run], run.title)


def test_the_summary_of_a_run(reports: tuple[Path, Path]) -> None:
    summary = json.loads(reports[0].read_text())
    assert summary["overall"]["accuracy"] == 1 and summary["overall"]["coverage"] == 1
    assert {name for name, m in summary["subsets"].items() if m["n"]} == {"camera+audio", "camera", "audio"}
    (microphone,), (camera,) = summary["streams"]["audio"]["faults"], summary["streams"]["camera"]["faults"]
    for fault in (microphone, camera):
        assert 0 < fault["detected_after_s"] <= 0.35 + 0.2 and 0 < fault["recovered_after_s"] <= 0.5
    assert summary["longest_gap_s"] <= 0.25 and summary["settling"]["n"] > 0 and summary["realtime_factor"] > 0
    assert sum(summary["streams"]["camera"]["seconds_in_state"].values()) == pytest.approx(9.95, abs=0.01)


@pytest.mark.skipif(not CHECKER.is_file(), reason="../shared/check_summary.py is not beside this checkout")
def test_the_summary_is_as_the_design_says(reports: tuple[Path, Path]) -> None:
    assert differences(reports[0]) == []


class _Links(HTMLParser):
    """Collects what a page would load or link to, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [
            value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action", "poster")
        ]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report_is_one_self_contained_page_with_its_picture(reports: tuple[Path, Path]) -> None:
    html = reports[1].read_text(encoding="utf-8")
    page = _Links()
    page.feed(html)
    assert page.links and all(link.startswith("data:image/png;base64,iVBOR") for link in page.links)
    assert not re.search(r"https?://|@import|url\(", html)
    assert "script" not in page.tags and "link" not in page.tags
    assert len(page.links[0]) > 20_000
    assert "a <b>run</b>" in page.text and "b" not in page.tags  # titles are escaped
    for words in ("camera+audio", "ECE", "floor", "drop", "STALE", "DROPPED", "Latency", "Reliability", "Confusion"):
        assert words in page.text


def test_a_run_without_labels_or_faults_is_reported_too(
    new_recording: Callable, tiny_bundle: Path, tmp_path: Path
) -> None:
    pipeline = new_pipeline(tiny_bundle)
    recording = new_recording().info(0)
    for i in range(20):
        recording.image(i * 0.1, "red").sound(i * 0.1 + 0.05, "red")
    with open_bag(recording.write(tmp_path / "bag")) as bag:
        run = evaluate(bag, pipeline)
    paths = write_comparison(tmp_path / "out", [run], "no labels")
    assert run.summary.samples == 0 and all(path.stat().st_size > 0 for path in paths)
    assert "None." in paths[1].read_text()
