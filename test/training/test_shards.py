"""Features by unit: computed once, resumed, shared between processes, and the same whichever way they came."""

from __future__ import annotations

import contextlib
import inspect
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from aecf_ros.training.features import cache as shards
from aecf_ros.training.features.cache import Extraction, Shard, UnitFeatures, extract
from aecf_ros.training.features.corruption import CLEAN, Corruptions, corrupt
from aecf_ros.training.features.onnx_encoder import as_input, open_encoder
from aecf_ros.training.features.prefetch import prefetch
from test.conftest import write_image_encoder
from test.training.recorded import recorded_corpus

COPIES = {"fusion": 2, "calibration": 0, "test": 1}


@pytest.fixture
def encoders(tiny_bundle) -> dict:
    return {name: open_encoder(tiny_bundle / f"{name}_encoder.onnx", name) for name in ("camera", "audio")}


def _all(features: dict[str, list[UnitFeatures]]) -> list[Shard]:
    return [
        shard for units in features.values() for of in units for versions in of.shards.values() for shard in versions
    ]


def _same(one: list[Shard], other: list[Shard]) -> bool:
    columns = [(vars(x).values(), vars(y).values()) for x, y in zip(one, other, strict=True)]
    return all(np.array_equal(a, b) for x, y in columns for a, b in zip(x, y, strict=True))


def test_a_shard_holds_what_the_encoder_says_of_the_moments_that_have_the_modality(encoders, tmp_path):
    corpus = recorded_corpus()
    features = extract(Extraction(corpus, encoders, COPIES, 0, tmp_path))
    unit = corpus.parts["fusion"][0]
    for m, name in enumerate(corpus.names):
        clean, *copies = features["fusion"][0].shards[name]
        samples = np.concatenate([batch.inputs[name] for batch in unit.batches(7)])
        np.testing.assert_allclose(clean.embeddings, encoders[name].encode(samples), atol=1e-6)
        np.testing.assert_array_equal(clean.present, unit.present[:, m])
        assert (clean.kind == CLEAN).all() and len(copies) == 2
        for copy in copies:
            assert len(copy.embeddings) == len(samples) and (copy.kind >= 0).all() and (copy.severity >= 1).all()
            assert np.abs(copy.embeddings - clean.embeddings).mean() > 0.01
        assert not np.array_equal(copies[0].kind, copies[1].kind)


def test_a_copy_is_the_field_corruption_of_its_kind_and_severity(encoders, tmp_path):
    corpus = recorded_corpus(fusion=1)
    corpus.parts["fusion"][0].present[:] = True
    unit = corpus.parts["fusion"][0]
    _, copy = extract(Extraction(corpus, encoders, {"fusion": 1}, 0, tmp_path))["fusion"][0].shards["camera"]
    size, first = encoders["camera"].batch, int(unit.digest[:8], 16)
    due = []
    for start, batch in zip(range(0, len(unit.labels), size), unit.batches(size), strict=True):
        rows = slice(start, start + len(batch.present))
        draws, field = (
            torch.Generator().manual_seed(first + start),
            Corruptions("image", copy.kind[rows], copy.severity[rows]),
        )
        spoiled = corrupt(torch.from_numpy(batch.inputs["camera"]), field, draws)
        due.append(encoders["camera"].encode(spoiled.numpy()))
    np.testing.assert_array_equal(copy.embeddings, np.concatenate(due))


def test_nothing_is_read_or_encoded_twice(encoders, tmp_path):
    corpus, told = recorded_corpus(), []
    first = extract(Extraction(corpus, encoders, COPIES, 0, tmp_path))
    read = [unit.read for units in corpus.parts.values() for unit in units]
    again = extract(Extraction(corpus, encoders, COPIES, 0, tmp_path), progress=lambda *now: told.append(now))
    assert _same(_all(first), _all(again))
    assert (
        [unit.read for units in corpus.parts.values() for unit in units]
        == read
        == [len(u.labels) for us in corpus.parts.values() for u in us]
    )
    assert all(done == total for done, total, _ in told)


def test_killed_after_every_file_it_ends_with_the_same_features(encoders, tmp_path, monkeypatch):
    whole, save, kills = (
        _all(extract(Extraction(recorded_corpus(), encoders, COPIES, 0, tmp_path / "whole"))),
        shards._save,
        [],
    )

    def save_then_die(path: Path, shard: Shard) -> None:
        save(path, shard)
        kills.append(path)
        raise KeyboardInterrupt

    monkeypatch.setattr(shards, "_save", save_then_die)
    resumed = None
    while resumed is None and len(kills) < 99:
        with contextlib.suppress(KeyboardInterrupt):
            resumed = extract(Extraction(recorded_corpus(), encoders, COPIES, 0, tmp_path / "killed"))
    assert len(kills) == len(whole) and _same(whole, _all(resumed))


def test_a_torn_file_is_made_again_and_a_half_written_one_is_not_taken(encoders, tmp_path, monkeypatch):
    whole = _all(extract(Extraction(recorded_corpus(), encoders, COPIES, 0, tmp_path)))
    files = sorted(tmp_path.iterdir())
    files[0].write_bytes(files[0].read_bytes()[:100])
    files[1].write_bytes(b"")
    assert _same(whole, _all(extract(Extraction(recorded_corpus(), encoders, COPIES, 0, tmp_path))))

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    files[2].unlink()
    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        extract(Extraction(recorded_corpus(), encoders, COPIES, 0, tmp_path))
    assert not files[2].exists()


def test_another_encoder_costs_its_own_modality_alone_and_another_copy_itself_alone(encoders, tmp_path):
    extract(Extraction(recorded_corpus(), encoders, {"fusion": 1}, 0, tmp_path))
    before = set(tmp_path.iterdir())
    write_image_encoder(tmp_path.parent / "other.onnx", output="embedding")
    other = (tmp_path.parent / "other.onnx").read_bytes()
    (tmp_path.parent / "other.onnx").write_bytes(
        other + b"\x32\x00"
    )  # an empty field more: another file, the same graph
    extract(
        Extraction(
            recorded_corpus(),
            encoders | {"camera": open_encoder(tmp_path.parent / "other.onnx", "camera")},
            {"fusion": 1},
            0,
            tmp_path,
        ),
    )
    made = set(tmp_path.iterdir()) - before
    assert len(made) == 6 and all(path.name.startswith("camera-") for path in made)
    extract(Extraction(recorded_corpus(), encoders, {"fusion": 2}, 0, tmp_path))
    assert len(set(tmp_path.iterdir()) - before - made) == 6
    extract(Extraction(recorded_corpus(fusion=4), encoders, {"fusion": 2}, 0, tmp_path))
    assert len(set(tmp_path.iterdir()) - before - made) == 6 + 6  # one more recording: its own files alone


@pytest.mark.parametrize(("module", "modalities"), [
    ("aecf_ros.modalities.image.corruptions", {"camera"}),
    ("aecf_ros.modalities.audio.corruptions", {"audio"}),
    ("aecf_ros.modalities.corruptions", {"camera", "audio"}),
    ("aecf_ros.training.features.corruption", {"camera", "audio"}),
    ("aecf_ros.modalities.vector.corruptions", set()),
])  # fmt: skip
def test_an_edited_corruption_costs_the_corrupted_copies_of_its_modality_alone(
    encoders, tmp_path, monkeypatch, module, modalities
):
    extract(Extraction(recorded_corpus(), encoders, {"fusion": 1}, 0, tmp_path))
    before, source = set(tmp_path.iterdir()), inspect.getsource
    monkeypatch.setattr(
        inspect, "getsource", lambda code: source(code) + ("# edited" if code.__name__ == module else "")
    )
    extract(Extraction(recorded_corpus(), encoders, {"fusion": 1}, 0, tmp_path))
    made = [path.name.split("-")[0] for path in set(tmp_path.iterdir()) - before]
    assert sorted(made) == sorted([*modalities] * 3)  # a copy of each of three recordings, and none as recorded


def test_processes_that_share_the_work_make_what_one_makes(encoders, tmp_path):
    whole = _all(extract(Extraction(recorded_corpus(), encoders, COPIES, 0, tmp_path / "one")))
    for rank in range(2):
        extract(
            Extraction(recorded_corpus(), encoders, COPIES, 0, tmp_path / "two"),
            select=lambda units, rank=rank: units[rank::2],
        )
    corpus = recorded_corpus()
    assert _same(whole, _all(extract(Extraction(corpus, encoders, COPIES, 0, tmp_path / "two"))))
    assert not any(unit.read for units in corpus.parts.values() for unit in units)


def test_rates_are_told_and_progress_ends_at_the_whole(encoders, tmp_path):
    told = []
    corpus = recorded_corpus()
    extract(Extraction(corpus, encoders, COPIES, 0, tmp_path), progress=lambda *now: told.append(now))
    passes = {"fusion": 3, "calibration": 1, "test": 2}
    total = sum(2 * passes[part] * len(unit.labels) for part, units in corpus.parts.items() for unit in units)
    assert told[0] == (0, total, 0.0) and told[-1][:2] == (total, total) and told[-1][2] > 0
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)


def test_what_reading_raises_comes_through(encoders, tmp_path):
    corpus = recorded_corpus()

    def broken(size: int):
        yield next(type(corpus.parts["fusion"][1]).batches(corpus.parts["fusion"][1], size))
        raise OSError("the disk is gone")

    corpus.parts["fusion"][1].batches = broken
    with pytest.raises(OSError, match="the disk is gone"):
        extract(Extraction(corpus, encoders, {"fusion": 0}, 0, tmp_path))
    assert len(list(tmp_path.iterdir())) == 2  # of the first recording


def test_reading_ahead_is_bounded_and_ends_with_its_reader():
    made, ended = [], []

    def numbers():
        try:
            for number in range(100):
                made.append(number)
                yield number
        finally:
            ended.append(True)

    reader = prefetch(numbers(), depth=2)
    assert next(reader) == 0
    until = time.monotonic() + 10
    while len(made) < 4 and time.monotonic() < until:
        time.sleep(0.01)
    assert made == [0, 1, 2, 3]  # one taken, two waiting, one that waits to be put
    reader.close()
    assert not made[4:]


def test_sound_is_scaled_as_the_node_scales_it(encoders):
    sound = np.random.default_rng(0).integers(-32768, 32767, (4, 400)).astype(np.int16)
    np.testing.assert_array_equal(encoders["audio"].encode(sound), encoders["audio"].encode(as_input(sound)))
    np.testing.assert_array_equal(as_input(sound), sound / np.float32(32768))
