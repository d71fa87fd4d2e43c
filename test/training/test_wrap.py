"""`aecf wrap-encoder`: pictures, joining with graphs of any making, outputs, references and refusals."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from aecf_ros.commands.wrap_encoder import wrap_command
from aecf_ros.training.export.head_graph import export_onnx
from aecf_ros.training.wrap import sessions as wrap_parts
from aecf_ros.training.wrap.spec import WrapError
from aecf_ros.training.wrap.wrap import wrap
from test.training.wrap_graphs import (
    FLOAT,
    HALF,
    IMAGE,
    describe,
    passing_encoder,
    picture_encoder,
    picture_reference,
    save,
)


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrap_parts, "RATE_SECONDS", 0.0)


def pictures(count: int = 3, height: int = 12, width: int = 16) -> np.ndarray:
    """Noise with a different mean in each channel."""
    rng = np.random.default_rng(5)
    return np.clip(rng.normal([60, 120, 200], 40, (count, height, width, 3)), 0, 255).astype(np.uint8)


def run(path: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["embedding"], {session.get_inputs()[0].name: x})[0]


def wrapped(folder: Path, **fields: object) -> Path:
    wrap(describe(folder, **(IMAGE | fields)), folder / "wrapped.onnx")
    return folder / "wrapped.onnx"


@pytest.mark.parametrize("opset", [11, 12, 13, 15, 17, 18, 20, 21, 23])
def test_pixels_go_in_and_the_owners_embedding_comes_out(tmp_path: Path, opset: int) -> None:
    picture_encoder(tmp_path / "encoder.onnx", opset=opset, ir=6 if opset < 15 else 8)
    path = wrapped(tmp_path, source="here", license="CC0-1.0")
    np.testing.assert_allclose(
        run(path, pictures()), picture_reference(pictures(), IMAGE["mean"], IMAGE["std"]), atol=1e-5
    )
    model = onnx.load(path)
    assert {i.domain: i.version for i in model.opset_import} == {"": opset}
    assert {p.key: p.value for p in model.metadata_props} == {
        "aecf.kind": "image",
        "aecf.source": "here",
        "aecf.license": "CC0-1.0",
    }
    (entry,) = onnxruntime.InferenceSession(str(path)).get_inputs()
    assert (entry.name, entry.type, entry.shape) == ("image", "tensor(uint8)", ["batch", 12, 16, 3])
    (made,) = onnxruntime.InferenceSession(str(path)).get_outputs()
    assert (made.name, made.type, made.shape) == ("embedding", "tensor(float)", ["batch", 8])


@settings(max_examples=40, deadline=None)
@given(
    color=st.sampled_from(["rgb", "bgr"]),
    scale=st.sampled_from([255.0, 1.0, 127.5]),
    mean=st.tuples(*[st.floats(-2, 2)] * 3),
    std=st.tuples(*[st.floats(0.1, 3)] * 3),
)
def test_color_scale_mean_and_deviation_are_those_of_the_yaml(
    tmp_path_factory: pytest.TempPathFactory, color: str, scale: float, mean: tuple, std: tuple
) -> None:
    folder = tmp_path_factory.mktemp("encoder")
    picture_encoder(folder / "encoder.onnx")
    path = wrapped(folder, color=color, scale=scale, mean=list(mean), std=list(std))
    due = picture_reference(pictures(), list(mean), list(std), scale, color)
    np.testing.assert_allclose(run(path, pictures()), due, rtol=1e-4, atol=1e-4)


def test_an_encoder_that_takes_channels_last_gets_them_last(tmp_path: Path) -> None:
    passing_encoder(tmp_path / "encoder.onnx", ("n", 12, 16, 3))
    found = run(wrapped(tmp_path, color="bgr"), pictures())
    due = (pictures()[..., ::-1] / 255 - IMAGE["mean"]) / IMAGE["std"]
    np.testing.assert_allclose(found, due.reshape(3, -1), atol=1e-5)


def test_a_batch_of_one_stays_one(tmp_path: Path) -> None:
    picture_encoder(tmp_path / "encoder.onnx", (1, 3, 12, 16))
    path = tmp_path / "wrapped.onnx"
    done = CliRunner().invoke(wrap_command, [str(describe(tmp_path, **IMAGE)), "--out", str(path)])
    assert "image uint8 [1, 12, 16, 3] RGB" in done.output and "takes one sample at a time" in done.output
    assert onnxruntime.InferenceSession(str(path)).get_inputs()[0].shape == [1, 12, 16, 3]
    np.testing.assert_allclose(
        run(path, pictures(1)), picture_reference(pictures(1), IMAGE["mean"], IMAGE["std"]), atol=1e-5
    )


def test_open_height_and_width_are_fixed_by_the_yaml(tmp_path: Path) -> None:
    picture_encoder(tmp_path / "encoder.onnx", (None, 3, None, None))
    path = wrapped(tmp_path, height=12, width=16)
    assert onnxruntime.InferenceSession(str(path)).get_inputs()[0].shape == ["batch", 12, 16, 3]
    np.testing.assert_allclose(
        run(path, pictures()), picture_reference(pictures(), IMAGE["mean"], IMAGE["std"]), atol=1e-5
    )


def test_a_float16_encoder_is_fed_float16_and_gives_float32(tmp_path: Path) -> None:
    picture_encoder(tmp_path / "encoder.onnx", dtype=HALF)
    found = run(wrapped(tmp_path), pictures())
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, picture_reference(pictures(), IMAGE["mean"], IMAGE["std"]), rtol=0.01, atol=0.01)


def test_an_encoder_of_uint8_is_given_the_pixels(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["f"], to=FLOAT), helper.make_node("Flatten", ["f"], ["y"])]
    save(tmp_path / "encoder.onnx", nodes, [("x", TensorProto.UINT8, ["n", 3, 12, 16])], [("y", FLOAT, ["n", 576])], {})
    plain = {"scale": 1, "mean": [0, 0, 0], "std": [1, 1, 1]}
    np.testing.assert_array_equal(
        run(wrapped(tmp_path, **plain), pictures()), pictures().transpose(0, 3, 1, 2).reshape(3, -1)
    )
    with pytest.raises(WrapError, match="is uint8, which cannot hold normalized numbers; set scale: 1"):
        wrapped(tmp_path)


def test_an_encoder_of_torch_with_its_weights_beside_it_becomes_one_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3, 2),
        torch.nn.GELU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(6, 5),
    ).eval()
    export_onnx(network, [torch.zeros(2, 3, 12, 16)], ["image"], ["embedding"], tmp_path / "inside.onnx")
    onnx.save(
        onnx.load(tmp_path / "inside.onnx"),
        tmp_path / "encoder.onnx",
        save_as_external_data=True,
        location="encoder.onnx.data",
        size_threshold=100,
    )
    noted = onnx.load(tmp_path / "encoder.onnx", load_external_data=False)
    noted.graph.node[0].metadata_props.add(key="stack_trace", value="/home/somebody/model.py")
    onnx.save(noted, tmp_path / "encoder.onnx")
    path = wrapped(tmp_path)
    assert b"/home/somebody" not in path.read_bytes()
    (tmp_path / "encoder.onnx.data").unlink()
    x = (torch.from_numpy(pictures()) / 255 - torch.tensor(IMAGE["mean"])) / torch.tensor(IMAGE["std"])
    with torch.inference_mode():
        due = network(x.permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(run(path, pictures()), due, atol=1e-5)
    (tmp_path / "wrapped.onnx").rename(tmp_path / "last.onnx")
    with pytest.raises(WrapError, match=r"its weights are in 'encoder.onnx.data', which is missing; put it beside"):
        wrapped(tmp_path)
    assert not (tmp_path / "wrapped.onnx").exists()


def test_an_encoder_with_branches_other_outputs_and_old_weights_is_joined(tmp_path: Path) -> None:
    branch = [
        helper.make_graph(
            [helper.make_node("Mul", ["p", "two"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, FLOAT, None)],
        )
        for name in ("then", "else")
    ]
    nodes = [
        helper.make_node("GlobalAveragePool", ["embedding"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["p"]),
        helper.make_node("ReduceSum", ["two"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["yes"]),
        helper.make_node("If", ["yes"], ["image"], then_branch=branch[0], else_branch=branch[1]),
        helper.make_node("MatMul", ["p", "classes"], ["logits"]),
    ]
    weights = {
        "two": np.full(3, 2, np.float32),
        "zero": np.array(0, np.float32),
        "classes": np.ones((3, 1000), np.float32),
    }
    made = [("image", FLOAT, ["n", 3]), ("logits", FLOAT, ["n", 1000])]
    file = save(tmp_path / "encoder.onnx", nodes, [("embedding", FLOAT, ["n", 3, 12, 16])], made, weights, opset=11)
    old = onnx.load(file)  # before IR 4 weights were inputs too
    old.graph.input.extend(helper.make_tensor_value_info(n, FLOAT, w.shape) for n, w in weights.items())
    old.ir_version = 3
    onnx.save(old, file)
    path = wrapped(tmp_path, output="image")
    due = 2 * ((pictures() / 255 - IMAGE["mean"]) / IMAGE["std"]).mean(axis=(1, 2))
    np.testing.assert_allclose(run(path, pictures()), due, atol=1e-5)
    assert [o.name for o in onnx.load(path).graph.output] == ["embedding"]
    assert not [w.name for w in onnx.load(path).graph.initializer if "classes" in w.name]
    with pytest.raises(WrapError, match="has the outputs image, logits; name one as 'output:' in the YAML"):
        wrapped(tmp_path)
    with pytest.raises(WrapError, match="has no output 'imag'; it has image, logits"):
        wrapped(tmp_path, output="imag")


@pytest.mark.parametrize(("pool", "take"), [("mean", lambda x: x.mean(axis=1)), ("first", lambda x: x[:, 0])])
def test_tokens_are_pooled_as_the_yaml_says(tmp_path: Path, pool: str, take) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    shape = {"shape": np.array([0, -1, 24], np.int64)}
    save(tmp_path / "encoder.onnx", nodes, [("x", FLOAT, ["n", 3, 12, 16])], [("y", FLOAT, ["n", 24, 24])], shape)
    x = ((pictures() / 255 - IMAGE["mean"]) / IMAGE["std"]).transpose(0, 3, 1, 2).reshape(3, 24, 24)
    np.testing.assert_allclose(run(wrapped(tmp_path, pool=pool), pictures()), take(x), atol=1e-5)
    for wrong in ("none", "flatten"):
        with pytest.raises(
            WrapError,
            match=r"output 'y' is \[1, 24, 24\], .*; set pool: mean or pool: first, or export the pooled features",
        ):
            wrapped(tmp_path, pool=wrong)


def test_a_map_is_pooled_over_its_places(tmp_path: Path) -> None:
    picture_encoder(tmp_path / "encoder.onnx", pooled=False)
    due = picture_reference(pictures(), IMAGE["mean"], IMAGE["std"])
    np.testing.assert_allclose(run(wrapped(tmp_path, pool="mean"), pictures()), due, atol=1e-5)
    with pytest.raises(WrapError, match=r"is \[1, 8, 5, 7\], from which pool: none makes no vector; set pool: mean"):
        wrapped(tmp_path)
    passing = [helper.make_node("Identity", ["x"], ["y"])]
    save(tmp_path / "encoder.onnx", passing, [("x", FLOAT, ["n", 12, 16, 3])], [("y", FLOAT, ["n", 12, 16, 3])], {})
    last = ((pictures() / 255 - IMAGE["mean"]) / IMAGE["std"]).mean(axis=(1, 2))
    np.testing.assert_allclose(run(wrapped(tmp_path, pool="mean"), pictures()), last, atol=1e-5)


def test_a_map_of_one_place_is_flattened_where_the_yaml_says(tmp_path: Path) -> None:
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["y"])]
    save(tmp_path / "encoder.onnx", nodes, [("x", FLOAT, ["n", 3, 12, 16])], [("y", FLOAT, ["n", 3, 1, 1])], {})
    due = ((pictures() / 255 - IMAGE["mean"]) / IMAGE["std"]).mean(axis=(1, 2))
    np.testing.assert_allclose(run(wrapped(tmp_path, pool="flatten"), pictures()), due, atol=1e-5)
    with pytest.raises(WrapError, match=r"is \[1, 3, 1, 1\], from which pool: none makes no vector; set pool: flatten"):
        wrapped(tmp_path)
    with pytest.raises(WrapError, match="from which pool: first makes no vector"):
        wrapped(tmp_path, pool="first")


def test_an_encoder_that_mixes_its_batch_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Transpose", ["f"], ["t"], perm=[1, 0]),
        helper.make_node("Softmax", ["t"], ["s"], axis=1),
        helper.make_node("Transpose", ["s"], ["y"], perm=[1, 0]),
    ]
    save(tmp_path / "encoder.onnx", nodes, [("x", FLOAT, ["n", 3, 12, 16])], [("y", FLOAT, ["n", 576])], {})
    with pytest.raises(
        WrapError,
        match=r"on a batch of 3 the joined graph is .* off its parts; export it with a fixed batch of 1",
    ):
        wrapped(tmp_path)


def other(changes: dict) -> np.ndarray:
    """What the owner of the picture encoder made of one picture, with settings of his own."""
    mine = {"mean": IMAGE["mean"], "std": IMAGE["std"]} | changes
    return picture_reference(pictures(2), **mine)


@pytest.mark.parametrize(
    ("truth", "says"),
    [
        ({"color": "bgr"}, "with color: bgr it agrees to"),
        ({"scale": 1.0}, "with scale: 1 it agrees to"),
        ({"mean": [0.5] * 3, "std": [0.5] * 3}, "with mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5] it agrees to"),
        ({"color": "bgr", "scale": 1.0}, "with color: bgr, scale: 1 it agrees to"),
        (
            {"color": "bgr", "mean": IMAGE["mean"][::-1], "std": IMAGE["std"][::-1]},
            "with color: bgr, mean: [0.406, 0.456, 0.485], std: [0.225, 0.224, 0.229] it agrees to",
        ),
        ({"mean": [0.3] * 3}, "other settings agrees, nearest is"),
    ],
)
def test_the_reference_tells_which_line_of_the_yaml_is_wrong(tmp_path: Path, truth: dict, says: str) -> None:
    picture_encoder(tmp_path / "encoder.onnx")
    np.savez(tmp_path / "ref.npz", input=pictures(2), output=other(truth))
    done = CliRunner().invoke(
        wrap_command,
        [str(describe(tmp_path, **IMAGE)), "--out", str(tmp_path / "o.onnx"), "--reference", str(tmp_path / "ref.npz")],
    )
    assert done.exit_code == 1 and says in done.output and len(done.output.strip().splitlines()) == 1
    assert "ref.npz: the wrapped encoder is " in done.output and not (tmp_path / "o.onnx").exists()


def test_one_sample_that_does_not_match_is_enough(tmp_path: Path) -> None:
    picture_encoder(tmp_path / "encoder.onnx")
    np.savez(tmp_path / "ref.npz", input=pictures(2), output=other({}) * [[1.0], [1.01]])
    with pytest.raises(WrapError, match=r"the wrapped encoder is 0.0099 off \(relative; up to 0.001 is rounding\)"):
        wrap(describe(tmp_path, **IMAGE), tmp_path / "o.onnx", tmp_path / "ref.npz")
    assert wrap(
        describe(tmp_path, **IMAGE), tmp_path / "o.onnx", tmp_path / "ref.npz", 0.02
    ).deviation == pytest.approx(0.0099, rel=0.01)


def test_the_layout_is_among_what_the_reference_tells(tmp_path: Path) -> None:
    passing_encoder(tmp_path / "encoder.onnx", (None, None, None, None))
    x = (pictures(1) / 255 - IMAGE["mean"]) / IMAGE["std"]
    np.savez(tmp_path / "ref.npz", input=pictures(1)[0], output=x.ravel())
    spec = describe(tmp_path, **IMAGE, height=12, width=16, layout="nchw")
    with pytest.raises(WrapError, match="with layout: nhwc it agrees to"):
        wrap(spec, tmp_path / "o.onnx", tmp_path / "ref.npz")


def test_the_command_says_what_was_checked_and_what_was_not(tmp_path: Path) -> None:
    picture_encoder(tmp_path / "encoder.onnx")
    np.savez(tmp_path / "ref.npz", input=pictures(2), output=other({}))
    command = [str(describe(tmp_path, **IMAGE)), "--out", str(tmp_path / "sub" / "o.onnx")]
    done = CliRunner().invoke(wrap_command, [*command, "--reference", str(tmp_path / "ref.npz")])
    assert done.exit_code == 0 and "reference  2 samples agree to" in done.output and "samples/s" in done.output
    done = CliRunner().invoke(wrap_command, command)
    assert done.exit_code == 0 and "reference  none: nothing was checked" in done.output
    assert "image uint8 [batch, 12, 16, 3] RGB" in done.output and "embedding float32 [batch, 8]" in done.output


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"input": pictures(2)}, "not an .npz with the arrays input and output"),
        (
            {"input": pictures(2, 10, 10), "output": np.ones((2, 8))},
            "expected uint8 RGB [K, 12, 16, 3] as input, got uint8 [2, 10, 10, 3]",
        ),
        (
            {"input": pictures(2) / 255, "output": np.ones((2, 8))},
            "expected uint8 RGB [K, 12, 16, 3] as input, got float64 [2, 12, 16, 3]",
        ),
        (
            {"input": pictures(2), "output": np.ones((1, 8))},
            "expected 2 embeddings of 8 numbers as output, got float64 [1, 8]",
        ),
        ({"input": pictures(2), "output": np.full((2, 8), np.nan)}, "output is not finite"),
    ],
)
def test_a_reference_that_cannot_be_compared_is_refused(tmp_path: Path, arrays: dict, says: str) -> None:
    picture_encoder(tmp_path / "encoder.onnx")
    np.savez(tmp_path / "ref.npz", **arrays)
    with pytest.raises(WrapError) as error:
        wrap(describe(tmp_path, **IMAGE), tmp_path / "o.onnx", tmp_path / "ref.npz")
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_waveform_beyond_full_scale_is_refused_as_reference(tmp_path: Path) -> None:
    passing_encoder(tmp_path / "encoder.onnx", ("n", 800))
    spec = describe(tmp_path, kind="audio", rate_hz=8000, window_s=0.1)
    sound = np.linspace(-1, 1, 800, dtype=np.float32)
    np.savez(tmp_path / "loud.npz", input=sound * 32767, output=sound)
    with pytest.raises(WrapError, match=r"input goes up to 32767; give samples in \[-1, 1\], or int16"):
        wrap(spec, tmp_path / "o.onnx", tmp_path / "loud.npz")
    np.savez(tmp_path / "integers.npz", input=(sound * 32767).astype(np.int16), output=sound)
    assert wrap(spec, tmp_path / "o.onnx", tmp_path / "integers.npz").deviation < 1e-4
    np.savez(tmp_path / "scaled.npz", input=sound, output=sound * 32768)
    with pytest.raises(WrapError, match="with full_scale: 32768 it agrees to"):
        wrap(spec, tmp_path / "o.onnx", tmp_path / "scaled.npz")


def two_inputs(path: Path) -> None:
    given = [("pixel_values", FLOAT, ["n", 3, 12, 16]), ("input_ids", TensorProto.INT64, ["n", 7])]
    save(path, [helper.make_node("Flatten", ["pixel_values"], ["y"])], given, [("y", FLOAT, ["n", 576])], {})


def unknown_operator(path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Fancy", ["x"], ["y"], domain="org.nobody")],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, ["n", 3, 12, 16])],
        [helper.make_tensor_value_info("y", FLOAT, ["n", 8])],
    )
    onnx.save(
        helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("org.nobody", 1)], ir_version=8
        ),
        path,
    )


def of_integers(path: Path) -> None:
    save(
        path,
        [helper.make_node("Flatten", ["x"], ["y"])],
        [("x", TensorProto.INT64, ["n", 3, 12, 16])],
        [("y", TensorProto.INT64, ["n", 576])],
        {},
    )


def giving_integers(path: Path) -> None:
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Cast", ["f"], ["y"], to=TensorProto.INT64)]
    save(path, nodes, [("x", FLOAT, ["n", 3, 12, 16])], [("y", TensorProto.INT64, ["n", 576])], {})


def giving_another_batch(path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    save(path, nodes, [("x", FLOAT, ["n", 3, 12, 16])], [("y", FLOAT, None)], {"shape": np.array([-1, 16], np.int64)})


def not_running(path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    save(
        path, nodes, [("x", FLOAT, ["n", 3, None, None])], [("y", FLOAT, None)], {"shape": np.array([-1, 7], np.int64)}
    )


REFUSALS = {
    "no file": (lambda path: None, {}, "no such file"),
    "text": (lambda path: path.write_text("weights"), {}, "not an ONNX file"),
    "nothing": (lambda path: path.write_bytes(b""), {}, "holds no ONNX graph"),
    "two inputs": (
        two_inputs,
        {"input": "pixel_values"},
        "takes input_ids besides 'pixel_values'; export the part that takes one input",
    ),
    "two inputs, none named": (two_inputs, {}, "has the inputs pixel_values, input_ids; name one as 'input:'"),
    "an old opset": (lambda path: picture_encoder(path, opset=9, ir=4), {}, "opset 9 is not supported, 11 to"),
    "a future opset": (lambda path: picture_encoder(path, opset=99), {}, "opset 99 is not supported, 11 to"),
    "an operator of nobody": (unknown_operator, {}, "onnxruntime does not load it"),
    "another rank": (
        lambda path: passing_encoder(path, ("n", 576)),
        {},
        "input 'x' is [?, 576]; expected 4 axes for images, got 2",
    ),
    "a batch of four": (
        lambda path: picture_encoder(path, (4, 3, 12, 16)),
        {},
        "batches of 4; export it with a batch of 1, or of any size",
    ),
    "no channels": (lambda path: passing_encoder(path, ("n", 1, 12, 16)), {}, "which has no axis for 3 channels"),
    "the other layout": (
        lambda path: picture_encoder(path),
        {"layout": "nhwc"},
        "[?, 3, 12, 16], which does not fit layout: nhwc; set layout: nchw",
    ),
    "any layout": (
        lambda path: passing_encoder(path, (None,) * 4),
        {"height": 12, "width": 16},
        "fits nchw and nhwc; set layout",
    ),
    "open sizes": (
        lambda path: picture_encoder(path, ("n", 3, None, None)),
        {},
        "leaves the height open; set height and width",
    ),
    "another size": (
        lambda path: picture_encoder(path),
        {"height": 224},
        "a height of 12 where the YAML has 224; set height: 12",
    ),
    "integers in": (of_integers, {}, "is int64, which cannot hold normalized numbers"),
    "integers out": (giving_integers, {}, "holds no floating-point numbers"),
    "another batch": (
        giving_another_batch,
        {},
        "output 'y' is [36, 16] for a batch of 1; name the embedding as 'output:'",
    ),
    "a size that does not run": (
        not_running,
        {"height": 12, "width": 15},
        "does not run on the input that the YAML describes",
    ),
    "itself": (picture_encoder, {"file": "o.onnx"}, "is the encoder itself; write to another file"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_wrapped_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    make, fields, says = REFUSALS[name]
    make(tmp_path / str(fields.get("file", "encoder.onnx")))
    before = sorted(p.name for p in tmp_path.iterdir())
    done = CliRunner().invoke(
        wrap_command, [str(describe(tmp_path, **(IMAGE | fields))), "--out", str(tmp_path / "o.onnx")]
    )
    assert done.exit_code == 1 and says in done.output, done.output
    assert len(done.output.strip().splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted({*before, "encoder.yaml"})


RECIPES = sorted((Path(__file__).resolve().parents[2] / "config" / "encoders").glob("*.yaml"))
FED = {
    "yamnet": ("n", 96, 64),
    "efficientat": ("n", 1, 128, 100),
    "panns": ("n", 1, 201, 64),
    "clap": ("n", 1, 1001, 64),
}
"""What the encoders of sound take, as their projects have it."""


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_feeds_an_encoder_of_the_shape_that_its_project_has(tmp_path: Path, recipe: Path) -> None:
    fields = yaml.safe_load(recipe.read_text())
    assert fields["source"] and fields["license"]
    dims = FED.get(recipe.stem, ("n", 3, fields.get("height"), fields.get("width")))
    passing_encoder(tmp_path / "encoder.onnx", dims)
    done = wrap(describe(tmp_path, **(fields | {"file": "encoder.onnx"})), tmp_path / "wrapped.onnx")
    assert done.dim == np.prod([d for d in dims if d != "n"])


def test_every_recipe_of_the_page_is_there() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "encoders.md").read_text()
    assert len(RECIPES) == 10 and all(f"(../config/encoders/{path.name})" in page for path in RECIPES)


AUDIO = {"kind": "audio", "rate_hz": 16_000, "window_s": 1.0}
MEL = {
    "n_fft": 512,
    "hop": 160,
    "mels": 64,
    "mel_scale": "htk",
    "mel_norm": "none",
    "log": "ln",
    "floor": 1e-10,
    "floor_by": "clamp",
}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "kind: is missing; correct it"),
        ({"kind": "imag"}, "kind: 'imag' is none of image, audio; did you mean image?"),
        (IMAGE | {"colour": "bgr"}, "colour: no such key; did you mean color?"),
        (IMAGE | {"color": "BGR8"}, "color: 'BGR8' is none of rgb, bgr; did you mean bgr?"),
        ({"kind": "image", "std": [1, 1, 1]}, "mean: is missing"),
        (IMAGE | {"mean": [0.5]}, "mean: has too few items"),
        (IMAGE | {"std": [1, 0, 1]}, "std.1: input should be greater than 0, got 0"),
        (IMAGE | {"rate_hz": 16000}, "rate_hz: no such key"),
        (
            AUDIO | {"log_mel": MEL | {"mel_scal": "htk"}},
            "log_mel.mel_scal: no such key; did you mean log_mel.mel_scale?",
        ),
        (
            AUDIO | {"log_mel": MEL | {"patch": {"frame": 96, "hop": 48}}},
            "log_mel.patch.frame: no such key; did you mean log_mel.patch.frames?",
        ),
        (AUDIO | {"log_mel": MEL | {"log": "dB"}}, "log_mel.log: 'dB' is none of ln, log10, db; did you mean db?"),
        (AUDIO | {"log_mel": MEL | {"window": 600}}, "window 600 is longer than n_fft 512"),
        (AUDIO | {"log_mel": MEL | {"fmax": 9000}}, "log_mel takes 0 to 9000 Hz; at 16000 Hz there is 0 to 8000"),
        (
            AUDIO | {"log_mel": MEL | {"patch": {"frames": 120, "hop": 48}}},
            "a window of 1 s has 101 frames of log_mel; make window_s longer",
        ),
        (AUDIO | {"log_mel": MEL | {"mean": [0.0, 1.0]}}, "mean has 2 numbers for 64 mels"),
        (AUDIO | {"log_mel": MEL | {"std": 0}}, "log_mel.std: input should be greater than 0"),
        (AUDIO | {"log_mel": MEL | {"frame": "window"}}, "frame: window begins at the first sample; set center: false"),
        (AUDIO | {"window_s": 0.01, "log_mel": MEL}, "is too short to be reflected by 256; set padding: constant"),
    ],
)
def test_a_yaml_that_is_wrong_is_refused_with_what_was_meant(tmp_path: Path, fields: dict, says: str) -> None:
    with pytest.raises(WrapError) as error:
        wrap(describe(tmp_path, **fields), tmp_path / "o.onnx")
    assert f"encoder.yaml: {says}" in str(error.value) or says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [("a: [", "not YAML (line 1); correct it"), ("- 1", "expected a mapping, got list"), (None, "cannot be read")],
)
def test_what_is_no_yaml_is_refused(tmp_path: Path, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / "encoder.yaml").write_text(text)
    with pytest.raises(WrapError, match=says.replace("(", r"\(").replace(")", r"\)")):
        wrap(tmp_path / "encoder.yaml", tmp_path / "o.onnx")
