"""A topic of vectors in recordings: moments for the trainer, the replay with faults, and both as they are typed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.typesys import get_types_from_msg

from aecf_ros.core.bundle import load_bundle
from aecf_ros.core.types import StreamState
from aecf_ros.modalities.vector.spec import VectorSpec
from aecf_ros.replay.bag.probe import find_modalities
from aecf_ros.replay.bag.reader import open_bag
from aecf_ros.replay.faults.registry import faults_on
from aecf_ros.replay.faults.schedule import Fault, FaultError
from aecf_ros.replay.samples import scan_recording
from aecf_ros.replay.scoring.driver import evaluate
from aecf_ros.runtime.backends import make_backend
from aecf_ros.runtime.pipeline import Pipeline
from test.command_line import aecf
from test.conftest import LABELS, write_bundle

MESSAGE = Path(__file__).resolve().parents[2] / "aecf_msgs" / "msg" / "EmbeddingStamped.msg"
TEXT = VectorSpec(name="text", kind="vector", dim=3)
CLASSES = {label: i for i, label in enumerate(LABELS)}
SPAN_S = 5.0


def told(recording: Any, at_s: float, label: str) -> Any:
    """Three numbers of which that of the label is about 1, on /text."""
    numbers = np.eye(3)[LABELS.index(label)] + recording.noise.normal(0, 0.1, 3)
    return recording.add(
        at_s,
        "/text",
        recording.make("aecf_msgs/msg/EmbeddingStamped", recording.header(at_s - 0.02), numbers.astype(np.float32)),
    )


def tell(recording: Any, seconds: float, first: int = 0) -> Any:
    """Spans of 5 s of red, green and blue in turn, pictures at 10 Hz, of which every eighth is blue, and vectors at
    5 Hz.
    """
    recording.store.register(get_types_from_msg(MESSAGE.read_text(), "aecf_msgs/msg/EmbeddingStamped"))
    for i in range(round(seconds * 10)):
        label = LABELS[(first + int(i * 0.1 // SPAN_S)) % 3]
        if i % 10 == 0:
            recording.label(i * 0.1, label)
        recording.image(i * 0.1, label if i % 8 else "blue", late_s=0.004)
        if i % 2:
            told(recording, i * 0.1 + 0.01, label)
    return recording


@pytest.fixture(scope="module")
def minute(new_recording: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tell(new_recording(), 30).write(tmp_path_factory.mktemp("told") / "minute")


@pytest.fixture(scope="module")
def bundle_of_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "told", {"camera": "image", "text": "vector"})


def test_moments_hold_the_newest_vector_and_say_where_it_is_missing(new_recording: Callable, tmp_path: Path) -> None:
    recording = tell(new_recording(), 20)
    recording.messages = [m for m in recording.messages if not (m[1] == "/text" and 8 <= m[0] < 10)]
    for at_s, value in ((3.05, np.nan), (3.15, 1.0)):
        recording.add(
            at_s,
            "/text",
            recording.make(
                "aecf_msgs/msg/EmbeddingStamped",
                recording.header(at_s),
                np.full(3 if value != 1 else 2, value, np.float32),
            ),
        )
    unit = scan_recording("told", recording.write(tmp_path / "told"), (TEXT,)).unit((TEXT,), CLASSES, 0.5, 0.25, 0.35)
    batches = list(unit.batches(16))
    vectors, present = (
        np.concatenate([b.inputs["text"] for b in batches]),
        np.concatenate([b.present for b in batches])[:, 0],
    )
    assert (
        vectors.dtype == np.float32 and np.isfinite(vectors).all() and (vectors.argmax(1) == unit.labels[present]).all()
    )
    with open_bag(unit.path) as bag:
        missing_s = (unit.moments_ns[~present] - bag.start_ns) / 1e9
    assert len(missing_s) == 3 and ((missing_s > 8.2) & (missing_s < 10)).all()
    assert unit.problems == [] or "/text: " in unit.problems[-1]


def test_a_vector_is_found_with_its_length_where_nothing_says_it(minute: Path) -> None:
    found = find_modalities([minute])
    assert [(f.spec.name, f.spec.kind, f.spec.sizes) for f in found] == [
        ("camera", "image", {"height": 8, "width": 8}),
        ("text", "vector", {"dim": 3}),
    ]


def replayed(minute: Path, bundle_of_text: Path, *faults: Fault) -> tuple[set[StreamState], float]:
    """States of the stream of vectors from second 12 to 14, and how many of the recording's predictions are right."""
    bundle = load_bundle(bundle_of_text)
    with open_bag(minute) as bag:
        run = evaluate(bag, Pipeline(bundle.manifest, make_backend("onnxruntime", bundle)), faults)
    at_s = run.log.column("at_s")
    return {
        StreamState(s) for s in run.log.column("states")[(at_s > 12) & (at_s < 14), 1].tolist()
    }, run.summary.overall["accuracy"]


@pytest.mark.parametrize(
    ("kind", "due"),
    [
        ("drop", {StreamState.DROPPED}),
        ("freeze", {StreamState.FROZEN}),
        ("nan", {StreamState.REJECTED}),
        ("wrong_size", {StreamState.REJECTED}),
        ("zero_stamp", {StreamState.CLOCK_FAULT}),
        ("clock_jump", {StreamState.CLOCK_FAULT}),
        ("noise", {StreamState.OK}),
    ],
)
def test_faults_of_a_stream_of_vectors_are_seen_for_what_they_are(
    minute: Path, bundle_of_text: Path, kind: str, due: set[StreamState]
) -> None:
    fault = Fault(stream="text", kind=kind, start_s=10, end_s=14)
    found, _ = replayed(minute, bundle_of_text, fault)
    assert found == due


def test_every_fault_that_a_vector_can_have_leaves_a_replay_that_answers(minute: Path, bundle_of_text: Path) -> None:
    fitting = faults_on("vector")
    assert fitting == [
        "drop",
        "freeze",
        "delay",
        "jitter",
        "rate",
        "noise",
        "wrong_size",
        "nan",
        "clock_jump",
        "zero_stamp",
        "out_of_order",
    ]
    for kind in fitting:
        assert (
            replayed(minute, bundle_of_text, Fault(stream="text", kind=kind, start_s=5, end_s=25, severity=3))[1] > 0.9
        ), kind


def test_a_fault_that_makes_no_sense_is_refused_in_a_line() -> None:
    with pytest.raises(
        FaultError, match="'blur' cannot act on 'text', which carries vector; use one of drop, freeze, delay, "
    ):
        Fault(stream="text", kind="blur", start_s=0, end_s=1).check_stream("vector")


def test_recordings_with_a_topic_of_vectors_are_trained_on_and_evaluated_as_typed(
    new_recording: Callable, tmp_path: Path
) -> None:
    pytest.importorskip("torch", reason="torch is not installed: only training needs it")
    from test.conftest import write_image_encoder
    from test.training.test_recorded import QUICK

    for day in range(5):
        tell(new_recording(), 45, day).write(tmp_path / "bags" / f"day{day}")
    write_image_encoder(tmp_path / "camera.onnx")
    done = aecf(
        "train",
        "--data",
        tmp_path / "bags",
        "--out",
        tmp_path / "mine",
        "--run",
        tmp_path / "run",
        *QUICK,
        f"encoders.camera.onnx={tmp_path / 'camera.onnx'}",
        "encoders.text.vector=3",
    )
    assert done.exit_code == 0, done.output
    manifest = load_bundle(tmp_path / "mine").manifest
    assert [(m.name, m.kind) for m in manifest.modalities] == [("camera", "image"), ("text", "vector")]
    assert manifest.metrics["text"]["accuracy"] > 0.9
    (tmp_path / "faults.yaml").write_text("- {stream: text, kind: nan, start_s: 5, end_s: 20}\n")
    done = aecf(
        "evaluate",
        "--model",
        tmp_path / "mine",
        "--bag",
        tmp_path / "bags" / "day0",
        "--faults",
        tmp_path / "faults.yaml",
        "--out",
        tmp_path / "o",
    )
    assert done.exit_code == 0 and "text from /text (EmbeddingStamped)" in done.output, done.output
    assert json.loads((tmp_path / "o" / "summary.json").read_text())["overall"]["accuracy"] > 0.9
    (tmp_path / "faults.yaml").write_text("- {stream: text, kind: blur, start_s: 5, end_s: 20}\n")
    done = aecf(
        "evaluate",
        "--model",
        tmp_path / "mine",
        "--bag",
        tmp_path / "bags" / "day0",
        "--faults",
        tmp_path / "faults.yaml",
        "--out",
        tmp_path / "o",
    )
    assert done.exit_code == 1 and "'blur' cannot act on 'text', which carries vector" in done.output
