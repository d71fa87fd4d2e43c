"""Put the preprocessing of an ONNX encoder into its graph, so that `aecf train` and a bundle can take it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto

from aecf_ros.core.errors import one_line
from aecf_ros.training.onnx_session import ORT_ERRORS, open_session
from aecf_ros.training.wrap.graph import Encoder, join, open_encoder
from aecf_ros.training.wrap.infer_spec import batch, infer_spec
from aecf_ros.training.wrap.sessions import Parts, draw, embed, open_bare
from aecf_ros.training.wrap.spec import AudioEncoder, WrapError, load_spec
from aecf_ros.training.wrap.verify import Search, Spec, deviation, load_reference, mismatch

TOLERANCE, HALF_TOLERANCE = 1e-3, 1e-2
"""Relative deviation from the reference that rounding explains: in float32, and in float16."""
JOIN_TOLERANCE = 1e-4
"""Relative deviation of the joined graph from its three parts; optimizers may fuse nodes across the seams."""


@dataclass(frozen=True)
class Wrapped:
    """A wrapped encoder.

    Attributes:
        encoder: the original.
        spec: complete.
        dim: width of an embedding.
        deviation: from the reference; ``None`` without one.
        checked: samples of the reference.
        rate_hz, bare_rate_hz: samples per second of processor time, one at a time, of the wrapped encoder and of the
            original.
    """

    encoder: Encoder
    spec: Spec
    dim: int
    deviation: float | None
    checked: int
    rate_hz: float
    bare_rate_hz: float


def wrap(
    yaml: Path | str,
    out: Path | str,
    reference: Path | None = None,
    tolerance: float | None = None,
    tick: Callable[[str], None] = lambda change: None,
) -> Wrapped:
    """Write the encoder that ``yaml`` describes to ``out`` as one file: raw pixels or samples in, one vector out.

    Args:
        reference: .npz with ``input`` and ``output`` of the pipeline that the encoder was trained with.
        tolerance: accepted relative deviation from it; by default 1e-3, or 1e-2 in float16.
        tick: called with each setting that is tried when the reference does not match.

    Raises:
        WrapError: the encoder, its YAML or the reference cannot be used, or the graph does not match the reference.
            Nothing is written then.
    """
    out = Path(out)
    described = load_spec(yaml)
    if out.resolve() == described.file.resolve():
        raise WrapError(f"{out}: is the encoder itself; write to another file")
    encoder = open_encoder(described.file, described.input, described.output)
    spec = infer_spec(encoder, described)
    bare = open_bare(encoder)
    parts = Parts(encoder, spec, bare)
    model = join(parts.preprocessing, encoder, parts.postprocessing)
    onnx.helper.set_model_props(model, {p.key: p.value for p in encoder.model.metadata_props} | _properties(spec))
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        file = Path(scratch) / out.name
        onnx.save(model, file)
        wrapped = open_session(file)
        _compare_with_parts(wrapped, parts, encoder, spec)
        dim = wrapped.get_outputs()[0].shape[1]
        gap, checked = None, 0
        if reference is not None:
            samples = load_reference(reference, spec, dim)
            checked = len(samples.inputs)
            embeddings = np.concatenate([embed(wrapped, row[None]) for row in samples.inputs])
            limit = tolerance or (HALF_TOLERANCE if encoder.dtype == TensorProto.FLOAT16 else TOLERANCE)
            gap = deviation(embeddings, samples.outputs)
            if not gap <= limit:
                first = samples.inputs[:1]
                embed_as = lambda other: Parts(encoder, infer_spec(encoder, other), bare)(first)  # noqa: E731
                raise mismatch(samples, spec, gap, limit, Search(embed_as, tick))
        rate, bare_rate = parts.rates(wrapped, draw(spec, 1))
        os.replace(file, out)
    return Wrapped(encoder, spec, dim, gap, checked, rate, bare_rate)


def _properties(spec: Spec) -> dict[str, str]:
    sound = (
        {"aecf.rate_hz": str(spec.rate_hz), "aecf.window_s": repr(spec.window_s)}
        if isinstance(spec, AudioEncoder)
        else {}
    )
    return {"aecf.kind": spec.kind, "aecf.source": spec.source, "aecf.license": spec.license} | sound


def _compare_with_parts(wrapped: onnxruntime.InferenceSession, parts: Parts, encoder: Encoder, spec: Spec) -> None:
    """Compare the graph with its parts on one sample, and on three where it takes batches.

    Raises:
        WrapError: it differs or fails.
    """
    limit = HALF_TOLERANCE if encoder.dtype == TensorProto.FLOAT16 else JOIN_TOLERANCE
    for count in (1, 3) if batch(encoder, spec) is None else (1,):
        x = draw(spec, count)
        try:
            gap = deviation(embed(wrapped, x), parts(x))
        except ORT_ERRORS as error:
            raise WrapError(
                f"{encoder.path}: fails on a batch of {count} ({one_line(error)}); export it with a fixed batch of 1"
            ) from None
        if not gap <= limit:
            remedy = (
                "export it with a fixed batch of 1"
                if count > 1
                else "report this with the onnx and onnxruntime versions"
            )
            raise WrapError(
                f"{encoder.path}: on a batch of {count} the joined graph is {gap:.2g} off its parts; {remedy}"
            )
