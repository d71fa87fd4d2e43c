"""`aecf wrap-encoder`: put the preprocessing of an ONNX encoder into its graph."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from aecf_ros.commands.shared.terminal import PathArgument
from aecf_ros.training.wrap.graph import spell
from aecf_ros.training.wrap.infer_spec import batch, patch_count
from aecf_ros.training.wrap.spec import ImageEncoder, WrapError
from aecf_ros.training.wrap.wrap import wrap


@click.command("wrap-encoder")
@click.argument("encoder", type=PathArgument, metavar="ENCODER.yaml")
@click.option("--out", required=True, type=PathArgument, help="The .onnx to write.")
@click.option(
    "--reference",
    type=PathArgument,
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
        f"rate       {rates[0]} samples/s, {done.rate_hz / done.bare_rate_hz:.0%} of the bare encoder's {rates[1]} "
        "(one thread, one at a time)"
    )
    click.echo(
        "reference  none: nothing was checked; give --reference with what your own pipeline made"
        if done.deviation is None
        else f"reference  {'1 sample agrees' if done.checked == 1 else f'{done.checked} samples agree'} "
        f"to {done.deviation:.0e} (relative)"
    )
    if size == 1:
        click.echo(
            "note       takes one sample at a time, as the node does; "
            "training is quicker with an encoder exported with a free batch axis"
        )
    click.echo(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)")
