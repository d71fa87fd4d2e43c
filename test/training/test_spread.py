"""Features over Ray: the same files, to the byte, and one clear line where there is no Ray."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from aecf_ros.cli import main
from aecf_ros.core.bundle import load_bundle
from test.conftest import write_image_encoder
from test.training.files import write_picture, write_rows
from test.training.test_recorded import QUICK


def aecf(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> list[object]:
    """`aecf train` on a table of 240 pictures in six recordings, with vectors beside them."""
    folder = tmp_path_factory.mktemp("table")
    rows = [[write_picture(folder / f"{i}.png", i), f"{i % 3} {i % 3 + i / 240}", "abc"[i % 3], f"day{i // 40}"] for i in range(240)]
    write_rows(folder / "table.csv", "image,numbers,label,recording", rows)
    write_image_encoder(folder / "camera.onnx")
    return ["train", "--data", folder / "table.csv", *QUICK, f"encoders.camera.onnx={folder / 'camera.onnx'}", "encoders.numbers.vector=2"]


def test_ray_writes_the_files_that_one_process_writes(words, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install aecf_ros[fleet]")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        done = aecf(*words, "--ray", "--out", tmp_path / "spread", "--run", tmp_path / "run_spread")
    finally:
        ray.shutdown()
    assert done.exit_code == 0, done.output
    assert aecf(*words, "--out", tmp_path / "alone", "--run", tmp_path / "run_alone").exit_code == 0
    spread, alone = ({path.name: path.read_bytes() for path in (tmp_path / run / "features").iterdir()} for run in ("run_spread", "run_alone"))
    assert spread == alone and len(alone) == 2 * (2 * 4 + 1 + 2)  # four recordings with a copy, one to calibrate, one with a copy to test
    assert load_bundle(tmp_path / "spread").manifest.metrics == load_bundle(tmp_path / "alone").manifest.metrics


def test_without_ray_a_line_says_what_to_install(words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    done = aecf(*words, "--ray", "--out", tmp_path / "m", "--run", tmp_path / "run")
    assert done.exit_code == 1 and "--ray needs the package 'ray'; pip install aecf_ros[fleet], or leave --ray out" in done.output
