"""Open an encoder's ONNX graph, and join it with its pre- and postprocessing.

Added nodes use the encoder's opset, and only operators that are the same from opset 11 on, so that the encoder's own
nodes stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import (
    AttributeProto,
    ModelProto,
    TensorProto,
    ValueInfoProto,
    checker,
    compose,
    external_data_helper,
    helper,
    numpy_helper,
)

from aecf_ros.core.errors import one_line
from aecf_ros.training.wrap.spec import WrapError

OLDEST_OPSET = 11
LARGEST_BYTES = 2**31 - 2**20
"""Limit of a protobuf message, and so of an ONNX file with its weights inside: 2 GiB."""
Dims = tuple[int | None, ...]
"""Sizes of the axes, ``None`` where the graph leaves one open."""


def spell(dims: Iterable[int | None], open_axis: str = "?") -> str:
    """``[1, 3, ?, ?]``."""
    return "[" + ", ".join(open_axis if d is None else str(d) for d in dims) + "]"


class Chain:
    """Builds a model node by node; arrays among the inputs become initializers."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []

    def __call__(self, op: str, *inputs: str | np.ndarray, **attributes: object) -> str:
        """Append a node with one output; returns the output's name."""
        name = f"{self.prefix}/{len(self.nodes)}_{op.lower()}"
        taken = [x if isinstance(x, str) else self._constant(x) for x in inputs]
        self.nodes.append(helper.make_node(op, taken, [name], name=name, **attributes))
        return name

    def _constant(self, value: np.ndarray) -> str:
        name = f"{self.prefix}/constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def reshape(self, x: str, *shape: int) -> str:
        """``x`` in another shape; one axis may be -1."""
        return self("Reshape", x, np.array(shape, np.int64))

    def model(self, source: ValueInfoProto, result: ValueInfoProto, like: ModelProto) -> ModelProto:
        """The nodes as a model from ``source`` to ``result``, the last node's output, at the opset of ``like``."""
        graph = helper.make_graph(self.nodes, self.prefix, [source], [result], self.initializers)
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset(like))], ir_version=like.ir_version
        )


@dataclass(frozen=True)
class Encoder:
    """An encoder as read from its file.

    Attributes:
        model: with its weights.
        dims: sizes of the input's axes.
        dtype, output_dtype: ``TensorProto`` types of input and output.
    """

    path: Path
    model: ModelProto
    input: str
    output: str
    dims: Dims
    dtype: int
    output_dtype: int

    def where(self) -> str:
        """The input as an error names it."""
        return f"{self.path}: input '{self.input}' is {spell(self.dims)}"


def opset(model: ModelProto) -> int:
    """Version of the standard operators; 0 where the model names none."""
    return next((i.version for i in model.opset_import if i.domain in ("", "ai.onnx")), 0)


def open_encoder(path: Path, input_name: str | None, output_name: str | None) -> Encoder:
    """Read an ONNX file with its weights.

    Raises:
        WrapError: the file or its weights are missing, it is not ONNX, its opset is not supported, it is too large, it
            has several inputs or outputs and none is named, or its input is not a tensor.
    """
    model = _read(path)
    if not OLDEST_OPSET <= opset(model) <= onnx.defs.onnx_opset_version():
        raise WrapError(
            f"{path}: opset {opset(model)} is not supported, {OLDEST_OPSET} to {onnx.defs.onnx_opset_version()} are; "
            "export it again with opset_version=18"
        )
    _strip_initializers(model)
    graph = model.graph
    source = _choose(path, "input", list(graph.input), input_name)
    if len(graph.input) > 1:
        others = ", ".join(i.name for i in graph.input if i.name != source.name)
        raise WrapError(
            f"{path}: takes {others} besides '{source.name}'; "
            "export the part that takes one input, for example the image tower alone"
        )
    result = _choose(path, "output", list(graph.output), output_name)
    if not source.type.HasField("tensor_type") or not source.type.tensor_type.HasField("shape"):
        raise WrapError(f"{path}: input '{source.name}' is not a tensor of known rank; export the encoder again")
    dims = tuple(d.dim_value or None for d in source.type.tensor_type.shape.dim)
    return Encoder(
        path,
        model,
        source.name,
        result.name,
        dims,
        source.type.tensor_type.elem_type,
        result.type.tensor_type.elem_type,
    )


def _read(path: Path) -> ModelProto:
    if not path.is_file():
        raise WrapError(f"{path}: no such file; give the path of the ONNX file, beside the YAML where it is relative")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # protobuf's DecodeError; protobuf is not imported here
        raise WrapError(
            f"{path}: is not an ONNX file; export the encoder with torch.onnx.export, tf2onnx or optimum"
        ) from None
    if not model.graph.node or not model.opset_import:
        raise WrapError(f"{path}: holds no ONNX graph; export the encoder with torch.onnx.export, tf2onnx or optimum")
    weights = [t for t in model.graph.initializer if external_data_helper.uses_external_data(t)]
    files = sorted({entry.value for t in weights for entry in t.external_data if entry.key == "location"})
    for file in files:
        if not (path.parent / file).is_file():
            raise WrapError(f"{path}: its weights are in '{file}', which is missing; put it beside the ONNX file")
    if sum((path.parent / file).stat().st_size for file in files) + path.stat().st_size > LARGEST_BYTES:
        raise WrapError(f"{path}: has more than 2 GiB of weights, which one file cannot hold; export it in float16")
    try:
        external_data_helper.load_external_data_for_model(model, str(path.parent))
    except (checker.ValidationError, OSError, ValueError) as error:
        raise WrapError(f"{path}: {one_line(error)}; export the encoder again") from None
    return model


def _strip_initializers(model: ModelProto) -> None:
    """Remove weights from the inputs, among which they had to be before IR 4."""
    weights = {t.name for t in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 4)


def _choose(path: Path, what: str, values: list[ValueInfoProto], name: str | None) -> ValueInfoProto:
    names = [v.name for v in values]
    if name is None and len(values) != 1:
        raise WrapError(f"{path}: has the {what}s {', '.join(names)}; name one as '{what}:' in the YAML")
    if name is not None and name not in names:
        raise WrapError(f"{path}: has no {what} '{name}'; it has {', '.join(names)}")
    return values[0] if name is None else values[names.index(name)]


def join(preprocessing: ModelProto, encoder: Encoder, postprocessing: ModelProto) -> ModelProto:
    """Join three models into one with one input and the embedding as output; unused nodes are removed.

    Raises:
        WrapError: the encoder is not valid ONNX.
    """
    middle = ModelProto()
    middle.CopyFrom(encoder.model)
    del middle.graph.value_info[:]  # they may give the batch another name
    # A graph may leave the shape of an output open; the postprocessing has its rank.
    output = ValueInfoProto(name=encoder.output, type=postprocessing.graph.input[0].type)
    del middle.graph.output[:]
    middle.graph.output.append(output)
    prefix = "encoder/"
    # With a name map, or subgraphs would keep the old names of weights of the outer graph (onnx 1.23).
    weights = {t.name: prefix + t.name for t in middle.graph.initializer}
    compose.add_prefix_graph(middle.graph, prefix, inplace=True, name_map=weights)
    try:
        joined = compose.merge_models(
            preprocessing, middle, [(preprocessing.graph.output[0].name, prefix + encoder.input)]
        )
        joined = compose.merge_models(
            joined, postprocessing, [(prefix + encoder.output, postprocessing.graph.input[0].name)]
        )
    except (checker.ValidationError, ValueError) as error:
        raise WrapError(f"{encoder.path}: {one_line(error)}; export the encoder again") from None
    _prune(joined)
    joined.graph.name, joined.producer_name, joined.producer_version = "encoder", "aecf_ros", ""
    joined.graph.doc_string = ""
    return joined


def _prune(model: ModelProto) -> None:
    graph = model.graph
    needed = {o.name for o in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed |= _read_by(node)
            node.ClearField("metadata_props")  # torch records paths of the exporting machine
            node.doc_string = ""
    del graph.node[:]
    graph.node.extend(reversed(kept))
    weights = [t for t in graph.initializer if t.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(weights)


def _read_by(node: onnx.NodeProto) -> set[str]:
    """Names that a node and its subgraphs read."""
    names = set(node.input)
    for attribute in node.attribute:
        graphs = [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs
        for graph in graphs:
            names |= {o.name for o in graph.output}.union(*(_read_by(inner) for inner in graph.node))
    return names
