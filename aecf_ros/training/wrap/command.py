"""`aecf wrap-encoder`: somebody's ONNX encoder with its preprocessing in the graph, as `aecf train` and a bundle take it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto
from rich.console import Console

from aecf_ros.core.errors import one_line
from aecf_ros.training.wrap.graph import Encoder, join, open_encoder, spell
from aecf_ros.training.wrap.infer_spec import batch, fit, patch_count
from aecf_ros.training.wrap.sessions import ORT_ERRORS, Parts, draw, embed, open_bare, open_quietly
from aecf_ros.training.wrap.spec import AudioEncoder, ImageEncoder, WrapError, load_spec
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
        wrapped = open_quietly(str(file))
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


@click.command("wrap-encoder")
@click.argument("encoder", type=click.Path(path_type=Path), metavar="ENCODER.yaml")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The .onnx to write.")
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    help="The .npz of what went into your own pipeline (input) and what came out (output).",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0, min_open=True),
    help="Relative deviation from the reference that is accepted  [default: 0.001; 0.01 in float16]",
)
def wrap_command(encoder: Path, out: Path, reference: Path | None, tolerance: float | None) -> None:
    """Put the preprocessing of somebody's ONNX encoder into its graph, and check it against their own pipeline.

    ENCODER.yaml says what the encoder takes; docs/encoders.md has recipes.
    """
    console = Console(stderr=True)
    try:
        with console.status("wrapping") as status:
            done = wrap(
                encoder,
                out,
                reference,
                tolerance,
                lambda change: status.update(f"the reference does not match; trying {change}"),
            )
    except WrapError as error:
        raise click.ClickException(str(error)) from None
    spec, taken = done.spec, done.encoder
    size = "batch" if batch(taken, spec) is None else 1
    takes = (
        f"image uint8 [{size}, {spec.height}, {spec.width}, 3] RGB"
        if isinstance(spec, ImageEncoder)
        else f"samples float32 [{size}, {spec.samples}] in [-1, 1], {spec.window_s:g} s at {spec.rate_hz} Hz"
    )
    click.echo(
        f"encoder    {taken.path}: '{taken.input}' {spell(taken.dims)} -> '{taken.output}'"
        + (f", {patch_count(spec)} patches" if patch_count(spec) > 1 else "")
    )
    click.echo(f"takes      {takes}\ngives      embedding float32 [{size}, {done.dim}]")
    rates = [f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}" for rate in (done.rate_hz, done.bare_rate_hz)]
    click.echo(
        f"rate       {rates[0]} samples/s, {done.rate_hz / done.bare_rate_hz:.0%} of the bare encoder's {rates[1]} (one thread, one at a time)"
    )
    click.echo(
        "reference  none: nothing was checked; give --reference with what your own pipeline made"
        if done.deviation is None
        else f"reference  {done.checked} sample{'s' if done.checked > 1 else ''} agree{'' if done.checked > 1 else 's'} to {done.deviation:.0e} (relative)"
    )
    if size == 1:
        click.echo(
            "note       takes one sample at a time, as the node does; training is quicker with an encoder exported with a free batch axis"
        )
    click.echo(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)")
