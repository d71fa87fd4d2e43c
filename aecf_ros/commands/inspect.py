"""`aecf inspect`: what a bundle holds."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from aecf_ros.commands.shared.terminal import PathArgument, in_one_line, wide_console
from aecf_ros.core.bundle import BundleError, load_bundle
from aecf_ros.core.metrics.multilabel import SHOWN
from aecf_ros.runtime.backends import BackendError, make_backend


@click.command("inspect")
@click.argument("model", type=PathArgument)
def inspect_command(model: Path) -> None:
    """Show what a bundle holds, and whether it verifies."""
    try:
        bundle = load_bundle(model)
        make_backend("onnxruntime", bundle, device="cpu")
    except (BundleError, BackendError) as error:
        raise in_one_line(error) from None
    manifest, console = bundle.manifest, wide_console()
    console.print(
        f"[bold]{manifest.name}[/] {manifest.description}\nlabels: {', '.join(manifest.labels)}\n"
        f"task: {manifest.task}; calibration: {manifest.calibration.method}, sets cover "
        f"{manifest.calibration.coverage:.0%}; trained {manifest.training.created}"
    )
    modalities = Table("modality", "kind", "input", "embedding", "encoder", header_style="dim")
    for m in manifest.modalities:
        modalities.add_row(m.name, m.kind, "x".join(map(str, m.sample_shape)), str(m.embedding_dim), m.encoder)
    metrics = Table("held-out subset", "n", *SHOWN[manifest.task].values(), header_style="dim")
    for name, values in manifest.metrics.items():
        shown = (f"{values[key]:.3f}" if key in values else "-" for key in SHOWN[manifest.task])
        metrics.add_row(name, str(values["n"]), *shown)
    console.print(
        modalities, metrics, f"[green]verified[/]: {len(manifest.files)} files match their SHA-256 and the graphs load"
    )
