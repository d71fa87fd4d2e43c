"""From answers to summary.json, by hand."""

import json
import math
from typing import Any

import numpy as np
import pytest

from aecf_ros.core.bundle import Manifest, load_manifest
from aecf_ros.core.types import ModalityReport, Prediction, StreamState
from aecf_ros.replay.faults.schedule import Fault
from aecf_ros.replay.scoring import score
from aecf_ros.replay.scoring.ground_truth import GroundTruth, ground_truth_from_labels
from aecf_ros.replay.scoring.prediction_log import PublishedPrediction

LABELS = ["red", "green", "blue"]
OK, STALE, DROPPED, WAITING = StreamState.OK, StreamState.STALE, StreamState.DROPPED, StreamState.WAITING


def summarize(*args: Any) -> dict[str, Any]:
    """The summary as summary.json has it."""
    return score.summarize(*args).to_json()


@pytest.fixture(scope="module")
def manifest(tiny_bundle: object) -> Manifest:
    return load_manifest(tiny_bundle)


def answer(
    at_s: float,
    probabilities: list[float],
    states: tuple[StreamState, StreamState] = (OK, OK),
    sets: tuple[str, ...] | None = None,
    alone: tuple[float, float] = (0.5, 0.5),
    latency_s: float | None = None,
) -> PublishedPrediction:
    """An answer of camera and audio in these states; each one alone has the confidence ``alone``."""
    best = int(np.argmax(probabilities))
    used = [s.feeds_fusion for s in states]
    reports = tuple(
        ModalityReport(name, state, u, u / max(1, sum(used)), 0, LABELS[best] if u else "", c if u else 0.0)
        for name, state, u, c in zip(("camera", "audio"), states, used, alone, strict=True)
    )
    return PublishedPrediction(
        at_s,
        Prediction(
            0,
            "tiny",
            LABELS[best],
            best,
            max(probabilities),
            np.array(probabilities, np.float32),
            (LABELS[best],) if sets is None else sets,
            0.9,
            0.0,
            0.0,
            not any(used),
            "",
            reports,
        ),
        latency_s,
    )


def test_answers_are_scored_by_what_fed_them_and_apart_while_the_label_settles(manifest: Manifest) -> None:
    truth = ground_truth_from_labels([(0, "red"), (10, "blue")], LABELS, 0.5)  # settles for 0.75 s
    red, blue = [0.8, 0.1, 0.1], [0.1, 0.3, 0.6]
    answers = [
        answer(0.5, blue),  # settling, wrong
        answer(1.0, red),
        answer(2.0, blue),  # both: right, wrong
        answer(3.0, red, (OK, STALE)),  # camera: right
        answer(4.0, [1 / 3] * 3, (DROPPED, STALE), sets=tuple(LABELS)),  # none: argmax is red, right
        answer(10.2, red),  # settling, wrong
        answer(11.0, blue, (DROPPED, OK)),
    ]  # audio: right
    summary = summarize(answers, truth, (), manifest, 12.0, 100.0)
    assert summary["model"] == "tiny" and summary["predictions"] == 7 and summary["samples"] == 5
    assert {name: m["n"] for name, m in summary["subsets"].items()} == {
        "camera+audio": 2,
        "camera": 1,
        "audio": 1,
        "none": 1,
    }
    both = summary["subsets"]["camera+audio"]
    assert both["accuracy"] == 0.5
    assert both["nll"] == pytest.approx((-math.log(0.8) - math.log(0.1)) / 2, rel=1e-5)
    assert both["brier"] == pytest.approx(((0.04 + 0.01 + 0.01) + (0.81 + 0.09 + 0.36)) / 2, rel=1e-5)
    assert both["ece"] == pytest.approx((0.2 + 0.6) / 2, abs=1e-6)
    assert both["mean_confidence"] == pytest.approx(0.7) and both["coverage"] == 0.5 and both["set_size"] == 1
    assert summary["subsets"]["none"]["coverage"] == 1 and summary["subsets"]["none"]["set_size"] == 3
    assert summary["overall"]["n"] == 5 and summary["overall"]["accuracy"] == 0.8
    assert summary["settling"]["n"] == 2 and summary["settling"]["accuracy"] == 0
    assert summary["realtime_factor"] == 100.0


def test_nothing_shown_is_in_no_metric_but_its_own(manifest: Manifest) -> None:
    truth = ground_truth_from_labels([(0, "red"), (5, "")], LABELS, 0.5)
    answers = [answer(1, [0.8, 0.1, 0.1]), answer(6, [0.4, 0.3, 0.3]), answer(7, [0.5, 0.3, 0.2])]
    summary = summarize(answers, truth, (), manifest, 8, 1)
    assert summary["samples"] == 1 and summary["settling"]["n"] == 0
    assert summary["nothing_shown"] == {"n": 2, "mean_confidence": pytest.approx(0.45), "abstained": 0}


def test_without_truth_there_are_states_and_latencies_and_no_metrics(manifest: Manifest) -> None:
    summary = summarize([answer(0, [1, 0, 0], latency_s=0.01)], None, (), manifest, 2, 1)
    assert summary["samples"] == 0 and summary["overall"] == {"n": 0} and summary["nothing_shown"] == {"n": 0}
    assert set(summary["subsets"]) == {"camera+audio", "camera", "audio", "none"}
    assert summary["latency_ms"]["p50"] == pytest.approx(10)


def test_seconds_in_a_state_last_until_the_next_answer(manifest: Manifest) -> None:
    p = [1.0, 0.0, 0.0]
    answers = [
        answer(0, p, (WAITING, WAITING)),
        answer(1, p, (OK, WAITING)),
        answer(3.5, p, (STALE, OK)),
        answer(4, p, (DROPPED, OK)),
        answer(9, p),
    ]
    streams = summarize(answers, None, (), manifest, 10, 1)["streams"]
    assert streams["camera"]["seconds_in_state"] == {"WAITING": 1, "OK": 3.5, "STALE": 0.5, "DROPPED": 5}
    assert streams["audio"]["seconds_in_state"] == {"WAITING": 3.5, "OK": 6.5}


def test_the_longest_gap_counts_from_the_start_to_the_end_of_the_recording(manifest: Manifest) -> None:
    p = [1.0, 0.0, 0.0]

    def longest(*times_s: float, duration_s: float = 10) -> float:
        return summarize([answer(t, p) for t in times_s], None, (), manifest, duration_s, 1)["longest_gap_s"]

    assert longest(0, 4, 5, 7.5) == 4
    assert longest(0, 1, 2) == 8  # silent to the end
    assert longest(7, 8, 9) == 7  # nothing before second 7
    assert longest() == 10


def test_a_fault_is_detected_and_recovered_from_when_the_published_state_says_so(manifest: Manifest) -> None:
    p = [1.0, 0.0, 0.0]
    states = [
        (0, OK),
        (2.9, OK),
        (3.1, OK),
        (3.35, STALE),
        (4.0, DROPPED),
        (5.9, DROPPED),
        (6.2, DROPPED),
        (6.3, OK),
        (8, OK),
    ]
    answers = [answer(t, p, (OK, s)) for t, s in states]
    fault = Fault(stream="audio", kind="drop", start_s=3, end_s=6)
    streams = summarize(answers, None, (fault,), manifest, 9, 1)["streams"]
    assert streams["camera"]["faults"] == []
    assert streams["audio"]["faults"] == [
        {
            "kind": "drop",
            "start_s": 3,
            "end_s": 6,
            "detected_after_s": pytest.approx(0.35),
            "recovered_after_s": pytest.approx(0.3),
            "already": False,
            "states": ["OK", "STALE", "DROPPED"],
            "severity": 5,
            "options": {},
        }
    ]


def test_a_fault_that_never_showed_or_never_ended_says_none(manifest: Manifest) -> None:
    p = [1.0, 0.0, 0.0]
    unseen = summarize(
        [answer(t, p) for t in range(10)],
        None,
        (Fault(stream="camera", kind="drop", start_s=3, end_s=3.1),),
        manifest,
        10,
        1,
    )
    assert unseen["streams"]["camera"]["faults"][0]["detected_after_s"] is None
    forever = summarize(
        [answer(t, p, (OK if t < 4 else DROPPED, OK)) for t in range(10)],
        None,
        (Fault(stream="camera", kind="drop", start_s=3, end_s=6),),
        manifest,
        10,
        1,
    )
    assert forever["streams"]["camera"]["faults"][0]["recovered_after_s"] is None
    assert forever["streams"]["camera"]["faults"][0]["detected_after_s"] == 1


def test_monotonicity_compares_each_alone_with_both(manifest: Manifest) -> None:
    answers = [
        answer(0, [0.9, 0.1, 0], alone=(0.5, 0.95)),
        answer(1, [0.9, 0.1, 0], alone=(0.5, 0.6)),
        answer(2, [0.2, 0.8, 0], (OK, DROPPED), alone=(0.9, 0)),
    ]
    assert summarize(answers, None, (), manifest, 3, 1)["monotonicity"] == {"violation_rate": 0.25, "pairs": 4}


def test_latency_is_of_frames_only(manifest: Manifest) -> None:
    p = [1.0, 0.0, 0.0]
    answers = [answer(i, p, latency_s=None if i % 2 else 0.001 * (i + 1)) for i in range(9)]  # 1, 3, 5, 7, 9 ms
    latency = summarize(answers, None, (), manifest, 9, 1)["latency_ms"]
    assert latency["p50"] == pytest.approx(5) and latency["max"] == pytest.approx(9) and 8.5 < latency["p99"] < 9


def test_a_summary_is_plain_json(manifest: Manifest) -> None:
    truth = GroundTruth((0.0,), (0,), 0.75)
    summary = summarize([answer(t, [0.8, 0.1, 0.1], latency_s=0.01) for t in range(5)], truth, (), manifest, 5, 1)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_a_stream_that_was_bad_already_has_no_delay_of_detection(manifest: Manifest) -> None:
    p = [1.0, 0.0, 0.0]
    states = [(0, OK), (2, DROPPED), (3.5, DROPPED), (6.5, OK)]
    fault = Fault(stream="audio", kind="drop", start_s=3, end_s=6)
    (found,) = summarize([answer(t, p, (OK, s)) for t, s in states], None, (fault,), manifest, 9, 1)["streams"][
        "audio"
    ]["faults"]
    assert found["already"] and found["detected_after_s"] is None and found["recovered_after_s"] == 0.5


def test_what_never_showed_was_never_recovered_from(manifest: Manifest) -> None:
    fault = Fault(stream="audio", kind="jitter", start_s=3, end_s=6)
    (found,) = summarize([answer(t, [1.0, 0, 0]) for t in range(9)], None, (fault,), manifest, 9, 1)["streams"][
        "audio"
    ]["faults"]
    assert found["detected_after_s"] is None and found["recovered_after_s"] is None and not found["already"]


def test_an_alarm_is_false_where_no_fault_explains_it(manifest: Manifest) -> None:
    states = [(0, WAITING), (1, OK), (2, DROPPED), (4, OK), (5, STALE), (6, OK), (15, STALE), (16, DROPPED), (17, OK)]
    fault = Fault(stream="audio", kind="drop", start_s=1.5, end_s=3.5)
    streams = summarize([answer(t, [1.0, 0, 0], (OK, s)) for t, s in states], None, (fault,), manifest, 20, 1)[
        "streams"
    ]
    assert (
        streams["audio"]["false_alarms"] == 1 and streams["camera"]["false_alarms"] == 0
    )  # that of second 15; second 5 is excused


def test_without_frames_the_latency_says_so(manifest: Manifest) -> None:
    assert summarize([answer(0, [1.0, 0, 0])], None, (), manifest, 2, 1)["latency_ms"] == {
        "p50": 0.0,
        "p99": 0.0,
        "max": 0.0,
        "frames": 0,
    }
