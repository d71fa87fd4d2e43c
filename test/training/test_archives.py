"""The benchmark's archives as they lie there: parts that do not leak, at the size that an encoder takes, and what is
no such archive.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from aecf_ros.commands.shared.corpus import open_corpus
from aecf_ros.modalities.audio.spec import AudioSpec
from aecf_ros.modalities.image.spec import ImageSpec
from aecf_ros.training.config import DataConfig
from aecf_ros.training.data.npy_dataset import DatasetError
from aecf_ros.training.data.protocols import last_second, windows
from aecf_ros.training.features.encoder_training import samples_of
from test.command_line import aecf

CLASSES = ["aircraft", "bird", "dog", "ship"]
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """As many pictures as the protocol counts on, all of four; 16 clips of 2 s, of which the second half is silent."""
    folder = tmp_path_factory.mktemp("archives")
    pictures = [cv2.imencode(".jpg", np.full((32, 32, 3), 60 * c, np.uint8))[1].ravel() for c in range(4)]
    labels = np.arange(12_040) % 4
    split = np.concatenate([np.zeros(12_000, np.uint8), np.ones(40, np.uint8)])
    offsets = np.concatenate([[0], np.cumsum([len(pictures[c]) for c in labels])])
    np.savez(
        folder / "scenes_image.npz",
        jpeg=np.concatenate([pictures[c] for c in labels]),
        offsets=offsets,
        labels=labels,
        split=split,
        classes=CLASSES,
    )
    rng = np.random.default_rng(0)
    clips = [
        np.concatenate([rng.integers(-9000, 9000, 16_000), np.zeros(16_000, int)]).astype(np.int16) for _ in range(16)
    ]
    np.savez(
        folder / "scenes_sound.npz",
        samples=np.concatenate(clips),
        offsets=np.arange(17) * 32_000,
        label=np.arange(16) % 4,
        fold=np.arange(16) // 4 + 1,
        classes=CLASSES,
    )
    return folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """As many pictures as the protocol counts on, each of its label's gray; 50 takes of ten digits by two speakers,
    0.25 s of noise each.
    """
    folder = tmp_path_factory.mktemp("archives")
    labels = (np.arange(68_000) % 10).astype(np.uint8)
    np.savez_compressed(
        folder / "mnist.npz",
        images=np.broadcast_to(20 * labels[:, None, None], (68_000, 28, 28)).astype(np.uint8),
        labels=labels,
    )
    speaker, label, take = (of.ravel() for of in np.meshgrid(np.arange(2), np.arange(10), np.arange(50), indexing="ij"))
    samples = np.random.default_rng(0).integers(-2000, 2000, 2000 * len(take)).astype(np.int16)
    np.savez(
        folder / "fsdd.npz",
        samples=samples,
        offsets=2000 * np.arange(len(take) + 1),
        label=label,
        speaker=speaker,
        take=take,
    )
    return folder


def sizes(corpus) -> dict[str, dict[str, int]]:
    return {
        part: {name: sum(len(u.labels) for u in units if u.modality == name) for name in corpus.names}
        for part, units in corpus.parts.items()
    }


def test_scenes_keep_to_their_protocol(scenes: Path) -> None:
    corpus = open_corpus(scenes)
    assert (
        list(corpus.labels) == CLASSES and list(corpus.parts) == ["fusion", "calibration", "test"] and not corpus.paired
    )
    assert sizes(corpus) == {
        "fusion": {"camera": 3000, "audio": 16},
        "calibration": {"camera": 1000, "audio": 8},
        "test": {"camera": 40, "audio": 8},
    }
    clips = [set(u.clusters.tolist()) for units in corpus.parts.values() for u in units if u.modality == "audio"]
    assert clips == [set(range(8)), set(range(8, 12)), set(range(12, 16))]
    for units in corpus.parts.values():
        camera = pickle.loads(pickle.dumps(next(u for u in units if u.modality == "camera")))
        shown = next(camera.batches(4096)).inputs["camera"].mean((1, 2, 3))
        assert (np.round(shown / 60) == camera.labels).all()


def test_digits_have_a_part_for_encoders_and_share_nothing(digits: Path) -> None:
    corpus = open_corpus(digits)
    assert list(corpus.parts) == ["encoders", "fusion", "calibration", "test"] and corpus.labels[3] == "three"
    assert sizes(corpus)["encoders"] == {"camera": 40_000, "audio": 640} and sizes(corpus)["test"] == {
        "camera": 8000,
        "audio": 100,
    }
    camera = [u for u in corpus.parts["encoders"] if u.modality == "camera"]
    whole = samples_of(camera)
    assert whole.data.shape == (40_000, 28, 28, 3) and (whole.data[:, 0, 0, 0] == 20 * whole.labels).all()
    second = next(camera[1].batches(64)).inputs["camera"]
    assert (second[:, 0, 0, 0] == 20 * camera[1].labels[:64]).all()
    word = next(next(u for u in corpus.parts["test"] if u.modality == "audio").batches(4)).inputs["audio"]
    assert word.shape == (4, 16_000) and not word[:, :11_000].any() and np.abs(word).max() == round(0.9 * 32767)


def test_an_encoder_of_another_size_gets_its_own(scenes: Path) -> None:
    specs = (
        ImageSpec(name="camera", kind="image", height=8, width=12),
        AudioSpec(name="audio", kind="audio", rate_hz=8000, window_s=2.0),
    )
    corpus = open_corpus(scenes, specs)
    camera, audio = corpus.parts["test"]
    assert list(corpus.modalities) == list(specs) and camera.digest != open_corpus(scenes).parts["test"][0].digest
    assert next(camera.batches(5)).inputs["camera"].shape == (5, 8, 12, 3)
    sound = next(audio.batches(3)).inputs["audio"]
    assert (
        sound.shape == (3, 16_000) and sound.dtype == np.int16 and not sound[:, :8000].any() and sound[:, 8000:].any()
    )
    with pytest.raises(DatasetError, match="no modality 'rear' of kind image; it has camera"):
        open_corpus(scenes, (ImageSpec(name="rear", kind="image", height=8, width=8),))


def test_which_of_two_is_said_by_the_configuration(scenes: Path, digits: Path, tmp_path: Path) -> None:
    for file in (*scenes.iterdir(), *digits.iterdir()):
        (tmp_path / file.name).symlink_to(file)
    with pytest.raises(
        DatasetError, match="holds the archives of digits and scenes; say which with data.protocol=digits"
    ):
        open_corpus(tmp_path)
    assert open_corpus(tmp_path, config=DataConfig(protocol="scenes")).labels == CLASSES
    with pytest.raises(DatasetError, match="has no mnist.npz and fsdd.npz for data.protocol=digits"):
        open_corpus(scenes, config=DataConfig(protocol="digits"))
    done = aecf("dataset", "inspect", tmp_path, "--out", tmp_path / "page", "data.protocol=scenes")
    assert done.exit_code == 0 and "4 classes" in done.output, done.output


def test_what_is_no_such_archive_ends_in_a_line(scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "scenes_sound.npz").symlink_to(scenes / "scenes_sound.npz")
    np.savez(tmp_path / "scenes_image.npz", jpeg=np.zeros(3, np.uint8))
    with pytest.raises(DatasetError, match="scenes_image.npz: has no array 'offsets'; docs/data.md"):
        open_corpus(tmp_path)
    (tmp_path / "scenes_image.npz").write_bytes(b"no archive")
    with pytest.raises(DatasetError, match="scenes_image.npz: not an archive of NumPy arrays"):
        open_corpus(tmp_path)


def test_windows_hold_sound() -> None:
    loud, silent = np.full(16_000, 1000, np.int16), np.zeros(16_000, np.int16)
    assert [w.mean() for w in windows(np.concatenate([silent, loud, silent]))] == [500, 1000, 500]
    assert windows(np.concatenate([silent, silent])) == []


def test_a_word_ends_where_its_window_does() -> None:
    word = np.linspace(0.1, 0.5, 5000, dtype=np.float32)
    window = last_second(word)
    assert window[-1] == round(0.9 * 32767) and window[-5000] > 0 and not window[:-5000].any()
    assert (last_second(np.linspace(0.1, 0.5, 20_000, dtype=np.float32)) > 0).all()


@pytest.mark.skipif(
    not (SHARED / "mnist.npz").is_file(), reason="the benchmark's archives are not beside the repository"
)
def test_the_archives_beside_the_repository_are_read() -> None:
    corpus = open_corpus(SHARED, config=DataConfig(protocol="scenes"))
    assert sizes(corpus)["test"]["camera"] == 2000 and all(
        len(np.unique(u.labels)) == 4 for units in corpus.parts.values() for u in units
    )
