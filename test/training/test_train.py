import csv
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner

from aecf_ros.commands.train import train_command
from aecf_ros.core.bundle import load_bundle
from aecf_ros.training.config import OptimizerConfig
from aecf_ros.training.config_loader import load_config
from aecf_ros.training.data.npy_dataset import load_dataset
from aecf_ros.training.data.npy_units import folder_corpus
from aecf_ros.training.features import cache as shards
from aecf_ros.training.features.encoder_training import fit_encoder, smoothed_targets
from aecf_ros.training.head import fit_gate as gate_module
from aecf_ros.training.head import fit_loop as loop
from aecf_ros.training.run.train import train


@pytest.fixture(scope="module")
def trained(tiny_dataset, quick_config, tmp_path_factory) -> Path:
    """A bundle of three modalities trained on the tiny dataset; its run folder is beside it."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "bars").mkdir()
    (folder / "bars" / "demo.mcap").write_bytes(b"someone else's file")
    train(folder_corpus(tiny_dataset), folder / "bars", quick_config, run=folder / "run", show_progress=False)
    return folder / "bars"


def _run(path: Path, **feed: np.ndarray) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feed)


def test_training_ends_in_a_bundle_that_verifies_and_beats_chance_by_far(trained):
    manifest = load_bundle(trained).manifest
    assert manifest.name == "bars" and manifest.names == ["camera", "thermal", "audio"]
    assert len(manifest.metrics) == 7 and "camera+audio" in manifest.metrics
    for metrics in manifest.metrics.values():
        assert metrics["accuracy"] > 0.9 and metrics["coverage"] > 0.85
    assert manifest.training.config["seed"] == 0 and manifest.calibration.coverage == 0.9


def test_the_bundle_answers_from_raw_input_alone(trained, tiny_dataset):
    part = load_dataset(tiny_dataset).parts["test"]

    (camera,) = _run(trained / "camera_encoder.onnx", image=np.array(part["camera"].data[:100]))
    absent = {
        "embedding_thermal": np.full((100, 12), np.nan, np.float32),
        "embedding_audio": np.full((100, 10), np.nan, np.float32),
    }
    probabilities, *_ = _run(
        trained / "head.onnx", embedding_camera=camera, present=np.tile([True, False, False], (100, 1)), **absent
    )
    labels = part["camera"].labels[:100]
    assert (probabilities.argmax(1) == labels)[labels >= 0].mean() > 0.9


def test_encoders_stay_finite_on_black_images_and_digital_silence(trained):
    (camera,) = _run(trained / "camera_encoder.onnx", image=np.zeros((3, 16, 20, 3), np.uint8))
    (audio,) = _run(trained / "audio_encoder.onnx", samples=np.zeros((2, 2400), np.float32))
    assert camera.shape == (3, 12) and audio.shape == (2, 10)
    assert np.isfinite(camera).all() and np.isfinite(audio).all()


def test_files_of_others_in_the_bundle_directory_stay(trained):
    assert (trained / "demo.mcap").read_bytes() == b"someone else's file"
    assert not list(trained.parent.glob(".bars-*"))


def test_the_card_names_metrics_sources_and_limits(trained):
    card = (trained / "MODEL_CARD.md").read_text()
    assert "drawn by the tests, CC0" in card and "| camera | even |" in card and "## Limits" in card
    assert f"{load_bundle(trained).manifest.metrics['camera']['accuracy']:.4f}" in card


def test_the_run_folder_says_what_was_run_and_what_came_of_it_and_holds_no_pickle(trained, quick_config):
    run = trained.parent / "run"
    for picture in ("curves.png", "reliability.png"):
        assert (run / picture).read_bytes().startswith(b"\x89PNG")
    assert load_config(run / "config.yaml") == quick_config
    assert "torch " in (run / "environment.txt").read_text()
    losses = list(csv.DictReader((run / "metrics.csv").open()))
    assert [row["epoch"] for row in losses if row["stage"] == "head"] == ["1", "2", "3", "4"]
    assert all(np.isfinite(float(row["training_loss"])) and row["held_out_nll"] == "" for row in losses)
    measured = json.loads((run / "metrics.json").read_text())
    assert measured["test"] == load_bundle(trained).manifest.metrics and set(measured["test_corrupted"]) == set(
        measured["test"]
    )
    checkpoints = list((run / "checkpoints").iterdir())
    assert sorted(path.name.split("-")[0] for path in checkpoints) == [
        "audio_encoder",
        "camera_encoder",
        "head",
        "reliability",
        "reliability",
        "reliability",
        "thermal_encoder",
    ]
    for path in checkpoints:
        with np.load(path, allow_pickle=False) as arrays:
            assert all(arrays[key].dtype != object for key in arrays.files)


def test_training_again_repeats_nothing_and_gives_the_same_graph(trained, tiny_dataset, quick_config, monkeypatch):
    for module in (loop, gate_module):
        monkeypatch.setattr(module, "save_arrays", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(shards, "save_file", lambda *_: pytest.fail("encoded again"))
    again = trained.parent / "again"
    train(folder_corpus(tiny_dataset), again, quick_config, run=trained.parent / "run", show_progress=False)
    assert load_bundle(again).manifest.files["head.onnx"] == load_bundle(trained).manifest.files["head.onnx"]
    assert load_bundle(again).manifest.metrics == load_bundle(trained).manifest.metrics


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


def test_a_killed_run_that_is_started_again_ends_with_the_weights_of_one_that_was_not(
    tiny_dataset, quick_config, tmp_path, monkeypatch
):
    dataset = load_dataset(tiny_dataset)
    spec, samples = dataset.spec.modalities[0], dataset.parts["encoders"]["camera"]
    config = quick_config.encoder("camera", "image").model_copy(update={"augment": True, "dropout": 0.3})

    def encoder(folder: Path) -> torch.nn.Module:
        return fit_encoder(spec, samples, 3, config, loop.FitContext(folder, seed=7))[0]

    whole = encoder(tmp_path / "whole").state_dict()
    save, saved = loop.save_arrays, []

    def save_then_die(path: Path, arrays: dict[str, np.ndarray]) -> None:
        save(path, arrays)
        saved.append(path)
        path.with_suffix(".partial").write_bytes(b"half a file")
        raise Killed

    monkeypatch.setattr(loop, "save_arrays", save_then_die)
    for _ in range(2):
        with pytest.raises(Killed):
            encoder(tmp_path / "killed")
    assert len(saved) == 2
    monkeypatch.setattr(loop, "save_arrays", save)
    resumed = encoder(tmp_path / "killed").state_dict()
    for name, value in whole.items():
        assert torch.equal(resumed[name], value), name


def test_a_torn_checkpoint_is_started_over_and_not_trusted(tmp_path):
    path = tmp_path / "torn.npz"
    path.write_bytes(b"PK\x03\x04 torn")
    assert loop.load_arrays(path) is None and loop.load_arrays(tmp_path / "absent.npz") is None


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    module = torch.nn.Linear(2, 2)

    def losses(epoch: int, generator: torch.Generator):
        yield module(torch.full((1, 2), torch.inf)).sum()

    with pytest.raises(FloatingPointError, match="lower optimizer.learning_rate"):
        loop.fit(module, loop.Batches(1, losses), OptimizerConfig(epochs=1), "x", loop.FitContext(tmp_path))


def test_nothing_is_taught_as_the_uniform_distribution():
    targets = smoothed_targets(torch.tensor([-1, 2]), 4, 0.1)
    torch.testing.assert_close(targets, torch.tensor([[0.25] * 4, [0.025, 0.025, 0.925, 0.025]]))


def test_a_bundle_is_also_written_in_other_precisions_with_both_measured_side_by_side(
    trained, tiny_dataset, quick_overrides
):
    words = [
        "--data",
        tiny_dataset,
        "--out",
        trained.parent / "small",
        "--run",
        trained.parent / "run",
        "--quantize",
        "int8",
        *quick_overrides,
    ]
    done = CliRunner().invoke(train_command, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0 and f"wrote {trained.parent / 'small-int8'}" in done.output
    before, after = (load_bundle(trained.parent / name).manifest for name in ("small", "small-int8"))
    assert (
        before.files["head.onnx"] == after.files["head.onnx"]
        and before.files["camera_encoder.onnx"] != after.files["camera_encoder.onnx"]
    )
    card = (trained.parent / "small-int8" / "MODEL_CARD.md").read_text()
    row = next(line for line in card.splitlines() if line.startswith("| camera+thermal+audio |"))
    for key in ("accuracy", "ece"):
        assert (
            f"{before.metrics['camera+thermal+audio'][key]:.4f}" in row
            and f"{after.metrics['camera+thermal+audio'][key]:.4f}" in row
        )


def test_the_command_answers_bad_data_with_one_line_and_a_wrong_key_with_usage(tmp_path):
    runner = CliRunner()
    failed = runner.invoke(
        train_command, ["--data", str(tmp_path), "--out", str(tmp_path / "m"), "--run", str(tmp_path / "r")]
    )
    assert (
        failed.exit_code == 1
        and failed.output.strip().startswith("Error: ")
        and len(failed.output.strip().splitlines()) == 1
    )
    wrong = runner.invoke(train_command, ["--data", str(tmp_path), "--out", str(tmp_path / "m"), "nonsense=1"])
    assert wrong.exit_code == 2 and "nonsense" in wrong.output
