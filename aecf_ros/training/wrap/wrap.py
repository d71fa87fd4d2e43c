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
from aecf_ros.training.wrap.infer_spec import batch, fit
from aecf_ros.training.wrap.sessions import Parts, draw, embed, open_bare
from aecf_ros.training.wrap.spec import AudioEncoder, WrapError, load_spec
from aecf_ros.training.wrap.verify import Spec, compare, deviation, load_reference

TOLERANCE, HALF_TOLERANCE = 1e-3, 1e-2
"""Relative deviation from the owner's own pipeline that rounding explains; the latter where the encoder takes float16."""
JOIN_TOLERANCE = 1e-4
"""Of the joined graph from its three parts run one after the other; optimizers may fuse across the seams."""


@dataclass(frozen=True)
class Wrapped:
    """What was written.

    Attributes:
        encoder: as it was given.
        spec: with nothing left open.
        dim: numbers of an embedding.
        deviation: from the reference, ``None`` where there was none.
        checked: samples of the reference.
        rate_hz, bare_rate_hz: samples in a second of processor time of the wrapped encoder and of the bare one, one at a time.
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
        reference: .npz of what went into the owner's pipeline (``input``) and what came out (``output``).
        tolerance: relative deviation from it that is accepted; 1e-3, or 1e-2 in float16, where not given.
        tick: told of each setting that is tried when the reference does not match.

    Raises:
        WrapError: an encoder, YAML or reference that cannot be used, or a reference that the graph does not match; nothing
            is written then.
    """
    out = Path(out)
    given = load_spec(yaml)
    if out.resolve() == given.file.resolve():
        raise WrapError(f"{out}: is the encoder itself; write to another file")
    encoder = open_encoder(given.file, given.input, given.output)
    spec = fit(encoder, given)
    bare = open_bare(encoder)
    parts = Parts(encoder, spec, bare)
    model = join(parts.before, encoder, parts.behind)
    onnx.helper.set_model_props(model, {p.key: p.value for p in encoder.model.metadata_props} | _properties(spec))
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        file = Path(scratch) / out.name
        onnx.save(model, file)
        wrapped = open_session(file)
        _hold_to_parts(wrapped, parts, encoder, spec)
        dim = wrapped.get_outputs()[0].shape[1]
        gap, checked = None, 0
        if reference is not None:
            x, due = load_reference(reference, spec, dim)
            checked = len(x)
            found = np.concatenate([embed(wrapped, row[None]) for row in x])
            limit = tolerance or (HALF_TOLERANCE if encoder.dtype == TensorProto.FLOAT16 else TOLERANCE)
            gap = compare(
                reference,
                spec,
                found,
                x,
                due,
                limit,
                lambda other: Parts(encoder, fit(encoder, other), bare)(x[:1]),
                tick,
            )
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


def _hold_to_parts(wrapped: onnxruntime.InferenceSession, parts: Parts, encoder: Encoder, spec: Spec) -> None:
    """Compare the graph with its parts, on a sample at a time and, where it takes them, on three.

    Raises:
        WrapError: it differs, or fails.
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
                f"{encoder.path}: with {count} at once the joined graph is {gap:.2g} off the encoder run alone; {remedy}"
            )
