"""Vectors that somebody else computed: from a table of text embeddings beside a camera to a bundle that answers."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import parquet
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from aecf_ros.core.bundle import load_bundle
from aecf_ros.core.types import NANOSECONDS, RawImage, StreamState
from aecf_ros.modalities.image.spec import ImageSpec
from aecf_ros.modalities.vector.messages import RawVector
from aecf_ros.modalities.vector.spec import VectorEntry, VectorSpec
from aecf_ros.runtime.backends import make_backend
from aecf_ros.runtime.pipeline import Pipeline
from aecf_ros.training.config import ConfigError, DataConfig
from aecf_ros.training.config_loader import load_config
from aecf_ros.training.data.corpus import Corpus
from aecf_ros.training.data.npy_dataset import DatasetError
from aecf_ros.training.data.table import table_corpus
from aecf_ros.training.features.corruption import Corruptions, corrupt, corruptions_of
from aecf_ros.training.features.standardizer import standardizing_encoder
from aecf_ros.training.inspection.page import write_page
from aecf_ros.training.inspection.summary import inspect_corpus
from aecf_ros.training.run.preflight import configured_specs
from aecf_ros.training.run.train import train
from test.conftest import LABELS, SIDE, write_image_encoder
from test.training.files import write_rows
from test.training.recorded import draw_color
from test.training.test_recorded import QUICK

DIM = 6
CAMERA = ImageSpec(name="camera", kind="image", height=SIDE, width=SIDE)
TEXT = VectorSpec(name="text", kind="vector", dim=DIM)
SAYINGS = {
    "red": [
        "stop before the crossing",
        "the kettle is hot",
        "danger, keep away",
        "stop now, it is hot",
        "danger at the crossing",
    ],
    "green": [
        "go on along the grass",
        "the way is free, walk on",
        "go on, the trees are far",
        "walk along the grass",
        "the way by the trees is free",
    ],
    "blue": [
        "there is water ahead",
        "it rains from the sky",
        "water in the pool",
        "rain over the pool",
        "the sky is over water",
    ],
}
START = ["", "please ", "robot, ", "listen: ", "I think ", "now ", "well, "]


def said(rng: np.random.Generator, label: str) -> str:
    """A short text about a label; one word in ten about another."""
    words = (rng.choice(START) + rng.choice(SAYINGS[label])).split()
    others = " ".join(of for name in LABELS if name != label for of in SAYINGS[name]).split()
    return " ".join(rng.choice(others) if rng.random() < 0.1 else word for word in words)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A table of 600 rows in six recordings, a picture and an embedded text each: TF-IDF of words, 6 singular
    vectors, times 40.
    """
    folder = tmp_path_factory.mktemp("told")
    rng = np.random.default_rng(0)
    labels = [LABELS[i % 3] for i in range(600)]
    texts = [said(rng, label) for label in labels]
    embedded = 40.0 * TruncatedSVD(DIM, random_state=0).fit_transform(TfidfVectorizer().fit_transform(texts)).astype(
        np.float32
    )
    rows = []
    for i, label in enumerate(labels):
        cv2.imwrite(str(folder / f"{i}.png"), draw_color(LABELS.index(label), np.random.default_rng(i))[..., ::-1])
        np.save(folder / f"{i}.npy", embedded[i])
        rows.append([f"{i}.png" if i % 11 else "", f"{i}.npy" if i % 7 else "", label, f"day{i // 100}"])
    write_rows(folder / "table.csv", "image,text,label,recording", rows)
    np.save(folder / "all.npy", embedded)
    write_image_encoder(folder / "camera.onnx")
    return folder


@pytest.fixture(scope="module")
def corpus(folder) -> Corpus:
    return table_corpus(folder / "table.csv", (CAMERA, TEXT), DataConfig(labels=LABELS))


def samples_of(corpus: Corpus, part: str) -> np.ndarray:
    return np.concatenate([batch.inputs["text"] for unit in corpus.parts[part] for batch in unit.batches(64)])


@pytest.fixture(scope="module")
def trained(folder, corpus, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "told"
    config = load_config(
        None, [*QUICK, f"encoders.camera.onnx={folder / 'camera.onnx'}", f"encoders.text.vector={DIM}"]
    )
    assert configured_specs(config) == [CAMERA, TEXT]
    train(corpus, out, config, run=out.parent / "run", show_progress=False)
    return out


def answers(trained: Path, folder: Path, rows: range, camera: bool, text: bool) -> list[str]:
    """What the pipeline says of rows of the table, a message of each sensor every 100 ms."""
    bundle = load_bundle(trained)
    pipeline = Pipeline(bundle.manifest, make_backend("onnxruntime", bundle))
    embedded, found = np.load(folder / "all.npy"), []
    for k, i in enumerate(rows):
        now_ns = (k + 1) * NANOSECONDS // 10
        if camera:
            image = draw_color(i % 3, np.random.default_rng(10_000 + i))
            pipeline.observe("camera", RawImage(now_ns, now_ns, "rgb8", SIDE, SIDE, 3 * SIDE, image.tobytes()), now_ns)
        if text:
            pipeline.observe("text", RawVector(now_ns, now_ns, embedded[i]), now_ns)
        prediction = pipeline.step(now_ns)
        assert [m.used for m in prediction.modalities] == [camera, text]
        found.append(prediction.label)
    return found


def test_a_table_of_texts_and_pictures_becomes_a_bundle_of_which_each_subset_answers(trained, folder) -> None:
    manifest = load_bundle(trained).manifest
    assert isinstance(manifest.modalities[1], VectorEntry) and (
        manifest.modalities[1].dim,
        manifest.modalities[1].embedding_dim,
    ) == (DIM, DIM)
    assert all(of["accuracy"] > 0.6 for of in manifest.metrics.values()) and set(manifest.metrics) == {
        "camera",
        "text",
        "camera+text",
    }
    assert f"`text` (vector): one sample is [{DIM}] numbers, standardized" in (trained / "MODEL_CARD.md").read_text()
    rows = range(300, 420)
    due = [LABELS[i % 3] for i in rows]
    for camera, text in ((True, False), (False, True), (True, True)):
        share = np.mean([a == b for a, b in zip(answers(trained, folder, rows, camera, text), due, strict=True)])
        assert share > 0.6, (camera, text, share)


def test_a_stream_of_vectors_is_watched_for_size_numbers_repetition_and_silence(trained, folder) -> None:
    bundle = load_bundle(trained)
    pipeline = Pipeline(bundle.manifest, make_backend("onnxruntime", bundle))
    embedded, now_ns = np.load(folder / "all.npy"), 0

    def state(vectors) -> tuple[StreamState, str]:
        nonlocal now_ns
        for vector in vectors:
            now_ns += NANOSECONDS // 10
            pipeline.observe("text", RawVector(now_ns, now_ns, vector), now_ns)
        status = pipeline.statuses(now_ns)[1]
        return status.state, status.reason

    assert state(embedded[:10]) == (StreamState.OK, "")
    broken = np.where(np.arange(DIM) == 2, np.nan, embedded[:4])
    assert state(broken) == (StreamState.REJECTED, f"1 of {DIM} numbers are NaN or infinite; check what computes them")
    assert state(embedded[10:20])[0] is StreamState.OK
    assert state(embedded[20:24, :4]) == (
        StreamState.REJECTED,
        f"a vector of 4 numbers where {DIM} are due; check the publisher and the model",
    )
    assert state(embedded[24:34])[0] is StreamState.OK
    frozen, reason = state([embedded[40]] * 15)
    assert frozen is StreamState.FROZEN and reason.startswith("the same vector for 1.")
    assert state(embedded[50:60])[0] is StreamState.OK
    now_ns += 7 * NANOSECONDS // 10
    assert state([])[0] is StreamState.STALE
    assert not pipeline.step(now_ns).modalities[1].used
    seen = pipeline.observe("text", RawImage(now_ns, now_ns, "rgb8", 1, 1, 3, b"abc"), now_ns)
    assert seen.rejected == "got RawImage on a stream of vectors; check the topic's remapping"


def test_a_huge_number_does_not_make_an_answer_that_is_none(trained, folder) -> None:
    bundle = load_bundle(trained)
    pipeline = Pipeline(bundle.manifest, make_backend("onnxruntime", bundle))
    pipeline.observe("text", RawVector(1, 1, np.array([3e38, -3e38, 0, 0, 0, 0], np.float32)), 1)
    prediction = pipeline.step(1)
    assert prediction.modalities[1].used and np.isfinite(prediction.probabilities).all()


def test_a_list_in_parquet_or_csv_is_what_the_file_is(folder, corpus, tmp_path) -> None:
    embedded = np.load(folder / "all.npy")
    rows = [line.split(",") for line in (folder / "table.csv").read_text().splitlines()[1:]]
    columns = {name: [row[c] and str(folder / row[c]) if name == "image" else row[c] or None for row in rows]
               for c, name in ((0, "image"), (2, "label"), (3, "recording"))}  # fmt: skip
    lists = [embedded[i].tolist() if row[1] else None for i, row in enumerate(rows)]
    parquet.write_table(pyarrow.table(columns | {"text": lists}), tmp_path / "t.parquet")
    texts = [
        [str(folder / row[0]) if row[0] else "", " ".join(map(repr, of)) if of else "", *row[2:]]
        for row, of in zip(rows, lists, strict=True)
    ]
    write_rows(tmp_path / "t.csv", "image,text,label,recording", texts)
    for name in ("t.parquet", "t.csv"):
        same = table_corpus(tmp_path / name, (CAMERA, TEXT), DataConfig(labels=LABELS))
        assert [len(u.labels) for u in same.parts["test"]] == [len(u.labels) for u in corpus.parts["test"]]
        np.testing.assert_array_equal(samples_of(same, "test"), samples_of(corpus, "test"))
    found = table_corpus(tmp_path / "t.parquet", None, DataConfig(labels=LABELS)).modalities
    assert [(m.name, m.kind) for m in found] == [("image", "image"), ("text", "vector")] and found[1].dim == DIM


def test_what_is_no_such_vector_is_refused_in_a_line(folder, tmp_path) -> None:
    wrong = VectorSpec(name="text", kind="vector", dim=9)
    with pytest.raises(
        DatasetError,
        match="none of the first files of 'text' can be read; line 3: 1.npy: a vector of 6 numbers where 9 are due",
    ):
        table_corpus(folder / "table.csv", (CAMERA, wrong), DataConfig(labels=LABELS))
    write_rows(tmp_path / "t.csv", "text,label", [["hello there", "red"]])
    with pytest.raises(
        DatasetError, match="line 2: 'hello there' for 'text' is neither a .npy file nor a list of numbers"
    ):
        table_corpus(tmp_path / "t.csv", (TEXT,), DataConfig())
    np.save(tmp_path / "a.npy", np.array(["text"]))
    write_rows(tmp_path / "t.csv", "text,label", [["a.npy", "red"]])
    with pytest.raises(DatasetError, match="line 2: a.npy: not a NumPy array of numbers"):
        table_corpus(tmp_path / "t.csv", (TEXT,), DataConfig())


def test_a_configuration_that_says_another_length_or_kind_is_refused(corpus, folder, tmp_path) -> None:
    for override, said in (("encoders.text.vector=7", "encoders.text.vector: the data has 6 numbers"),
                           ("encoders.camera.vector=7", "encoders.camera.vector: it is image there")):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            train(
                corpus,
                tmp_path / "x",
                load_config(None, [f"encoders.camera.onnx={folder / 'camera.onnx'}", override][-2:]),
                show_progress=False,
            )


def test_numbers_are_standardized_by_the_part_heads_are_trained_on(corpus, tmp_path) -> None:
    encoder = standardizing_encoder(TEXT, corpus.parts["fusion"], tmp_path)
    samples = samples_of(corpus, "fusion")
    np.testing.assert_allclose(encoder.encode(samples), (samples - samples.mean(0)) / samples.std(0), atol=1e-4)
    assert (
        standardizing_encoder(TEXT, corpus.parts["fusion"], tmp_path).digest == encoder.digest
        and len(list(tmp_path.iterdir())) == 1
    )
    assert standardizing_encoder(TEXT, corpus.parts["test"], tmp_path).digest != encoder.digest


@pytest.mark.parametrize("kind", range(len(corruptions_of("vector"))))
def test_corruptions_of_vectors_grow_with_severity_and_can_be_repeated(kind: int) -> None:
    vectors = torch.randn((400, 16), generator=torch.Generator().manual_seed(0)) * 5 + 2

    def corrupted(severity: float, seed: int = 0) -> torch.Tensor:
        field = Corruptions("vector", np.full(400, kind), np.full(400, severity, np.float32))
        return corrupt(vectors, field, torch.Generator().manual_seed(seed))

    mild, bad = corrupted(1.0), corrupted(5.0)
    assert mild.shape == vectors.shape and mild.dtype == torch.float32 and torch.isfinite(bad).all()
    assert 0 < (mild - vectors).square().mean() < (bad - vectors).square().mean()
    assert torch.equal(corrupted(3.0), corrupted(3.0)) and not torch.equal(corrupted(3.0), vectors)


def test_a_page_shows_vectors_as_bars(corpus, tmp_path) -> None:
    page = write_page(inspect_corpus(corpus), tmp_path).read_text()
    assert f"text ({DIM} numbers)" in page and f": {DIM} numbers, " in page and "<rect x=" in page
