from pathlib import Path

import numpy as np
import pytest
import yaml

from aecf_ros.training.data.npy_dataset import NOTHING, DatasetError, load_dataset
from aecf_ros.training.head.pairing import pair_by_label

SMALL = {"encoders": 40, "fusion": 40, "calibration": 40, "test": 40}


def _refused(directory: Path) -> str:
    with pytest.raises(DatasetError) as caught:
        load_dataset(directory)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_dataset_loads_with_its_labels_and_shapes(tiny_dataset):
    dataset = load_dataset(tiny_dataset)
    assert [m.name for m in dataset.spec.modalities] == ["camera", "thermal", "audio"] and len(dataset.spec.labels) == 3
    assert dataset.parts["fusion"]["camera"].data.shape == (240, 16, 20, 3)
    assert set(dataset.parts["fusion"]["audio"].labels.tolist()) == {-1, 0, 1, 2}


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    assert "dataset.yaml: no such file" in _refused(tmp_path)


def test_a_manifest_that_is_not_yaml_is_refused(make_dataset):
    folder = make_dataset({"camera": "image"}, SMALL)
    (folder / "dataset.yaml").write_text("labels: [one\nname: {")
    assert "not YAML (line" in _refused(folder)


def test_an_unknown_kind_of_modality_is_refused_by_name(make_dataset):
    folder = make_dataset({"camera": "image"}, SMALL)
    fields = yaml.safe_load((folder / "dataset.yaml").read_text())
    fields["modalities"][0]["kind"] = "radar"
    (folder / "dataset.yaml").write_text(yaml.safe_dump(fields))
    assert "modalities.0" in _refused(folder) and "radar" in _refused(folder)


def test_a_missing_array_is_refused_by_path(make_dataset):
    folder = make_dataset({"camera": "image"}, SMALL)
    (folder / "calibration" / "camera.npy").unlink()
    assert "calibration/camera.npy: missing" in _refused(folder)


def test_images_of_another_size_are_refused_with_both_shapes(make_dataset):
    folder = make_dataset({"camera": "image"}, SMALL)
    np.save(folder / "test" / "camera.npy", np.zeros((40, 8, 8, 3), np.uint8))
    assert "uint8 (40, 8, 8, 3) where uint8 (N, 16, 20, 3) is due" in _refused(folder)


def test_float_sound_is_refused(make_dataset):
    folder = make_dataset({"audio": "audio"}, SMALL)
    np.save(folder / "encoders" / "audio.npy", np.zeros((40, 2400), np.float32))
    assert "float32 (40, 2400) where int16" in _refused(folder)


def test_labels_out_of_range_or_of_another_length_are_refused(make_dataset):
    folder = make_dataset({"camera": "image"}, SMALL)
    np.save(folder / "fusion" / "camera_labels.npy", np.full(40, 7, np.int16))
    assert "values 7..7 where -1..2 are allowed" in _refused(folder)
    np.save(folder / "fusion" / "camera_labels.npy", np.zeros(39, np.int16))
    assert "(39,) where integers (40,) are due" in _refused(folder)


def test_a_part_that_lacks_a_class_is_refused(make_dataset):
    folder = make_dataset({"camera": "image"}, SMALL)
    labels = np.load(folder / "fusion" / "camera_labels.npy")
    np.save(folder / "fusion" / "camera_labels.npy", np.where(labels == 1, 0, labels))
    assert "no sample of class 1" in _refused(folder)


def test_an_array_of_objects_is_never_unpickled(make_dataset):
    folder = make_dataset({"camera": "image"}, SMALL)
    np.save(folder / "test" / "camera.npy", np.array([{}], object), allow_pickle=True)
    assert "not a NumPy array, or one of objects" in _refused(folder)


def _labels() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.permutation(np.repeat(np.arange(-1, 4), 20)), rng.permutation(np.repeat(np.arange(-1, 4), 7))]


def test_pairs_show_one_label_or_nothing():
    labels = _labels()
    pairs = pair_by_label(labels, 4000, 0.2, 0.1, np.random.default_rng(1))
    for m, of in enumerate(labels):
        seen = of[pairs.rows[:, m]]
        assert (seen[pairs.shows[:, m]] == pairs.labels[pairs.shows[:, m]]).all()
        assert (seen[~pairs.shows[:, m]] == NOTHING).all()
    assert ((pairs.labels == NOTHING) == ~pairs.shows.any(1)).all()
    assert abs((pairs.shows.sum(1) == 1).mean() - 0.2) < 0.02
    assert abs((pairs.labels == NOTHING).mean() - 0.1) < 0.02


def test_pairs_repeat_with_the_seed_and_only_then():
    def rows(seed: int) -> np.ndarray:
        return pair_by_label(_labels(), 200, 0.1, 0.0, np.random.default_rng(seed)).rows

    assert (rows(3) == rows(3)).all() and (rows(3) != rows(4)).any()


def test_pairing_uses_every_sample_before_it_repeats_one():
    pairs = pair_by_label([np.repeat(np.arange(4), 25)], 200, 0.0, 0.0, np.random.default_rng(0))
    assert np.bincount(pairs.rows[:, 0]).tolist() == [2] * 100


def test_pairing_with_nothing_needs_samples_of_nothing():
    with pytest.raises(DatasetError, match="modality 1 has no sample of label -1"):
        pair_by_label([np.array([-1, 0, 1]), np.array([0, 1])], 10, 0.1, 0.0, np.random.default_rng(0))
