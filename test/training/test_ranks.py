"""One training by two processes, as torchrun starts them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from aecf_ros.training.config_loader import load_config
from aecf_ros.training.data.npy_units import folder_corpus
from aecf_ros.training.head.distributed import SINGLE_PROCESS, ProcessGroup
from aecf_ros.training.run.train import train

ROOT = Path(__file__).resolve().parents[2]


QUICKER = [
    "encoders.image.optimizer.epochs=1",
    "encoders.audio.optimizer.epochs=1",
    "head.reliability.cross_fit={expert_steps: 10, steps: 20}",
]


class Of:
    """A unit of so many moments."""

    def __init__(self, moments: int) -> None:
        self.labels, self.digest = np.zeros(moments), f"{moments}"


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_units_are_shared_evenly_and_each_is_somebodys(size: int) -> None:
    units = [Of(moments) for moments in (900, 30, 500, 480, 20, 10, 460, 5)]
    shares = [ProcessGroup(rank, size).share(units) for rank in range(size)]
    assert sorted(len(of.labels) for share in shares for of in share) == sorted(len(of.labels) for of in units)
    loads = [sum(len(of.labels) for of in share) for share in shares]
    assert max(loads) <= max(900, sum(loads) / size * 4 / 3)
    assert np.array_equal(
        np.sort(np.concatenate([np.arange(11)[ProcessGroup(rank, size).rows(11)] for rank in range(size)])),
        np.arange(11),
    )


def test_alone_nothing_is_waited_for_or_changed() -> None:
    layer = torch.nn.Linear(2, 2)
    SINGLE_PROCESS.wait()
    SINGLE_PROCESS.average_gradients(layer)
    assert layer.weight.grad is None and SINGLE_PROCESS.mean(3.0) == 3.0 and SINGLE_PROCESS.key() == ()


def train_by_two(data: Path, out: Path, overrides: list[str]) -> subprocess.CompletedProcess:
    words = ["train", "--data", str(data), "--out", str(out / "bars"), "--run", str(out / "run"), *overrides]
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "-m",
        "--",
        "aecf_ros.cli",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*launcher, *words], cwd=out, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_two_processes_train_what_one_does(make_dataset: Callable, quick_overrides: list[str], tmp_path: Path) -> None:
    data = make_dataset(
        {"camera": "image", "audio": "audio"}, {"encoders": 200, "fusion": 240, "calibration": 400, "test": 240}
    )
    overrides = [
        *quick_overrides,
        *QUICKER,
        "head.options={gate: evidence, monotone: 'off', dropout: 0.0, expert_hidden: [16]}",
    ]
    one, two = tmp_path / "one", tmp_path / "two"
    two.mkdir()
    train(folder_corpus(data), one / "bars", load_config(None, overrides), run=one / "run", show_progress=False)
    done = train_by_two(data, two, overrides)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("wrote ") == 1  # one of them speaks
    weights, of_two = (load_file(of / "bars" / "head.safetensors") for of in (one, two))
    for name, value in weights.items():
        np.testing.assert_allclose(of_two[name], value, atol=1e-3, rtol=1e-3, err_msg=name)
    metrics, of_two = (json.loads((of / "run" / "metrics.json").read_text())["test"] for of in (one, two))
    for subset, due in metrics.items():
        assert of_two[subset]["nll"] == pytest.approx(due["nll"], abs=1e-3) and of_two[subset][
            "accuracy"
        ] == pytest.approx(due["accuracy"], abs=0.004)
