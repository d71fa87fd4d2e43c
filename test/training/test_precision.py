"""Bundles in fp16 and int8: they verify, they answer nearly as before, and the manifest says what they really reach."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from click.testing import CliRunner

pytest.importorskip("torch", reason="torch is not installed: only training needs it")

from aecf_ros.commands.quantize import quantize_command  # noqa: E402
from aecf_ros.core.bundle import load_bundle  # noqa: E402
from aecf_ros.runtime.backends import make_backend  # noqa: E402
from aecf_ros.training.data.npy_dataset import DatasetError, load_dataset  # noqa: E402
from aecf_ros.training.data.npy_units import folder_corpus  # noqa: E402
from aecf_ros.training.evaluation.measure import measure  # noqa: E402
from aecf_ros.training.export.head_graph import ExportError  # noqa: E402
from aecf_ros.training.export.quantize import before_logarithms, quantize  # noqa: E402
from aecf_ros.training.run.train import train  # noqa: E402


@pytest.fixture
def data(tiny_dataset: Path) -> Path:
    return tiny_dataset


@pytest.fixture(scope="module")
def trained(tiny_dataset: Path, quick_config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train(folder_corpus(tiny_dataset), folder / "full", quick_config, run=folder / "run", show_progress=False)
    return folder / "full"


def test_the_trainers_own_figures_are_found_again(trained: Path, data: Path) -> None:
    found = measure(load_bundle(trained), folder_corpus(data))
    due = load_bundle(trained).manifest.metrics
    assert set(found) == set(due)
    for name, figures in due.items():
        assert found[name]["n"] == figures["n"]
        assert found[name]["accuracy"] == pytest.approx(figures["accuracy"], abs=0.01)
        assert found[name]["nll"] == pytest.approx(figures["nll"], abs=0.01)


@pytest.mark.parametrize(("precision", "size", "near"), [("fp16", 0.95, 0.02), ("int8", 0.8, 0.15)])
def test_a_converted_bundle_is_smaller_and_answers_nearly_as_before(
    trained: Path, data: Path, tmp_path: Path, precision: str, size: float, near: float
) -> None:
    before, after = quantize(trained, tmp_path / precision, precision, folder_corpus(data))
    bundle, was = load_bundle(tmp_path / precision), load_bundle(trained)
    assert bundle.manifest.metrics["camera+thermal+audio"]["accuracy"] == pytest.approx(
        after["camera+thermal+audio"]["accuracy"], abs=1e-6
    )
    assert bundle.manifest.training.config["precision"] == precision and bundle.manifest.name == precision
    assert bundle.manifest.files["head.onnx"] == was.manifest.files["head.onnx"]
    for name in before:
        assert {"accuracy", "ece", "ece_noise_floor"} <= set(after[name])
        assert after[name]["accuracy"] == pytest.approx(before[name]["accuracy"], abs=0.1)
    card = (tmp_path / precision / "MODEL_CARD.md").read_text()
    assert f"{before['camera+audio']['ece']:.4f}" in card and f"{after['camera+audio']['ece']:.4f}" in card
    backend, full = make_backend("onnxruntime", bundle, "cpu"), make_backend("onnxruntime", was, "cpu")
    dataset = load_dataset(data)
    for modality in bundle.manifest.modalities:
        file = modality.encoder
        assert bundle.path(file).stat().st_size < size * was.path(file).stat().st_size
        sample = np.array(dataset.parts["test"][modality.name].data[0])
        sample = sample if modality.kind == "image" else sample.astype(np.float32) / 32768
        ours, theirs = backend.encode(modality.name, sample), full.encode(modality.name, sample)
        assert np.isfinite(ours).all() and np.abs(ours - theirs).mean() < near * np.abs(theirs).mean()


def test_what_feeds_a_logarithm_is_found_and_nothing_behind_it(trained: Path) -> None:
    graph = onnx.load(trained / "audio_encoder.onnx").graph
    names = before_logarithms(graph)
    kinds = [node.op_type for node in graph.node if node.name in names]
    assert kinds[-1] == "Log" and kinds.count("Log") == 1 and kinds.count("Conv") == 2
    assert before_logarithms(onnx.load(trained / "camera_encoder.onnx").graph) == []


def test_the_bundle_itself_is_not_overwritten(trained: Path, data: Path) -> None:
    with pytest.raises(ExportError, match="is the bundle itself"):
        quantize(trained, trained, "int8", folder_corpus(data))


def test_another_dataset_is_refused(trained: Path, make_dataset, tmp_path: Path) -> None:
    other = make_dataset(
        {"camera": "image", "audio": "audio"}, dict.fromkeys(("encoders", "fusion", "calibration", "test"), 40)
    )
    with pytest.raises(DatasetError, match="camera, audio.*where the bundle has camera, thermal, audio"):
        quantize(trained, tmp_path / "out", "int8", folder_corpus(other))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (
            lambda labels: labels[::-1],
            "its labels are in another order: it has '{last}' where the bundle has '{first}'; give "
            "the data it was trained on",
        ),
        (
            lambda labels: ["bark", *labels[1:]],
            "its labels are others: it has no '{first}', and the bundle has no 'bark'; give the data it was trained on",
        ),
    ],
)
def test_data_with_as_many_labels_that_are_not_the_bundles_is_refused(
    labels: Callable, says: str, trained: Path, data: Path, tmp_path: Path
) -> None:
    corpus = folder_corpus(data)
    first, last = corpus.labels[0], corpus.labels[-1]
    with pytest.raises(DatasetError, match=re.escape(says.format(first=first, last=last))):
        quantize(trained, tmp_path / "out", "int8", replace(corpus, labels=tuple(labels(list(corpus.labels)))))


def test_a_graph_that_cannot_be_converted_is_named_in_one_line(
    trained: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(source: Path, target: Path) -> None:
        raise KeyError("weights\nwith a second line")

    monkeypatch.setitem(quantize.__globals__["PRECISIONS"], "int8", stumble)
    result = CliRunner().invoke(
        quantize_command, [str(trained), "--precision", "int8", "--data", str(data), "--out", str(tmp_path / "out")]
    )
    assert (
        result.exit_code == 1
        and "camera_encoder.onnx: cannot be converted to int8" in result.output
        and "Traceback" not in result.output
    )


def test_the_command_prints_accuracy_and_ece_before_and_after(trained: Path, data: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        quantize_command, [str(trained), "--precision", "int8", "--data", str(data), "--out", str(tmp_path / "small")]
    )
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert "accuracy" in lines[0] and "ECE noise floor" in lines[0] and lines[1].startswith("camera+thermal+audio")
    assert yaml.safe_load((tmp_path / "small" / "bundle.yaml").read_text())["training"]["config"]["precision"] == "int8"
