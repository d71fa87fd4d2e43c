"""`aecf quantize`: write a bundle again in fp16 or int8, measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from aecf_ros.commands.shared.corpus import open_corpus
from aecf_ros.commands.shared.terminal import PathArgument
from aecf_ros.core.bundle import BundleError, load_bundle
from aecf_ros.core.ray_cluster import ClusterError
from aecf_ros.replay.bag.errors import BagError
from aecf_ros.training.calibration.calibrate import CalibrationError
from aecf_ros.training.config import ConfigError
from aecf_ros.training.data.npy_dataset import DatasetError
from aecf_ros.training.evaluation.evaluate import Metrics
from aecf_ros.training.evaluation.measure import specs_of, training_config
from aecf_ros.training.export.head_graph import ExportError
from aecf_ros.training.export.quantize import PRECISIONS, comparison, quantize
from aecf_ros.training.features.onnx_encoder import EncoderError


@contextmanager
def training_errors() -> Iterator[None]:
    """Turn errors of the data, an encoder or the configuration into click's."""
    try:
        yield
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    except (
        DatasetError,
        EncoderError,
        CalibrationError,
        ExportError,
        BundleError,
        BagError,
        ClusterError,
        FloatingPointError,
    ) as error:
        raise click.ClickException(str(error)) from None


@click.command("quantize")
@click.argument("model", type=PathArgument)
@click.option(
    "--precision", required=True, type=click.Choice(list(PRECISIONS)), help="Of the encoders; the head stays as it is."
)
@click.option("--data", required=True, type=PathArgument, help="What the bundle was trained on.")
@click.option("--out", required=True, type=PathArgument, help="Bundle directory to write.")
def quantize_command(model: Path, precision: str, data: Path, out: Path) -> None:
    """Write a bundle again in fp16 or int8, with accuracy and calibration before and after."""
    with training_errors():
        bundle = load_bundle(model)
        corpus = open_corpus(data, specs_of(bundle), training_config(bundle).data)
        before, after = quantize(model, out, precision, corpus)
    print_comparison(before, after, out)


def print_comparison(before: Metrics, after: Metrics, out: Path) -> None:
    """Print accuracy and calibration before and after, by subset."""
    rows = comparison(before, after)
    widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo(
            "".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
        )
    click.echo(f"wrote {out}")
