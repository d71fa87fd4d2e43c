"""The search: over the calibration part alone, resumable, and never worse there than what was given."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
import yaml

from aecf_ros.training.config import LayerOptions, TrainConfig
from aecf_ros.training.config_loader import load_config
from aecf_ros.training.data.npy_dataset import DatasetError
from aecf_ros.training.features.cache import Extraction, extract
from aecf_ros.training.features.onnx_encoder import open_encoder
from aecf_ros.training.head.feature_tables import FeatureTable, PartFeatures, gather
from aecf_ros.training.run import tune as tune_module
from aecf_ros.training.run.tune import halves_of, tune, with_settings
from test.training.recorded import recorded_corpus, recording


@pytest.fixture
def config(tiny_bundle) -> TrainConfig:
    encoders = [f"encoders.{name}.onnx={tiny_bundle}/{name}_encoder.onnx" for name in ("camera", "audio")]
    quick = ["head.optimizer.epochs=2", "head.samples_per_epoch=256", "head.optimizer.batch_size=64"]
    options = [
        "head.options={gate: evidence, expert_hidden: [16]}",
        "head.reliability.cross_fit={expert_steps: 10, steps: 10}",
    ]
    return load_config(None, [*encoders, *quick, *options])


def test_a_search_starts_with_what_was_given_goes_on_where_it_stopped_and_never_reads_the_test_part(config, tmp_path):
    corpus = recorded_corpus()
    best, least, given = tune(corpus, tmp_path / "m", config, 1, run=tmp_path / "run", show_progress=False)
    assert (
        best.head.options == config.head.options.model_copy(update={"dropout": 0.1})
        and best.head.optimizer == config.head.optimizer
        and least == given
    )
    again = recorded_corpus()
    tuned, least, given_again = tune(again, tmp_path / "m", config, 3, run=tmp_path / "run", show_progress=False)
    assert given_again == given and least <= given
    storage = f"sqlite:///{tmp_path}/run/tune.db"
    (name,) = optuna.get_all_study_names(storage)
    values = [trial.value for trial in optuna.load_study(study_name=name, storage=storage).trials]
    assert len(values) == 3 and least == min(values) and values[0] == given
    assert TrainConfig.model_validate(yaml.safe_load((tmp_path / "run" / "tuned.yaml").read_text())) == tuned


def test_what_the_objective_is_given_does_not_contain_the_test_part(config, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        tune_module,
        "_nll",
        lambda run, fusion, halves: seen.append((fusion, *halves)) or 1.0,
    )
    tune(recorded_corpus(), tmp_path / "m", config, 1, run=tmp_path / "run", show_progress=False)
    assert {name for part in seen[0] for names in part.source_names for name in names} == {
        "fusion_0",
        "fusion_1",
        "fusion_2",
        "calibration_50",
    }


def test_settings_of_a_trial_replace_their_own_alone(config):
    changed = with_settings(
        config, {"width": 64, "dropout": 0.5, "learning_rate": 0.01, "weight_decay": 0.1, "field_copies": 2}
    )
    assert changed.head.options == LayerOptions(gate="evidence", expert_hidden=(64, 64), dropout=0.5)
    assert (changed.head.optimizer.learning_rate, changed.head.optimizer.weight_decay, changed.head.field_copies) == (
        0.01,
        0.1,
        2,
    )
    assert changed.head.optimizer.epochs == 2 and with_settings(config, {"width": "as given"}) == config


def test_halves_share_no_span_and_lose_no_moment(tiny_bundle, tmp_path):
    corpus = recorded_corpus()
    encoders = {name: open_encoder(tiny_bundle / f"{name}_encoder.onnx", name) for name in corpus.names}
    part = gather(corpus, extract(Extraction(corpus, encoders, {"calibration": 0}, 0, tmp_path)))["calibration"]
    one, other = halves_of(part, np.random.default_rng(0))
    assert len(one.moments) + len(other.moments) == len(part.moments)
    for m in range(2):
        assert not set(one.clean[m].clusters) & set(other.clean[m].clusters)
        assert len(one.clean[m]) + len(other.clean[m]) == len(part.clean[m])
        for half in (one, other):
            here = half.moments.present[:, m]
            np.testing.assert_array_equal(half.clean[m].labels[half.moments.rows[here, m]], half.moments.labels[here])
    assert set(one.moments.labels) == set(other.moments.labels) == {-1, 0, 1, 2}


def test_halves_of_a_dataset_folder_are_by_cluster_of_each_modality():
    labels, clusters = np.tile(np.arange(3), 20), np.repeat(np.arange(10), 6)
    table = FeatureTable(np.zeros((60, 2), np.float32), labels, np.full(60, -1), clusters)
    part = PartFeatures([table, table], [[], []], None, [np.zeros(60)] * 2, [[], []])
    for half in halves_of(part, np.random.default_rng(0)):
        assert half.moments is None and all(set(of.labels) == {0, 1, 2} for of in half.clean)


def test_a_class_with_one_span_is_refused(config, tmp_path):
    corpus = recorded_corpus()
    corpus.parts["calibration"][:] = [recording("short", 1, [(0, 12), (1, 12), (2, 12)])]
    with pytest.raises(DatasetError, match="--tune: a class has one labeled span"):
        tune(corpus, tmp_path / "m", config, 1, run=tmp_path / "run", show_progress=False)
