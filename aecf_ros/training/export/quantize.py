"""Write a bundle again with its encoders in half precision or dynamic int8, and measure what that costs.

The head stays in full precision: it is a hundredth of the work and carries the calibration.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from aecf_ros.core.bundle import Manifest, load_bundle
from aecf_ros.core.errors import first_line
from aecf_ros.training.data.corpus import Corpus
from aecf_ros.training.evaluation.evaluate import Metrics, rounded
from aecf_ros.training.evaluation.measure import measure
from aecf_ros.training.export.head_graph import ExportError, write_bundle
from aecf_ros.training.templates import markdown_table

if TYPE_CHECKING:
    from onnxruntime.transformers.onnx_model import OnnxModel


def to_fp16(source: Path, target: Path) -> None:
    """Convert weights and arithmetic to half precision; inputs, outputs and spectra stay in full precision."""
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = onnx.load(source)
    spectra = before_logarithms(model.graph)
    converted = OnnxModel(
        convert_float_to_float16(
            model, keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, "Log"], node_block_list=spectra
        )
    )
    _bypass_round_trips(converted)
    converted.topological_sort()  # the converter puts its casts last
    onnx.save(converted.model, target)


def _bypass_round_trips(model: OnnxModel) -> None:
    """Remove the casts to half precision and back between two nodes that stay in full precision."""
    casts = {node.output[0]: node for node in model.model.graph.node if node.op_type == "Cast"}
    for output, node in casts.items():
        before = casts.get(node.input[0])
        if before is not None and node.attribute[0].i == onnx.TensorProto.FLOAT:
            model.replace_input_of_all_nodes(output, before.input[0])
    model.prune_graph()


def to_int8(source: Path, target: Path) -> None:
    """Quantize weights to 8 bits and activations dynamically; spectra stay in full precision."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Unsigned: onnxruntime's convolution of integers takes no other weights on a CPU.
    spectra = before_logarithms(onnx.load(source).graph)
    logging.disable(logging.WARNING)  # it recommends preprocessing that the exporter already does
    try:
        quantize_dynamic(source, target, weight_type=QuantType.QUInt8, nodes_to_exclude=spectra)
    finally:
        logging.disable(logging.NOTSET)


def before_logarithms(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes that feed a logarithm: a power spectrum needs the range of float32."""
    made_by = {output: node for node in graph.node for output in node.output}
    waiting = [node for node in graph.node if node.op_type == "Log"]
    feeding: dict[str, None] = {}
    while waiting:
        node = waiting.pop()
        if node.name not in feeding:
            feeding[node.name] = None
            waiting += [made_by[name] for name in node.input if name in made_by]
    return list(feeding)


PRECISIONS: dict[str, Callable[[Path, Path], None]] = {"fp16": to_fp16, "int8": to_int8}


def quantize(model: Path | str, out: Path | str, precision: str, corpus: Corpus) -> tuple[Metrics, Metrics]:
    """Write the bundle ``model`` again to ``out`` with its encoders in ``precision``.

    Args:
        precision: a key of PRECISIONS.
        corpus: what the bundle was trained on; its test part is what both are measured on.

    Returns:
        METRICS by subset before and after; the latter are those of the new manifest.

    Raises:
        BundleError, DatasetError: the bundle cannot be used, or corpus and bundle are not of the same modalities.
        ExportError: an encoder cannot be converted, or ``out`` is ``model``.
    """
    model, out = Path(model), Path(out)
    if out.resolve() == model.resolve():
        raise ExportError(f"{out}: is the bundle itself; write to another folder")
    bundle = load_bundle(model)
    manifest = bundle.manifest
    before = measure(bundle, corpus)
    files = {m.encoder: _converter(bundle.path(m.encoder), precision) for m in manifest.modalities}
    files |= {file: _copier(bundle.path(file)) for file in (manifest.head, manifest.head_weights) if file}

    def finished(hashes: dict[str, str], metrics: Metrics) -> Manifest:
        training = manifest.training.model_copy(update={"config": manifest.training.config | {"precision": precision}})
        return manifest.model_copy(
            update={"name": out.name, "training": training, "files": hashes, "metrics": rounded(metrics)}
        )

    # Twice: the graphs must be there to be measured, and the figures go into the manifest and the card.
    write_bundle(out, files, "", lambda hashes: finished(hashes, before))
    after = measure(load_bundle(out), corpus)
    copies = {file: _copier(out / file) for file in files}
    write_bundle(out, copies, _card(model, precision, before, after), lambda hashes: finished(hashes, after))
    return before, after


def _converter(source: Path, precision: str) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        try:
            PRECISIONS[precision](source, path)
            onnx.checker.check_model(str(path))
        except Exception as error:  # the converters raise errors of any kind
            raise ExportError(
                f"{source.name}: cannot be converted to {precision} ({first_line(error)}); leave it in full precision"
            ) from None

    return write


def _copier(source: Path) -> Callable[[Path], object]:
    content = source.read_bytes()

    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


def comparison(before: Metrics, after: Metrics) -> list[list[str]]:
    """Header and rows by subset: accuracy or macro mAP, NLL and ECE before and after, and the ECE's noise floor."""
    first = "map" if any("map" in metrics for metrics in before.values()) else "accuracy"
    keys = (first, "nll", "ece")
    header = [
        "subset",
        "n",
        "macro mAP" if first == "map" else first,
        "after",
        "NLL",
        "after",
        "ECE",
        "after",
        "ECE noise floor",
    ]
    rows = [
        [
            name,
            str(old["n"]),
            *(f"{metrics[key]:.4f}" for key in keys for metrics in (old, after[name])),
            f"{old['ece_noise_floor']:.4f}",
        ]
        for name, old in before.items()
        if old["n"]
    ]
    return [header, *rows]


def _card(model: Path, precision: str, before: Metrics, after: Metrics) -> str:
    card = model / "MODEL_CARD.md"
    original = f"\n\n{card.read_text(encoding='utf-8')}" if card.is_file() else ""
    header, *rows = comparison(before, after)
    return (
        f"# {model.name} in {precision}\n\n"
        "Encoders converted by `aecf quantize`; the same test pairs before and after.\n\n"
        f"{markdown_table(header, rows)}{original}"
    )
