"""Vectors that somebody else computed have no encoder but their standardization: a graph of three operators that is
fitted here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from aecf_ros.core.labeled_samples import Unit
from aecf_ros.modalities.vector.spec import VectorSpec
from aecf_ros.training.data.npy_dataset import DatasetError
from aecf_ros.training.export.head_graph import OPSET
from aecf_ros.training.features.onnx_encoder import OUTPUT, FrozenEncoder, open_encoder
from aecf_ros.training.head.fit_loop import fingerprint

FARTHEST = 30.0
"""Standard deviations at which a number is cut off: a broken one must not drown the others, nor become infinite when
squared.
"""
_BATCH = 512


def standardizing_encoder(spec: VectorSpec, units: Sequence[Unit], folder: Path, threads: int = 1) -> FrozenEncoder:
    """The encoder of a modality of vectors: each number less its mean, over its standard deviation, of the units'
    moments.

    Its file in ``folder`` is found by a hash of the units, and written in one step.

    Args:
        units: the part ``fusion``; only this modality of theirs is read.

    Raises:
        DatasetError: no moment has the modality.
    """
    path = (
        folder
        / f"{spec.name}_standard-{fingerprint(spec.model_dump(mode='json'), [unit.digest for unit in units])}.onnx"
    )
    if not path.is_file():
        mean, deviation = _moments(spec, units)
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        onnx.save(standardization(mean, deviation), partial)
        os.replace(partial, path)
    return open_encoder(path, spec.name, threads)


def _moments(spec: VectorSpec, units: Sequence[Unit]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation float64 ``(dim,)``; a number that never changes gets a deviation of 1."""
    count, total, squares, shift = 0, np.zeros(spec.dim), np.zeros(spec.dim), None
    for unit in units:
        for batch in unit.only(spec.name).batches(_BATCH):
            samples = batch.inputs.get(spec.name, np.zeros((0, spec.dim))).astype(np.float64)
            if not len(samples):
                continue
            shift = (
                samples[0] if shift is None else shift
            )  # squares of what is far from 0 would lose the digits that differ
            count, total, squares = (
                count + len(samples),
                total + (samples - shift).sum(0),
                squares + np.square(samples - shift).sum(0),
            )
    if shift is None:
        raise DatasetError(
            f"nothing of '{spec.name}' can be read in the part that heads are trained on; look at it "
            f"with aecf dataset inspect"
        )
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    return mean + shift, np.where(deviation > 1e-6 * np.maximum(np.abs(mean + shift), 1e-6), deviation, 1.0)


def standardization(mean: np.ndarray, deviation: np.ndarray) -> onnx.ModelProto:
    """The graph: ``vector`` float32 ``[batch, dim]`` to ``embedding`` of that shape, limited to :data:`FARTHEST`."""
    constants = {"mean": mean, "scale": 1.0 / deviation, "least": np.array(-FARTHEST), "most": np.array(FARTHEST)}
    nodes = [
        helper.make_node("Sub", [VectorSpec.input_name, "mean"], ["centered"]),
        helper.make_node("Mul", ["centered", "scale"], ["scaled"]),
        helper.make_node("Clip", ["scaled", "least", "most"], [OUTPUT]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", len(mean)])
        for name in (VectorSpec.input_name, OUTPUT)
    ]
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "standardization", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model)
    return model
