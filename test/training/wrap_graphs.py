"""Small ONNX encoders for the tests of `aecf wrap-encoder`."""

from pathlib import Path

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
IMAGE = {"kind": "image", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def save(
    path: Path, nodes: list, given: list, made: list, weights: dict[str, np.ndarray], opset: int = 17, ir: int = 8
) -> Path:
    """Write a graph; ``given`` and ``made`` are (name, type, dims)."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*v) for v in given],
        [helper.make_tensor_value_info(*v) for v in made],
        [numpy_helper.from_array(w, name) for name, w in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir), path)
    return path


def picture_weights(dtype: type = np.float32) -> dict[str, np.ndarray]:
    """A 3x3 convolution of stride 2 with 8 channels."""
    rng = np.random.default_rng(3)
    return {"w": rng.normal(0, 0.3, (8, 3, 3, 3)).astype(dtype), "b": rng.normal(0, 0.3, 8).astype(dtype)}


def picture_encoder(
    path: Path, dims: tuple = ("n", 3, 12, 16), opset: int = 17, dtype: int = FLOAT, pooled: bool = True, ir: int = 8
) -> Path:
    """Convolution, ReLU and, where ``pooled``, mean over places: (n, 3, H, W) -> (n, 8), or (n, 8, h, w)."""
    weights = picture_weights(np.float16 if dtype == HALF else np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["c"], strides=[2, 2], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["r"]),
        *(
            [helper.make_node("GlobalAveragePool", ["r"], ["p"]), helper.make_node("Flatten", ["p"], ["embedding"])]
            if pooled
            else []
        ),
    ]
    made = ("embedding", dtype, [dims[0], 8]) if pooled else ("r", dtype, [dims[0], 8, None, None])
    return save(path, nodes, [("image", dtype, dims)], [made], weights, opset, ir)


def picture_reference(
    image: np.ndarray, mean: list[float], std: list[float], scale: float = 255.0, color: str = "rgb"
) -> np.ndarray:
    """What the owner of :func:`picture_encoder` computes for uint8 (K, H, W, 3): (K, 8), by loops over places."""
    weights = picture_weights()
    x = image[..., ::-1] if color == "bgr" else image
    x = ((x / scale - mean) / std).transpose(0, 3, 1, 2)
    rows, columns = (x.shape[2] - 3) // 2 + 1, (x.shape[3] - 3) // 2 + 1
    places = [
        np.maximum(
            np.einsum("kchw,ochw->ko", x[:, :, 2 * r : 2 * r + 3, 2 * c : 2 * c + 3], weights["w"]) + weights["b"], 0
        )
        for r in range(rows)
        for c in range(columns)
    ]
    return np.mean(places, axis=0)


def passing_encoder(path: Path, dims: tuple, opset: int = 17) -> Path:
    """Gives what it takes, each sample in a row: the embedding is the input."""
    if len(dims) == 1:
        return save(
            path, [helper.make_node("Identity", ["x"], ["y"])], [("x", FLOAT, dims)], [("y", FLOAT, [None])], {}, opset
        )
    return save(
        path,
        [helper.make_node("Flatten", ["x"], ["y"], axis=1)],
        [("x", FLOAT, dims)],
        [("y", FLOAT, [dims[0], None])],
        {},
        opset,
    )


def averaging_encoder(path: Path, mels: int) -> Path:
    """Mean of each band over any number of frames: (n, mels, frames) -> (n, mels)."""
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["p"]), helper.make_node("Flatten", ["p"], ["y"])]
    return save(path, nodes, [("x", FLOAT, ["n", mels, None])], [("y", FLOAT, ["n", mels])], {})


def describe(folder: Path, **fields: object) -> Path:
    """Write encoder.yaml."""
    path = folder / "encoder.yaml"
    path.write_text(yaml.safe_dump({"file": "encoder.onnx"} | fields))
    return path
