"""Features over Ray: the same files, to the byte, and one clear line where there is no Ray."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from aecf_ros.modalities.vector.spec import VectorSpec
from aecf_ros.training.config import DataConfig
from aecf_ros.training.data.table import table_corpus
from aecf_ros.training.features.cache import Extraction, extract
from aecf_ros.training.features.onnx_encoder import open_encoder
from aecf_ros.training.features.standardizer import standardizing_encoder
from test.command_line import aecf
from test.conftest import write_image_encoder
from test.training.files import write_picture, write_rows
from test.training.test_recorded import QUICK


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A table of 240 pictures in six recordings, with vectors beside them."""
    folder = tmp_path_factory.mktemp("table")
    rows = [
        [write_picture(folder / f"{i}.png", i), f"{i % 3} {i % 3 + i / 240}", "abc"[i % 3], f"day{i // 40}"]
        for i in range(240)
    ]
    write_rows(folder / "table.csv", "image,numbers,label,recording", rows)
    write_image_encoder(folder / "camera.onnx")
    return folder


@pytest.fixture(scope="module")
def words(folder) -> list[object]:
    return [
        "train",
        "--data",
        folder / "table.csv",
        *QUICK,
        f"encoders.camera.onnx={folder / 'camera.onnx'}",
        "encoders.numbers.vector=2",
    ]


def test_ray_writes_the_files_that_one_process_writes(words, folder, ray_on_two_cpus: None, tmp_path: Path) -> None:
    done = aecf(*words, "--ray", "--out", tmp_path / "spread", "--run", tmp_path / "run")
    assert done.exit_code == 0, done.output
    camera, numbers = open_encoder(folder / "camera.onnx", "camera"), VectorSpec(name="numbers", kind="vector", dim=2)
    corpus = table_corpus(folder / "table.csv", (camera.spec, numbers), DataConfig())
    encoders = {"camera": camera, "numbers": standardizing_encoder(numbers, corpus.parts["fusion"], tmp_path)}
    extract(Extraction(corpus, encoders, {"fusion": 1, "calibration": 0, "test": 1}, 0, tmp_path / "alone"))
    spread, alone = (
        {path.name: path.read_bytes() for path in at.iterdir()}
        for at in (tmp_path / "run" / "features", tmp_path / "alone")
    )
    assert spread == alone and len(alone) == 2 * (
        2 * 4 + 1 + 2
    )  # four recordings with a copy, one to calibrate, one with a copy to test


def test_without_ray_a_line_says_what_to_install(words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    done = aecf(*words, "--ray", "--out", tmp_path / "m", "--run", tmp_path / "run")
    assert (
        done.exit_code == 1
        and "--ray needs the package 'ray'; pip install aecf_ros[fleet], or leave --ray out" in done.output
    )
