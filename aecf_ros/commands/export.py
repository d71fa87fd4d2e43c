"""`aecf export`: the head of a bundle as a torch exported program."""

from __future__ import annotations

from pathlib import Path

import click

from aecf_ros.commands.shared.terminal import PathArgument
from aecf_ros.core.bundle import BundleError, load_bundle
from aecf_ros.training.export.head_graph import ExportError
from aecf_ros.training.export.torch_export import export_torch


@click.command("export")
@click.option("--torch", "as_torch", is_flag=True, required=True, help="As a torch exported program (.pt2).")
@click.argument("model", type=PathArgument)
@click.option("--out", required=True, type=PathArgument, help="Folder to write to.")
def export_command(as_torch: bool, model: Path, out: Path) -> None:
    """Write the head of a bundle, and its encoders where they are programs, for use in torch.

    docs/models.md shows the five lines that use it.
    """
    try:
        files = export_torch(load_bundle(model), out)
    except (BundleError, ExportError) as error:
        raise click.ClickException(str(error)) from None
    click.echo("wrote " + ", ".join(str(file) for file in files))
