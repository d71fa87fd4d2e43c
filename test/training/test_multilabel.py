"""Moments of several labels: from a table to a bundle that answers, with what it says measured."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from aecf_ros.commands.shared.corpus import open_corpus
from aecf_ros.core.bundle import BundleError, load_bundle, load_manifest
from aecf_ros.core.metrics.multilabel import average_precision, label_scores, multilabel_metrics
from aecf_ros.core.types import NANOSECONDS, RawAudio, RawImage
from aecf_ros.fusion.layer import AECF
from aecf_ros.runtime.backends import make_backend
from aecf_ros.runtime.pipeline import Pipeline
from aecf_ros.training.config import DataConfig
from aecf_ros.training.config_loader import load_config
from aecf_ros.training.data.npy_dataset import DatasetError
from aecf_ros.training.evaluation.measure import bundle_part, measure, specs_of
from aecf_ros.training.export.head_weights import load_head
from aecf_ros.training.head.multilabel_head import fit_scaling, label_agreement
from test.command_line import aecf, refusal
from test.replay.conftest import Recording
from test.training.collages import NAMES, RATE_HZ, SIDE, SLOTS, TONES_HZ, draw_collage, write_collages, write_encoders
from test.training.files import BOTH, rows_of_files, write_rows

WORDS = [
    "intended_use=Sorting digits.",
    "data.task=multilabel",
    "data.nothing=[none]",
    f"data.labels=[{','.join(NAMES)}]",
    "head.optimizer.epochs=8",
    "head.samples_per_epoch=1024",
    "head.optimizer.batch_size=64",
    "head.optimizer.learning_rate=0.01",
    "head.options={gate: evidence, expert_hidden: [16], dropout: 0.0}",
    "calibration.coverage=0.9",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("collages")
    (folder / "data").mkdir()
    write_collages(folder / "data", 1200)
    words = [*WORDS, *write_encoders(folder)]
    done = aecf("train", "--data", folder / "data", "--out", folder / "digits", "--run", folder / "run", *words)
    assert done.exit_code == 0, done.output
    (folder / "said").write_text(done.output)
    return folder


def corpus_of(folder: Path):
    return open_corpus(folder / "data", specs_of(load_bundle(folder / "digits")), load_config(None, WORDS).data)


def test_a_table_of_several_labels_becomes_a_bundle_whose_labels_are_told_apart(folder):
    manifest = load_bundle(folder / "digits").manifest
    assert manifest.task == "multilabel" and manifest.labels == NAMES and manifest.head_weights is None
    assert set(manifest.metrics) == {"camera+audio", "camera", "audio"}
    both = manifest.metrics["camera+audio"]
    for name in ("camera", "audio"):
        assert both["map"] > manifest.metrics[name]["map"] > 0.6 and both["nll"] < manifest.metrics[name]["nll"]
    for of in manifest.metrics.values():
        assert of["ece"] < of["ece_noise_floor"] + 0.05 and 0.8 < of["coverage"] <= 1.0
    assert "macro mAP" in (folder / "said").read_text() and f"{both['map']:.4f}" in (folder / "said").read_text()


def test_what_the_manifest_says_is_what_scikit_learn_says_of_the_graph(folder):
    bundle = load_bundle(folder / "digits")
    corpus = corpus_of(folder)
    part = bundle_part(bundle, corpus, "test")
    both = part.moments.at(part.moments.present.all(1))
    truth = corpus.sets[both.labels]
    assert (~truth.any(1)).sum() > 0 and truth.sum(1).max() == 3
    backend, scores = make_backend("onnxruntime", bundle, device="cpu"), []
    for camera, audio in zip(*(of[both.rows[:, m]] for m, of in enumerate(part.embeddings)), strict=True):
        scores.append(backend.fuse({"camera": camera, "audio": audio}, [True, True]).probabilities)
    scores = np.array(scores)
    metrics = bundle.manifest.metrics["camera+audio"]
    assert metrics["map"] == pytest.approx(average_precision_score(truth, scores, average="macro"), abs=1e-4)
    assert metrics["subset_accuracy"] == pytest.approx(((scores >= 0.5) == truth).all(1).mean(), abs=0.006)
    assert measure(bundle, corpus)["camera+audio"]["map"] == pytest.approx(metrics["map"], abs=1e-4)


@pytest.fixture(scope="module")
def recording(folder) -> Path:
    """Four seconds each of two digits, of none, and of one, with their labels."""
    made, rng = Recording(), np.random.default_rng(5)
    made.info(0)
    time = np.arange(RATE_HZ * 12) / RATE_HZ
    sound = rng.normal(0, 0.15, len(time))
    for start_s, shown, text in ((0, [0, 1], "zero|one"), (4, [], "none"), (8, [2], "two")):
        made.label(start_s, text)
        sound += sum((0.2 * np.sin(2 * np.pi * TONES_HZ[digit] * time) for digit in shown), np.zeros(len(time))) * (
            (time >= start_s) & (time < start_s + 4)
        )
        picture = cv2.cvtColor(draw_collage(shown, rng), cv2.COLOR_GRAY2RGB)
        for frame in range(40):
            at_s = start_s + frame / 10
            noisy = np.clip(picture.astype(int) + rng.integers(0, 3, picture.shape), 0, 255).astype(np.uint8)
            image = made.make(
                "sensor_msgs/msg/Image",
                made.header(at_s),
                SIDE,
                SLOTS * SIDE,
                "rgb8",
                0,
                SLOTS * SIDE * 3,
                noisy.ravel(),
            )
            made.add(at_s, "/camera/image", image)
    for chunk, part in enumerate((sound.clip(-1, 1) * 32767).astype("<i2").reshape(-1, RATE_HZ // 10)):
        data = made.make("audio_common_msgs/msg/AudioData", part.view(np.uint8))
        made.add(
            chunk / 10 + 0.1,
            "/audio",
            made.make("audio_common_msgs/msg/AudioDataStamped", made.header(chunk / 10), data),
        )
    return made.write(folder / "bag")


def test_a_recording_is_evaluated_label_by_label(folder, recording):
    evaluated = ["evaluate", "--model", folder / "digits", "--bag", recording]
    done = aecf(*evaluated, "--out", folder / "evaluated")
    assert done.exit_code == 0 and "mAP" in done.output and "all right" in done.output, done.output
    summary = json.loads((folder / "evaluated" / "summary.json").read_text())
    both = summary["subsets"]["camera+audio"]
    assert both["n"] > 50 and both["map"] > 0.9 and "accuracy" not in both and both["set_size"] < 5
    assert summary["nothing_shown"]["n"] == 0  # none is an answer here, not a moment without one
    csv = folder / "labels.csv"
    csv.write_text("0,4,zero | one\n4,8,none\n8,12,two\n")
    again = aecf(*evaluated, "--out", folder / "from_csv", "--labels", csv)
    assert (
        again.exit_code == 0
        and json.loads((folder / "from_csv" / "summary.json").read_text())["subsets"]["camera+audio"] == both
    )
    csv.write_text("0,4,zero|nine\n")
    refused = aecf(*evaluated, "--out", folder / "x", "--labels", csv)
    assert refused.exit_code == 1 and "line 1: label 'nine' is not one of zero" in refused.output


def show(pipeline: Pipeline, shown: list[int], start_ns: int, rng: np.random.Generator):
    """A second of collages and of their sound, and the prediction at its end."""
    picture = cv2.cvtColor(draw_collage(shown, rng), cv2.COLOR_GRAY2RGB)
    time = np.arange(RATE_HZ) / RATE_HZ
    heard = rng.normal(0, 0.15, RATE_HZ) + sum(
        (0.2 * np.sin(2 * np.pi * TONES_HZ[digit] * time) for digit in shown), np.zeros(RATE_HZ)
    )
    for step, part in enumerate(heard.reshape(20, -1)):
        now_ns = start_ns + step * NANOSECONDS // 20
        sound = (part.clip(-1, 1) * 32767).astype("<i2").tobytes()
        noisy = np.clip(picture.astype(int) + rng.integers(0, 3, picture.shape), 0, 255).astype(np.uint8)
        pipeline.observe(
            "camera", RawImage(now_ns, now_ns, "rgb8", SIDE, SLOTS * SIDE, SLOTS * SIDE * 3, noisy.tobytes()), now_ns
        )
        pipeline.observe("audio", RawAudio(now_ns - NANOSECONDS // 20, now_ns, "S16LE", RATE_HZ, 1, sound), now_ns)
        prediction = pipeline.step(now_ns)
    return prediction


def test_the_pipeline_gives_independent_probabilities_in_the_fields_of_every_prediction(folder):
    bundle = load_bundle(folder / "digits")
    pipeline = Pipeline(bundle.manifest, make_backend("onnxruntime", bundle, device="cpu"))
    waiting = pipeline.step(0)
    assert waiting.abstain and waiting.abstain_reason == "no usable stream" and sum(waiting.probabilities) < 2.5
    two, none = (
        show(pipeline, shown, second * NANOSECONDS, np.random.default_rng(3))
        for second, shown in ((1, [0, 1]), (3, []))
    )
    assert {"zero", "one"} <= set(two.prediction_set) and two.probabilities[:2].min() > 0.5
    assert (
        two.label == NAMES[two.class_id]
        and two.confidence == pytest.approx(two.probabilities.max())
        and two.coverage == 0.9
    )
    assert two.probabilities.sum() > 1.2 and all(report.used for report in two.modalities)
    assert none.confidence < 0.5 and none.abstain_reason != "low confidence"


def test_inspect_and_the_card_say_so(folder):
    said = aecf("inspect", folder / "digits").output
    assert "multilabel" in said and "macro mAP" in said and "verified" in said
    card = (folder / "digits" / "MODEL_CARD.md").read_text()
    assert (
        "task multilabel" in card
        and "| zero |" in card
        and f"{load_manifest(folder / 'digits').metrics['audio']['map']:.4f}" in card
    )
    assert "## Intended use\nSorting digits.\n\n" in card


def test_what_asks_for_one_label_is_refused_in_one_line(folder, recording, tmp_path):
    model = folder / "digits"
    for words in (
        ["compare", model, model, "--data", folder / "data"],
        ["calibrate", "--model", model, "--bag", "models/av_digits/demo.mcap", "--out", tmp_path / "c"],
        ["export", "--torch", model, "--out", tmp_path / "t"],
        [
            "evaluate",
            "--model",
            model,
            "--bag",
            recording,
            "--bag",
            "models/av_digits/demo.mcap",
            "--out",
            tmp_path / "f",
        ],
    ):
        assert "multilabel" in refusal(*words)
    with pytest.raises(BundleError, match="multilabel"):
        load_head(load_bundle(folder / "digits"))


def test_several_labels_are_read_in_any_order_and_none_where_the_data_says_so(tmp_path):
    rows = rows_of_files(tmp_path, 60)
    texts = ["dog|siren", "siren | dog", "none", "dog", "siren", "bell|dog"]
    for i, row in enumerate(rows):
        row[2] = texts[i % 6]
    write_rows(tmp_path / "t.csv", "image,sound,label", rows)
    corpus = open_corpus(tmp_path / "t.csv", BOTH, DataConfig(task="multilabel", nothing=["none"]))
    assert corpus.labels == ["bell", "dog", "siren"]
    shown = {}
    for unit in (unit for units in corpus.parts.values() for unit in units):
        shown |= dict(zip(unit.lines, (corpus.sets[unit.labels]).tolist(), strict=True))
        assert (
            corpus.counts(unit.labels).sum()
            == corpus.sets[unit.labels].sum() + (~corpus.sets[unit.labels].any(1)).sum()
        )
    assert shown[2] == shown[3] == [False, True, True] and shown[4] == [False] * 3 and shown[7] == [True, True, False]
    one = open_corpus(tmp_path / "t.csv", BOTH, DataConfig())
    assert "dog|siren" in one.labels  # without the task a label is what stands there
    with pytest.raises(DatasetError, match="'bell' is not in data.labels"):
        open_corpus(tmp_path / "t.csv", BOTH, DataConfig(task="multilabel", nothing=["none"], labels=["dog", "siren"]))


def test_a_folder_of_arrays_has_one_label_for_each_sample(tiny_dataset):
    with pytest.raises(DatasetError, match="data.task is multilabel, and a dataset folder holds one label"):
        open_corpus(tiny_dataset, None, DataConfig(task="multilabel"))


def test_average_precision_is_that_of_scikit_learn_ties_included():
    rng = np.random.default_rng(0)
    for digits in (1, 2, 8):
        scores, truth = rng.random((300, 4)).round(digits), rng.random((300, 4)) < 0.3
        due = average_precision_score(truth, scores, average="macro")
        assert np.mean([average_precision(s, t) for s, t in zip(scores.T, truth.T, strict=True)]) == pytest.approx(due)
        assert multilabel_metrics(scores, truth, scores > 0.2)["map"] == pytest.approx(due)
    assert (
        np.isnan(average_precision(scores[:, 0], np.zeros(300, bool)))
        and "average_precision" not in label_scores(scores, truth & False)[0]
    )


def test_scaling_undoes_what_was_done_to_log_odds_and_stays_finite_for_a_label_without_errors():
    generator = torch.Generator().manual_seed(0)
    true = torch.randn(4000, 3, generator=generator) * 2
    targets = torch.rand(4000, 3, generator=generator) < torch.sigmoid(true)
    targets[:, 2] = true[:, 2] > 0
    scale, shift = fit_scaling(true * torch.tensor([4.0, 0.5, 1.0]) - 1.0, targets)
    torch.testing.assert_close(scale[:2], torch.tensor([0.25, 2.0]), rtol=0.1, atol=0)
    torch.testing.assert_close(shift[:2], torch.tensor([0.25, 2.0]), rtol=0.2, atol=0.1)
    assert scale.isfinite().all() and shift.isfinite().all()


def test_agreement_is_the_mean_over_labels_and_zero_where_one_is_alone():
    alone = torch.tensor([[[0.9, 0.1], [0.9, 0.1]], [[1.0, 0.1], [0.0, 0.1]]])
    both = torch.ones(2, 2, dtype=torch.bool)
    torch.testing.assert_close(label_agreement(alone, both), torch.tensor([1.0, 0.5]), atol=1e-5, rtol=0)
    assert (label_agreement(alone, torch.tensor([[True, False]] * 2)) == 0).all()


def test_label_smoothing_and_frequencies_reach_a_head_of_several_labels():
    from aecf_ros.training.head.train_head import _targets, set_prior

    sets = np.array([[True, True], [True, False], [False, False]])
    head = AECF([2], 2, multilabel=True)
    assert _targets(head, 0.2, sets)(torch.tensor([1, 2])).tolist() == [
        [pytest.approx(0.9), pytest.approx(0.1)],
        [pytest.approx(0.1)] * 2,
    ]
    set_prior(head, np.array([0, 1, 1, 2, 1, 2]), sets)
    torch.testing.assert_close(head.log_prior.sigmoid(), torch.tensor([5 / 8, 2 / 8]))
