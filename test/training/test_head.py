import contextlib
import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from aecf_ros.core.bundle import load_bundle
from aecf_ros.fusion import AECF
from aecf_ros.fusion.calibration.monotone import REACHES
from aecf_ros.training.calibration.calibrate import subset_logits
from aecf_ros.training.config import HeadConfig, ReliabilityConfig
from aecf_ros.training.config_loader import load_config
from aecf_ros.training.data.npy_units import folder_corpus
from aecf_ros.training.head import fit_gate as gate_module
from aecf_ros.training.head import fit_loop as loop
from aecf_ros.training.head.batch_sampler import LabelSampler
from aecf_ros.training.head.feature_tables import FeatureTable
from aecf_ros.training.head.fit_gate import fit_gate, settle_gate
from aecf_ros.training.head.fit_loop import FitContext
from aecf_ros.training.head.pairing import pair_by_label
from aecf_ros.training.head.train_head import fit_experts, new_head
from aecf_ros.training.run.train import train

CLASSES, WIDTH, KINDS_KNOWN = 4, 8, 4
CENTERS = 1.2 * np.random.default_rng(5).normal(size=(CLASSES, WIDTH))
FAST = ReliabilityConfig(cross_fit={"expert_steps": 100, "steps": 100})


def _table(count: int, seed: int, kinds: tuple[int, ...]) -> FeatureTable:
    """Clean samples and some of each kind: kind k wipes out two dimensions and puts an offset there."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, CLASSES, count)
    embeddings = rng.normal(0, 0.7, (count, WIDTH))
    embeddings[labels >= 0] += CENTERS[labels[labels >= 0]]
    kind = rng.choice([-1, *kinds], count)
    for k in kinds:
        rows = np.flatnonzero(kind == k)
        embeddings[np.ix_(rows, [2 * k % WIDTH, (2 * k + 1) % WIDTH])] = rng.normal(3.0, 1.0, (len(rows), 2))
    return FeatureTable(embeddings.astype(np.float32), labels, kind, np.arange(count))


def _sampler(tables: list[FeatureTable], config: HeadConfig) -> LabelSampler:
    rows = [np.arange(len(of)) for of in tables]
    labels, clusters = [of.labels for of in tables], [of.clusters for of in tables]
    return LabelSampler(labels, clusters, rows, config.nothing_share, config.all_nothing_share)


def _nll(head: AECF, table: FeatureTable) -> float:
    shown = table.labels >= 0
    logits = subset_logits(head, [torch.from_numpy(table.embeddings[shown])], (True,))
    return F.cross_entropy(logits, torch.from_numpy(table.labels[shown])).item()


def _confidence(head: AECF, table: FeatureTable) -> np.ndarray:
    logits = subset_logits(head, [torch.from_numpy(table.embeddings)], (True,))
    return torch.softmax(logits, 1).amax(1).numpy()


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> tuple[AECF, AECF, Path, FeatureTable]:
    """Experts, the same with reliability out of fold, the folder of both, and what they were trained on."""
    torch.set_num_threads(1)  # as `aecf train` does; small matrices gain nothing from more
    folder, table = tmp_path_factory.mktemp("head"), _table(1500, 0, (0, 1, 2))
    config = HeadConfig(samples_per_epoch=2048, optimizer={"epochs": 8, "batch_size": 128, "learning_rate": 3e-3})
    head = new_head([WIDTH], CLASSES, config, seed=1)
    losses = fit_experts(head, [table], _sampler([table], config), config, FitContext(folder, 1)).losses
    assert losses[-1] < 0.7 * losses[0]
    done = []
    gated = fit_gate(head, [table], FAST, FitContext(folder, 1, lambda completed, note: done.append(completed)))
    assert done == [1]
    return head, gated, folder, table


def test_modalities_that_are_fitted_side_by_side_come_out_as_one_after_the_other(tmp_path):
    tables = [_table(300, seed, (0, 1)) for seed in (1, 2)]
    head = new_head([WIDTH, WIDTH], CLASSES, HeadConfig(options={"expert_hidden": [16], "dropout": 0.3}), seed=1)
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(fit_gate(head, tables, FAST, FitContext(tmp_path / str(threads), 1)).state_dict())
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())
    assert not torch.equal(found[0]["gate.reliability.0.head.bias"], head.state_dict()["gate.reliability.0.head.bias"])


def test_a_kind_that_nobody_trained_on_loses_at_least_twice_the_confidence_of_clean_data(fitted):
    experts, gated, _, _ = fitted
    mixed = _table(2000, 7, (3,))
    unseen = mixed.kinds == 3
    before, after = (_confidence(of, mixed) for of in (experts, gated))
    lost, lost_clean = ((before[rows] - after[rows]).mean() for rows in (unseen, ~unseen))
    assert lost > 0.1
    assert lost_clean < lost / 2, (lost, lost_clean)


def test_reliability_that_was_fitted_is_taken_up_and_that_of_other_data_is_not(fitted, monkeypatch):
    experts, gated, folder, table = fitted
    monkeypatch.setattr(gate_module, "fit_reliability", lambda *_: pytest.fail("fitted again"))
    again = fit_gate(experts, [table], FAST, FitContext(folder, 1))
    for name, value in gated.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    with pytest.raises(pytest.fail.Exception, match="fitted again"):
        fit_gate(experts, [_table(500, 1, (0, 1))], FAST, FitContext(folder, 1))


def test_a_cross_fit_that_costs_too_much_on_the_calibration_part_is_dropped(fitted):
    _, gated, _, _ = fitted
    calibration = _table(1500, 3, ())
    pairs = pair_by_label([calibration.labels], 2000, 0.0, 0.0, np.random.default_rng(0))
    assert settle_gate(gated, [calibration], pairs, ReliabilityConfig(price=10.0))[1].kept == [True]
    doubtful = copy.deepcopy(gated)
    doubtful.gate.reliability[0].head.bias.data[1] += 6.0  # what stand-ins teach that saw too little
    assert settle_gate(doubtful, [calibration], pairs, ReliabilityConfig())[1].kept == [
        True
    ]  # of many recordings it is believed
    doubtful.gate.reliability[0].clusters.fill_(100)
    head, settled = settle_gate(doubtful, [calibration], pairs, ReliabilityConfig())
    assert settled.kept == [False]
    assert _nll(head, calibration) < _nll(doubtful, calibration) - 0.01


def test_the_lift_is_the_smallest_that_brings_violations_down(fitted):
    head = AECF([WIDTH, WIDTH], CLASSES, monotone="soft").eval()
    for expert in head.experts:
        expert.load_state_dict(fitted[0].experts[0].state_dict())
    tables = [_table(1200, 4, (3,)), _table(1200, 5, (3,))]
    pairs = pair_by_label([of.labels for of in tables], 1000, 0.0, 0.0, np.random.default_rng(0))
    strict, loose = (
        settle_gate(head, tables, pairs, ReliabilityConfig(violation=rate, lift_cost=5.0)) for rate in (0.0, 1.0)
    )
    assert loose[1].reach == min(REACHES) < strict[1].reach
    assert strict[0].monotone == "soft" and strict[0].monotone_reach == strict[1].reach


def test_smoothed_labels_make_experts_less_sure(tmp_path):
    table = _table(600, 0, ())

    def confidence(smoothing: float) -> float:
        config = HeadConfig(
            samples_per_epoch=1024,
            label_smoothing=smoothing,
            optimizer={"epochs": 4, "batch_size": 128, "learning_rate": 3e-3},
        )
        head = new_head([WIDTH], CLASSES, config, seed=1)
        fit_experts(head, [table], _sampler([table], config), config, FitContext(tmp_path, 1))
        return _confidence(head, _table(600, 7, ())).mean()

    assert confidence(0.3) < confidence(0.0) - 0.1


def test_under_mixed_precision_it_learns_as_much_and_has_a_checkpoint_of_its_own(tmp_path):
    table, losses = _table(600, 0, ()), {}
    config = HeadConfig(samples_per_epoch=1024, optimizer={"epochs": 4, "batch_size": 128, "learning_rate": 3e-3})
    for mixed in (False, True):
        head = new_head([WIDTH], CLASSES, config, seed=1)
        losses[mixed] = fit_experts(
            head, [table], _sampler([table], config), config, FitContext(tmp_path, 1, mixed_precision=mixed)
        ).losses
    assert len(list(tmp_path.iterdir())) == 2 and losses[True] != losses[False]
    assert losses[True] == pytest.approx(losses[False], abs=0.05)


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


def test_a_run_killed_after_everything_it_saves_ends_with_the_head_of_one_that_was_not(
    make_dataset, tmp_path, monkeypatch
):
    data = make_dataset(
        {"camera": "image", "audio": "audio"}, {"encoders": 128, "fusion": 160, "calibration": 240, "test": 80}
    )
    config = load_config(
        None,
        ["encoders.image.optimizer.epochs=1", "encoders.audio.optimizer.epochs=1", "head.optimizer.epochs=2"]
        + ["head.samples_per_epoch=256", "calibration.minimum_samples=20", "calibration.coverage=0.9"]
        + ["head.reliability.cross_fit={expert_steps: 5, steps: 5}", "pairs.calibration=200", "pairs.test=100"],
    )
    train(folder_corpus(data), tmp_path / "whole", config, run=tmp_path / "run", show_progress=False)
    save, saved = loop.save_arrays, []

    def save_then_die(path: Path, arrays: dict[str, np.ndarray]) -> None:
        save(path, arrays)
        saved.append(path.name)
        raise Killed

    for module in (loop, gate_module):
        monkeypatch.setattr(module, "save_arrays", save_then_die)
    while not (tmp_path / "killed").exists() and len(saved) < 20:
        with contextlib.suppress(Killed):
            train(folder_corpus(data), tmp_path / "killed", config, run=tmp_path / "other", show_progress=False)
    assert len(saved) == 6  # an epoch of each encoder, two of the experts, two reliabilities
    whole, killed = (load_bundle(tmp_path / name).manifest for name in ("whole", "killed"))
    assert whole.files["head.safetensors"] == killed.files["head.safetensors"] and whole.metrics == killed.metrics
