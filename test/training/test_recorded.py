"""From recordings and frozen encoders to a bundle that answers."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from aecf_ros.core.bundle import load_bundle
from aecf_ros.core.labeled_samples import NOTHING
from aecf_ros.training.calibration.calibrate import CalibrationError
from aecf_ros.training.config import ConfigError, HeadConfig, TrainConfig
from aecf_ros.training.config_loader import load_config
from aecf_ros.training.data.npy_dataset import DatasetError
from aecf_ros.training.export.head_weights import load_head
from aecf_ros.training.features import cache as shards
from aecf_ros.training.features.cache import Extraction, extract
from aecf_ros.training.features.encoder_training import smoothed_targets
from aecf_ros.training.features.onnx_encoder import open_encoder
from aecf_ros.training.head import fit_gate as gate_module
from aecf_ros.training.head import fit_loop as loop
from aecf_ros.training.head.batch_sampler import pair_sampler
from aecf_ros.training.head.feature_tables import gather
from aecf_ros.training.head.pairing import MISSING
from aecf_ros.training.head.train_head import fit_experts, new_head
from aecf_ros.training.run.train import train
from test.conftest import RATE_HZ, SIDE, WINDOW_S, write_audio_encoder, write_image_encoder
from test.training.recorded import draw_color, recorded_corpus, recording

QUICK = [
    "head.optimizer.epochs=6",
    "head.samples_per_epoch=512",
    "head.optimizer.batch_size=64",
    "head.optimizer.learning_rate=0.01",
    "head.options={gate: evidence, expert_hidden: [16], dropout: 0.0, monotone: 'off'}",
    "head.reliability.cross_fit={expert_steps: 30, steps: 40}",
    "calibration.minimum_samples=20",
    "calibration.coverage=0.9",
]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory) -> Path:
    """A folder with two encoders as `aecf wrap-encoder` writes them."""
    folder = tmp_path_factory.mktemp("encoders")
    write_image_encoder(folder / "camera.onnx")
    write_audio_encoder(folder / "audio.onnx")
    model = onnx.load(folder / "audio.onnx")
    notes = {"aecf.kind": "audio", "aecf.rate_hz": str(RATE_HZ), "aecf.window_s": str(WINDOW_S)}
    notes |= {"aecf.source": "tones by hand", "aecf.license": "CC0"}
    onnx.helper.set_model_props(model, notes)
    onnx.save(model, folder / "audio.onnx")
    return folder


@pytest.fixture(scope="module")
def config(encoders) -> TrainConfig:
    return load_config(
        None, [*QUICK, *(f"encoders.{name}.onnx={encoders / name}.onnx" for name in ("camera", "audio"))]
    )


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    train(recorded_corpus(imbalance=2), folder / "robot", config, run=folder / "run", show_progress=False)
    return folder / "robot"


def test_five_recordings_become_a_bundle_that_verifies_and_beats_chance(trained):
    manifest = load_bundle(trained).manifest
    assert manifest.names == ["camera", "audio"] and set(manifest.metrics) == {"camera", "audio", "camera+audio"}
    assert all(of["accuracy"] > 0.6 for of in manifest.metrics.values())
    assert manifest.metrics["camera+audio"]["nll"] < min(manifest.metrics[name]["nll"] for name in ("camera", "audio"))
    assert "encoder of audio: tones by hand, CC0" in manifest.training.data


def test_a_subset_is_measured_and_calibrated_on_moments_that_have_all_of_it(trained):
    unit = recorded_corpus(imbalance=2).parts["test"][0]
    labeled = unit.labels != NOTHING
    both = int((labeled & unit.present.all(1)).sum())
    manifest = load_bundle(trained).manifest
    assert (
        manifest.metrics["camera"]["n"]
        == manifest.metrics["camera+audio"]["n"]
        == both
        < labeled.sum()
        == manifest.metrics["audio"]["n"]
    )
    assert manifest.calibration.subsets["camera"].samples == both  # the calibration recording has the same gaps


def test_the_encoder_files_are_in_the_bundle_as_they_were_and_no_path_of_this_machine_is(trained, encoders):
    for name in ("camera", "audio"):
        assert (trained / f"{name}_encoder.onnx").read_bytes() == (encoders / f"{name}.onnx").read_bytes()
    assert str(encoders) not in (trained / "bundle.yaml").read_text()


def test_the_bundle_answers_in_the_pipeline_of_the_node(trained):
    from aecf_ros.core.types import RawImage
    from aecf_ros.runtime.backends import make_backend
    from aecf_ros.runtime.pipeline import Pipeline

    bundle = load_bundle(trained)
    pipeline = Pipeline(bundle.manifest, make_backend("onnxruntime", bundle))
    rng = np.random.default_rng(9)
    said = []
    for number in range(12):
        now_ns = number * 100_000_000 + 1
        image = draw_color(1, rng)
        pipeline.observe("camera", RawImage(now_ns, now_ns, "rgb8", SIDE, SIDE, 3 * SIDE, image.tobytes()), now_ns)
        said.append(pipeline.step(now_ns))
    last = said[-1]
    assert last.label == "green" and last.confidence > 0.5 and [m.used for m in last.modalities] == [True, False]


def test_the_card_speaks_of_recordings(trained):
    card = (trained / "MODEL_CARD.md").read_text()
    assert "| camera | test_60 |" in card and "labeled spans" in card and "drawn by label" not in card
    assert "Not said by those who trained it" in card and "handwriting" not in card and "template" not in card


def test_a_run_killed_after_anything_it_writes_gives_the_same_metrics(trained, config, tmp_path, monkeypatch):
    class Killed(BaseException):
        """Stands for SIGKILL: nothing may catch it."""

    written = []

    def then_die(write):
        def dying(target, *rest):
            write(target, *rest)
            written.append(target)
            raise Killed

        return dying

    def save_then_die(path, shard, save=shards._save):
        save(path, shard)
        written.append(path)
        raise Killed

    for module in (loop, gate_module):
        monkeypatch.setattr(module, "save_arrays", then_die(loop.save_arrays))
    monkeypatch.setattr(shards, "_save", save_then_die)
    while not (tmp_path / "killed").exists() and len(written) < 60:
        with contextlib.suppress(Killed):
            train(recorded_corpus(imbalance=2), tmp_path / "killed", config, run=tmp_path / "run", show_progress=False)
    shards_due = 2 * (3 * 2 + 1 + 2)  # two modalities; three recordings with a copy, one without, one with
    assert len(written) == shards_due + 6 + 2  # then six epochs of the experts and two reliabilities
    whole, killed = (load_bundle(path).manifest for path in (trained, tmp_path / "killed"))
    assert killed.metrics == whole.metrics and killed.files["head.safetensors"] == whole.files["head.safetensors"]


def _parts(corpus, encoders, tmp_path, copies=1):
    opened = {name: open_encoder(encoders / f"{name}.onnx", name) for name in corpus.names}
    return gather(corpus, extract(Extraction(corpus, opened, {"fusion": copies, "calibration": 0}, 0, tmp_path)))


def test_rows_of_a_moment_are_those_of_its_own_samples(encoders, tmp_path):
    corpus = recorded_corpus(fusion=2)
    part = _parts(corpus, encoders, tmp_path)["fusion"]
    present = np.concatenate([unit.present for unit in corpus.parts["fusion"]])
    labels = np.concatenate([unit.labels for unit in corpus.parts["fusion"]])
    np.testing.assert_array_equal(part.moments.present, present)
    for m, table in enumerate(part.clean):
        rows = part.moments.rows[present[:, m], m]
        np.testing.assert_array_equal(rows, np.arange(len(table)))
        np.testing.assert_array_equal(table.labels[rows], labels[present[:, m]])
    assert (part.moments.rows[~present] == MISSING).all()
    assert len(np.unique(part.clean[1].clusters)) == 2 * len(
        np.unique(corpus.parts["fusion"][0].clusters)
    )  # spans of two recordings


@pytest.mark.parametrize("balanced", [True, False])
def test_classes_are_drawn_evenly_or_as_they_come_and_copies_stay_with_their_sample(encoders, tmp_path, balanced):
    corpus = recorded_corpus(imbalance=4)
    part = _parts(corpus, encoders, tmp_path)["fusion"]
    draws = pair_sampler(part, HeadConfig(field_copies=1, balanced=balanced))
    pairs = draws.draw(4000, np.random.default_rng(0))
    share = (pairs.labels == 0).mean()
    assert share == pytest.approx(1 / 4 if balanced else 4 / 6.5, abs=0.02)
    for m, table in enumerate(part.tables(1)):
        here = pairs.present[:, m]
        np.testing.assert_array_equal(table.labels[pairs.rows[here, m]], pairs.labels[here])
        assert 0.4 < (table.kinds[pairs.rows[here, m]] >= 0).mean() < 0.6


def test_held_out_clusters_are_none_that_is_trained_on(encoders, tmp_path):
    part = _parts(recorded_corpus(), encoders, tmp_path)["fusion"]
    kept, held = pair_sampler(part, HeadConfig(field_copies=1)).split(0.3, np.random.default_rng(0))
    assert not set(kept.clusters) & set(held.clusters) and set(kept.moments.labels) == set(held.moments.labels) == {
        -1,
        0,
        1,
        2,
    }


def test_the_prior_that_was_trained_without_is_put_back(trained):
    prior = load_head(load_bundle(trained)).fusion.log_prior.exp().numpy()
    np.testing.assert_allclose(prior, [2 / 4, 1 / 4, 1 / 4], atol=0.01)


def test_early_stopping_ends_with_the_weights_of_the_least_and_resumes(encoders, tmp_path):
    part = _parts(recorded_corpus(), encoders, tmp_path)["fusion"]
    tables = part.tables(1)

    def fitted(epochs: int, patience: int, folder: str):
        optimizer = {"epochs": epochs, "batch_size": 64, "learning_rate": 0.02}
        config = HeadConfig(
            samples_per_epoch=512,
            optimizer=optimizer,
            early_stopping={"share": 0.3, "patience": patience, "pairs": 200},
        )
        head = new_head([3, 3], 3, config, 1)
        return head, fit_experts(
            head, tables, pair_sampler(part, config), config, loop.FitContext(tmp_path / folder, 1)
        )

    head, history = fitted(30, 2, "early")
    least = int(np.argmin(history.held_out))
    assert least == len(history.held_out) - 3 < 27  # two epochs without a new least end it
    again, resumed = fitted(30, 2, "early")
    assert resumed == history and all(
        torch.equal(a, b) for a, b in zip(head.parameters(), again.parameters(), strict=True)
    )
    stored = loop.load_arrays(next((tmp_path / "early").glob("head-*.npz")))
    assert all(np.array_equal(stored[f"best/{name}"], value.numpy()) for name, value in head.state_dict().items())
    assert any(not np.array_equal(stored[f"module/{name}"], value.numpy()) for name, value in head.state_dict().items())


def test_nothing_is_taught_as_the_prior_where_there_is_one():
    targets = smoothed_targets(torch.tensor([-1, 0]), 2, 0.0, torch.tensor([0.8, 0.2]))
    torch.testing.assert_close(targets, torch.tensor([[0.8, 0.2], [1.0, 0.0]]))


def test_what_cannot_be_trained_is_said_in_one_line_before_anything_is_encoded(config, encoders, tmp_path):
    corpus = recorded_corpus()
    with pytest.raises(DatasetError, match="name a frozen one: encoders.NAME.onnx=FILE"):
        train(
            corpus,
            tmp_path / "m",
            load_config(None, [f"encoders.camera.onnx={encoders}/camera.onnx"]),
            run=tmp_path / "r",
            show_progress=False,
        )
    with pytest.raises(ConfigError, match="no such modality; it has camera, audio"):
        train(
            corpus,
            tmp_path / "m",
            load_config(None, [f"encoders.lidar.onnx={encoders}/camera.onnx"]),
            run=tmp_path / "r",
            show_progress=False,
        )
    with pytest.raises(ConfigError, match="programs: camera has a frozen encoder"):
        train(
            corpus,
            tmp_path / "m",
            config.model_copy(update={"programs": True}),
            run=tmp_path / "r",
            show_progress=False,
        )
    assert not (tmp_path / "r").exists()


def test_too_few_calibration_moments_of_a_subset_are_refused_by_name(config, tmp_path):
    corpus = recorded_corpus()
    corpus.parts["calibration"][0].present[:-8, 0] = False
    with pytest.raises(CalibrationError, match="calibration of camera: 8 distinct samples where 20 are needed"):
        train(corpus, tmp_path / "m", config, run=tmp_path / "r", show_progress=False)


def test_a_modality_that_a_part_never_has_is_named(config, tmp_path):
    corpus = recorded_corpus()
    corpus.parts["test"][0].present[:, 0] = False
    with pytest.raises(DatasetError, match="camera is never present in the part 'test'"):
        train(corpus, tmp_path / "m", config, run=tmp_path / "r", show_progress=False)


def test_a_recording_with_one_span_of_each_class_is_enough_to_train_on(config, tmp_path):
    corpus = recorded_corpus()
    corpus.parts["fusion"][:] = [recording("short", 1, [(0, 12), (1, 12), (2, 12)])]
    manifest = train(corpus, tmp_path / "m", config, run=tmp_path / "r", show_progress=False)
    assert manifest.metrics["camera+audio"]["accuracy"] > 0.5
