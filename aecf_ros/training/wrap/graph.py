"""Somebody's ONNX graph: opened with one line for each thing that is wrong with it, and joined with what comes before and
behind.

What is added is written at the encoder's own opset, out of operators that are the same from opset 11 on, so that the
encoder's nodes stay as they are.
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
"""A protobuf, and so an ONNX file without a second one, ends at 2 GiB."""
Dims = tuple[int | None, ...]
"""Sizes of the axes, ``None`` where the graph leaves one open."""


def spell(dims: Iterable[int | None], open_axis: str = "?") -> str:
    """``[1, 3, ?, ?]``."""
    return "[" + ", ".join(open_axis if d is None else str(d) for d in dims) + "]"


class Chain:
    """Nodes on their way to a model of their own; arrays among the inputs become initializers."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []

    def __call__(self, op: str, *inputs: str | np.ndarray, **attributes: object) -> str:
        """Append a node with one output; its name comes back."""
        name = f"{self.prefix}/{len(self.nodes)}_{op.lower()}"
        taken = [x if isinstance(x, str) else self._constant(x) for x in inputs]
        self.nodes.append(helper.make_node(op, taken, [name], name=name, **attributes))
        return name

    def _constant(self, value: np.ndarray) -> str:
        name = f"{self.prefix}/constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def reshape(self, x: str, *shape: int) -> str:
        """``x`` in another shape, of which one axis may be -1."""
        return self("Reshape", x, np.array(shape, np.int64))

    def model(self, given: ValueInfoProto, made: ValueInfoProto, like: ModelProto) -> ModelProto:
        """The nodes from ``given`` to ``made``, whose name is that of the last node's output, at the opset of ``like``."""
        graph = helper.make_graph(self.nodes, self.prefix, [given], [made], self.initializers)
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset(like))], ir_version=like.ir_version
        )


@dataclass(frozen=True)
class Encoder:
    """Somebody's encoder as it lies on the disk.

    Attributes:
        model: with its weights.
        dims: of its input.
        dtype: ``TensorProto`` type of its input.
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
    """Version of the operators that all know; 0 where the model names none."""
    return next((i.version for i in model.opset_import if i.domain in ("", "ai.onnx")), 0)


def open_encoder(path: Path, input_name: str | None, output_name: str | None) -> Encoder:
    """Read an ONNX file with its weights.

    Raises:
        WrapError: missing, not ONNX, weights missing, too old, too new or too large, several inputs or outputs without
            a name, an input that holds no numbers.
    """
    model = _read(path)
    if not OLDEST_OPSET <= opset(model) <= onnx.defs.onnx_opset_version():
        raise WrapError(
            f"{path}: is of opset {opset(model)}, where {OLDEST_OPSET} to {onnx.defs.onnx_opset_version()} can be joined; "
            "export it again with opset_version=18"
        )
    _strip_initializers(model)
    graph = model.graph
    given = _choose(path, "input", list(graph.input), input_name)
    if len(graph.input) > 1:
        others = ", ".join(i.name for i in graph.input if i.name != given.name)
        raise WrapError(
            f"{path}: takes {others} besides '{given.name}'; export the part that takes one input, for example the image tower alone"
        )
    made = _choose(path, "output", list(graph.output), output_name)
    if not given.type.HasField("tensor_type") or not given.type.tensor_type.HasField("shape"):
        raise WrapError(f"{path}: input '{given.name}' is no tensor of known rank; export the encoder again")
    dims = tuple(d.dim_value or None for d in given.type.tensor_type.shape.dim)
    return Encoder(
        path, model, given.name, made.name, dims, given.type.tensor_type.elem_type, made.type.tensor_type.elem_type
    )


def _read(path: Path) -> ModelProto:
    if not path.is_file():
        raise WrapError(f"{path}: no such file; give the path of the ONNX file, beside the YAML where it is relative")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # protobuf's DecodeError, of a package that only onnx knows
        raise WrapError(
            f"{path}: is not an ONNX file; export the encoder with torch.onnx.export, tf2onnx or optimum"
        ) from None
    if not model.graph.node or not model.opset_import:
        raise WrapError(f"{path}: holds no ONNX graph; export the encoder with torch.onnx.export, tf2onnx or optimum")
    weights = [t for t in model.graph.initializer if external_data_helper.uses_external_data(t)]
    files = sorted({entry.value for t in weights for entry in t.external_data if entry.key == "location"})
    for file in files:
        if not (path.parent / file).is_file():
            raise WrapError(f"{path}: its weights lie in '{file}', which is missing; put it beside the ONNX file")
    if sum((path.parent / file).stat().st_size for file in files) + path.stat().st_size > LARGEST_BYTES:
        raise WrapError(f"{path}: has more than 2 GiB of weights, which one file cannot hold; export it in float16")
    try:
        external_data_helper.load_external_data_for_model(model, str(path.parent))
    except (checker.ValidationError, OSError, ValueError) as error:
        raise WrapError(f"{path}: {one_line(error)}; export the encoder again") from None
    return model


def _strip_initializers(model: ModelProto) -> None:
    """Before IR 4 weights had to be inputs too; they are none."""
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


def join(before: ModelProto, encoder: Encoder, behind: ModelProto) -> ModelProto:
    """One model out of three: only its input and the embedding are left outside, and nodes that lead elsewhere go.

    Raises:
        WrapError: the encoder is against the rules of ONNX.
    """
    middle = ModelProto()
    middle.CopyFrom(encoder.model)
    del middle.graph.value_info[:]  # they may give the batch another name
    # A graph may leave the shape of an output unsaid; what comes behind knows its rank.
    output = ValueInfoProto(name=encoder.output, type=behind.graph.input[0].type)
    del middle.graph.output[:]
    middle.graph.output.append(output)
    prefix = "encoder/"
    # Named beforehand, or subgraphs that read weights of the outer graph would go on reading the old names (onnx 1.23).
    weights = {t.name: prefix + t.name for t in middle.graph.initializer}
    compose.add_prefix_graph(middle.graph, prefix, inplace=True, name_map=weights)
    try:
        joined = compose.merge_models(before, middle, [(before.graph.output[0].name, prefix + encoder.input)])
        joined = compose.merge_models(joined, behind, [(prefix + encoder.output, behind.graph.input[0].name)])
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
            node.ClearField("metadata_props")  # torch notes the paths of the machine that exported
            node.doc_string = ""
    del graph.node[:]
    graph.node.extend(reversed(kept))
    weights = [t for t in graph.initializer if t.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(weights)


def _read_by(node: onnx.NodeProto) -> set[str]:
    """Names that a node reads, and those that its subgraphs read from outside."""
    names = set(node.input)
    for attribute in node.attribute:
        graphs = [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs
        for graph in graphs:
            names |= {o.name for o in graph.output}.union(*(_read_by(inner) for inner in graph.node))
    return names
