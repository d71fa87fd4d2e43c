"""`aecf dataset`: look at labeled data before training on it."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from aecf_ros.commands.shared.corpus import open_corpus_watched
from aecf_ros.commands.shared.terminal import PathArgument, bars_on_stderr, say_warnings, wide_console
from aecf_ros.modalities.base import ModalitySpec
from aecf_ros.training.config import ConfigError, TrainConfig
from aecf_ros.training.config_loader import load_config
from aecf_ros.training.data.npy_dataset import DatasetError
from aecf_ros.training.inspection.page import write_page
from aecf_ros.training.inspection.summary import Inspection, inspect_corpus
from aecf_ros.training.inspection.tables import TextTable, headline, tables_of

_SHOWN = 20


@click.group("dataset")
def dataset_command() -> None:
    """Look at labeled data before training on it."""


@dataset_command.command("inspect")
@click.argument("data", type=PathArgument)
@click.option(
    "--encoder",
    "encoders",
    multiple=True,
    metavar="NAME=PATH",
    help="A frozen encoder (.onnx), whose sizes then count. Repeatable.",
)
@click.option("--config", "config_path", type=PathArgument, help="YAML configuration, as for aecf train.")
@click.option("--out", type=PathArgument, default=Path("out/dataset"), show_default=True, help="Where the page goes.")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def inspect_command(
    data: Path, encoders: tuple[str, ...], config_path: Path | None, out: Path, overrides: tuple[str, ...]
) -> None:
    """Show what DATA holds: classes, parts, recordings, what is missing, and examples to look at.

    DATA is a folder of recordings, a table (CSV or Parquet), or a folder that holds dataset.yaml. KEY=VALUE
    overrides the configuration:
    data.topics.camera=/front/image data.stride_s=1.
    """
    console = wide_console(140)
    try:
        config = load_config(config_path, [*overrides, *(_encoder_override(text) for text in encoders)])
        specs = _specs(config)
        corpus = open_corpus_watched(data, specs or None, config.data)
        with bars_on_stderr() as bar:
            reading = bar.add_task(
                "reading", total=sum(len(u.labels) for units in corpus.parts.values() for u in units)
            )
            inspection = inspect_corpus(corpus, lambda moments: bar.advance(reading, moments))
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    except DatasetError as error:
        raise click.ClickException(str(error)) from None
    _show(console, inspection)
    console.print(f"wrote {write_page(inspection, out)}", soft_wrap=True)


def _encoder_override(text: str) -> str:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise click.BadParameter(
            f"'{text}' is not NAME=PATH, such as camera=camera_encoder.onnx", param_hint="--encoder"
        )
    return f"encoders.{name}.onnx='{path}'"


def _specs(config: TrainConfig) -> list[ModalitySpec]:
    """What the encoders that a configuration names take."""
    if all(encoder.onnx is None and encoder.vector is None for encoder in config.encoders.values()):
        return []
    from aecf_ros.training.features.onnx_encoder import EncoderError
    from aecf_ros.training.run.preflight import configured_specs  # brings torch

    try:
        return configured_specs(config)
    except EncoderError as error:
        raise click.ClickException(str(error)) from None


def _show(console: Console, inspection: Inspection) -> None:
    console.print(f"[bold]{inspection.corpus.name}[/]: {headline(inspection)}", soft_wrap=True)
    for table in tables_of(inspection):
        console.print(_rich(table))
    for line in inspection.notes:
        console.print(f"[dim]{escape(line)}[/]", soft_wrap=True, highlight=False)
    say_warnings(console, inspection.warnings)


def _rich(table: TextTable) -> Table:
    title, header, rows = table
    shown = Table(title=title, title_justify="left", header_style="dim")
    for i, name in enumerate(header):
        shown.add_column(name, justify="left" if i == 0 or name in ("part", "classes") else "right")
    for row in rows[:_SHOWN]:
        shown.add_row(*row)
    if len(rows) > _SHOWN:
        shown.caption = f"{len(rows) - _SHOWN} more are on the page"
    return shown
