"""Encoders from the shelf: what the graph, its metadata or the bundle beside it say, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from aecf_ros.core.bundle import sha256
from aecf_ros.training.features.onnx_encoder import EncoderError, open_encoder
from test.conftest import RATE_HZ, SIDE, WINDOW_S, write_audio_encoder, write_image_encoder


def _noted(path: Path, **notes: str) -> Path:
    model = onnx.load(path)
    helper.set_model_props(model, {f"aecf.{key}": value for key, value in notes.items()})
    onnx.save(model, path)
    return path


def _graph(
    path: Path,
    kind: int,
    shape: list,
    dim: int = 3,
    name: str = "image",
    output: str = "embedding",
    axes: tuple[int, ...] = (1, 2),
) -> Path:
    cast = helper.make_node("Cast", [name], ["x"], to=TensorProto.FLOAT)
    nodes = [cast, helper.make_node("ReduceMean", ["x"], [output], axes=list(axes), keepdims=0)]
    inputs = [helper.make_tensor_value_info(name, kind, shape)]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, [shape[0], dim])]
    onnx.save(
        helper.make_model(
            helper.make_graph(nodes, "g", inputs, outputs), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
        ),
        path,
    )
    return path


def test_an_image_encoder_tells_its_size_and_width(tmp_path):
    write_image_encoder(tmp_path / "e.onnx", height=6, width=10)
    encoder = open_encoder(tmp_path / "e.onnx", "front")
    assert (encoder.spec.name, encoder.spec.kind, encoder.spec.height, encoder.spec.width, encoder.embedding_dim) == (
        "front",
        "image",
        6,
        10,
        3,
    )
    assert encoder.digest == sha256(tmp_path / "e.onnx")
    red = np.zeros((5, 6, 10, 3), np.uint8)
    red[..., 0] = 255
    np.testing.assert_allclose(encoder.encode(red), [[1, 0, 0]] * 5)


def test_an_encoder_with_a_fixed_batch_of_one_takes_samples_one_after_the_other(tmp_path):
    fixed, free = (
        open_encoder(_graph(tmp_path / f"{size}.onnx", TensorProto.UINT8, [size, 4, 4, 3]), "camera")
        for size in (1, "batch")
    )
    pictures = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), np.uint8)
    np.testing.assert_allclose(fixed.encode(pictures), free.encode(pictures))
    assert fixed.encode(pictures[:0]).shape == (0, 3)


def test_rate_and_window_come_from_the_metadata_or_from_the_bundle_beside_it(tmp_path, tiny_bundle):
    write_audio_encoder(tmp_path / "e.onnx")
    noted = open_encoder(
        _noted(tmp_path / "e.onnx", rate_hz=str(RATE_HZ), window_s=str(WINDOW_S), source="a shelf", license="MIT"),
        "audio",
    )
    beside = open_encoder(tiny_bundle / "audio_encoder.onnx", "audio")
    assert noted.spec == beside.spec and noted.spec.rate_hz == RATE_HZ
    assert (noted.credits, beside.credits) == ("a shelf, MIT", "")


def test_what_cannot_be_used_is_said_in_one_line(tmp_path):
    write_audio_encoder(tmp_path / "mute.onnx")
    write_audio_encoder(tmp_path / "rate.onnx")
    (tmp_path / "text.onnx").write_text("not a graph")
    cases = {
        tmp_path / "absent.onnx": "no such file",
        tmp_path / "text.onnx": "not an ONNX graph that runs here",
        tmp_path / "mute.onnx": "says aecf.rate_hz and aecf.window_s; wrap it",
        _noted(
            tmp_path / "rate.onnx", rate_hz="16000", window_s="1.0"
        ): r"takes \[400\], and 1 s at 16000 Hz is \[16000\]",
        _graph(
            tmp_path / "name.onnx", TensorProto.UINT8, ["batch", 4, 4, 3], name="pixel_values"
        ): "expected one input of image, samples, vector and the output embedding, got pixel_values and embedding",
        _graph(
            tmp_path / "out.onnx", TensorProto.UINT8, ["batch", 4, 4, 3], output="features"
        ): "got image and features",
        _graph(
            tmp_path / "type.onnx", TensorProto.FLOAT, ["batch", 4, 4, 3]
        ): r"expected tensor\(uint8\).* got tensor\(float\)",
        _graph(tmp_path / "free.onnx", TensorProto.UINT8, ["batch", "height", 4, 3]): "sizes fixed",
        _graph(tmp_path / "one.onnx", TensorProto.UINT8, [4, 4, 4, 3]): "does not take 2 samples at once",
        _graph(tmp_path / "shape.onnx", TensorProto.UINT8, ["batch", 4, 4, 3], axes=(1,)): r"gives float32 \(2, 4, 3\)",
    }
    for path, words in cases.items():
        with pytest.raises(EncoderError, match=words) as caught:
            open_encoder(path, "camera")
        assert "\n" not in str(caught.value) and path.name in str(caught.value)


def test_weights_in_another_file_are_refused_because_a_bundle_would_lack_them(tmp_path):
    write_audio_encoder(tmp_path / "e.onnx")
    model = onnx.load(_noted(tmp_path / "e.onnx", rate_hz=str(RATE_HZ), window_s=str(WINDOW_S)))
    onnx.save(model, tmp_path / "split.onnx", save_as_external_data=True, size_threshold=0, location="weights.bin")
    with pytest.raises(EncoderError, match="keeps its weights in another file; save it as one file"):
        open_encoder(tmp_path / "split.onnx", "audio")


def test_a_bundle_that_is_broken_is_named_rather_than_guessed_from(tmp_path, tiny_bundle):
    shutil.copy(tiny_bundle / "audio_encoder.onnx", tmp_path)
    (tmp_path / "bundle.yaml").write_text("format_version: 1")
    with pytest.raises(EncoderError, match="bundle.yaml"):
        open_encoder(tmp_path / "audio_encoder.onnx", "audio")


def test_an_embedding_that_is_not_finite_stops_the_run_by_name(tmp_path):
    write_image_encoder(tmp_path / "e.onnx")
    model = onnx.load(tmp_path / "e.onnx")
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array(0, np.float32), "full"))
    onnx.save(model, tmp_path / "e.onnx")
    with pytest.raises(EncoderError, match="not finite; correct the encoder, or the data of camera"):
        open_encoder(tmp_path / "e.onnx", "camera").encode(np.ones((2, SIDE, SIDE, 3), np.uint8))
