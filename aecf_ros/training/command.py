"""`aecf train`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("train")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Dataset folder that holds dataset.yaml.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Bundle directory to write; its name is the model's."
)
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    help="YAML configuration, for example config/av_digits.yaml.",
)
@click.option(
    "--run",
    type=click.Path(path_type=Path),
    help="Folder for checkpoints, features and loss curves  [default: out/train/NAME]",
)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def train_command(
    data: Path, out: Path, config_path: Path | None, run: Path | None, overrides: tuple[str, ...]
) -> None:
    """Train a model bundle from a dataset folder.

    KEY=VALUE overrides the configuration, with dotted keys: head.optimizer.epochs=5 seed=1.
    A run that was killed goes on where it stopped when the same command is given again.
    """
    from aecf_ros.training.calibrate import CalibrationError
    from aecf_ros.training.config import ConfigError, load_config
    from aecf_ros.training.datasets import DatasetError
    from aecf_ros.training.export import ExportError
    from aecf_ros.training.train import train

    try:
        config = load_config(config_path, overrides)
        manifest = train(data, out, config, run=run)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    except (DatasetError, CalibrationError, ExportError, FloatingPointError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{'subset':<16}{'n':>7}{'accuracy':>10}{'NLL':>8}{'ECE':>8}{'floor':>8}")
    for name, of in manifest.metrics.items():
        click.echo(
            f"{name:<16}{of['n']:>7}{of['accuracy']:>10.4f}{of['nll']:>8.4f}{of['ece']:>8.4f}{of['ece_noise_floor']:>8.4f}"
        )
    click.echo(f"wrote {out}")
