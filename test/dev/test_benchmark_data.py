"""The benchmark's archives as dataset folders: parts that do not leak, samples that the trainer takes."""
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is a development dependency: the data of av_digits need it")

import prepare_benchmark_data
from av_digits import sources
from click.testing import CliRunner

from aecf_ros.commands.data import open_corpus

CLASSES = ["aircraft", "bird", "dog", "ship"]


def write_archives(folder: Path) -> None:
    """As many pictures as the protocol counts on, all of four; 16 clips of 2 s, of which the second half is silent."""
    pictures = [cv2.imencode(".jpg", np.full((32, 32, 3), 60 * c, np.uint8))[1].ravel() for c in range(4)]
    labels = np.arange(12_040) % 4
    split = np.concatenate([np.zeros(12_000, np.uint8), np.ones(40, np.uint8)])
    offsets = np.concatenate([[0], np.cumsum([len(pictures[c]) for c in labels])])
    np.savez(folder / "scenes_image.npz", jpeg=np.concatenate([pictures[c] for c in labels]), offsets=offsets, labels=labels, split=split, classes=CLASSES)
    rng = np.random.default_rng(0)
    clips = [np.concatenate([rng.integers(-9000, 9000, 16_000), np.zeros(16_000, int)]).astype(np.int16) for _ in range(16)]
    np.savez(folder / "scenes_sound.npz", samples=np.concatenate(clips), offsets=np.arange(17) * 32_000, label=np.arange(16) % 4, fold=np.arange(16) // 4 + 1,
             name=[str(i) for i in range(16)], classes=CLASSES)


def test_scenes_keep_to_their_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_archives(tmp_path)
    monkeypatch.setenv("AECF_BENCH_DATA", str(tmp_path))
    done = CliRunner().invoke(prepare_benchmark_data.main, ["scenes", "--out", str(tmp_path / "scenes")])
    assert done.exit_code == 0, done.output
    corpus = open_corpus(tmp_path / "scenes")
    assert list(corpus.labels) == CLASSES and list(corpus.parts) == ["fusion", "calibration", "test"]
    sizes = {part: {u.modality: len(u.labels) for u in units} for part, units in corpus.parts.items()}
    assert sizes == {"fusion": {"camera": 3000, "audio": 16}, "calibration": {"camera": 1000, "audio": 8}, "test": {"camera": 40, "audio": 8}}
    clips = [set(u.clusters.tolist()) for units in corpus.parts.values() for u in units if u.modality == "audio"]
    assert clips == [set(range(8)), set(range(8, 12)), set(range(12, 16))]
    for units in corpus.parts.values():
        camera = next(u for u in units if u.modality == "camera")
        shown = next(camera.batches(4096)).inputs["camera"].mean((1, 2, 3))
        assert (np.round(shown / 60) == camera.labels).all()


def test_windows_hold_sound() -> None:
    loud, silent = np.full(16_000, 1000, np.int16), np.zeros(16_000, np.int16)
    assert [w.mean() for w in prepare_benchmark_data.windows(np.concatenate([silent, loud, silent]))] == [500, 1000, 500]
    assert prepare_benchmark_data.windows(np.concatenate([silent, silent])) == []


def test_a_word_ends_where_its_window_does() -> None:
    word = np.arange(1, 5001, dtype=np.int16)
    assert (prepare_benchmark_data.last_second(word)[-5000:] == word).all() and not prepare_benchmark_data.last_second(word)[:-5000].any()
    long = np.arange(20_000, dtype=np.int16)
    assert (prepare_benchmark_data.last_second(long) == long[4000:]).all()


def test_archives_that_are_not_there_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AECF_BENCH_DATA", str(tmp_path))
    done = CliRunner().invoke(prepare_benchmark_data.main, ["digits", "--out", str(tmp_path / "digits")])
    assert done.exit_code == 1 and "mnist.npz: no such file; put the archives there" in done.output
    assert sources.benchmark_folder() == tmp_path
