"""`aecf train`: train a model bundle from labeled data."""

from __future__ import annotations

from pathlib import Path

import click

from aecf_ros.commands.quantize import print_comparison, training_errors
from aecf_ros.commands.shared.corpus import open_corpus_watched
from aecf_ros.commands.shared.terminal import PathArgument
from aecf_ros.core.metrics.multilabel import SHOWN
from aecf_ros.training.config import ConfigError, TrainConfig
from aecf_ros.training.config_loader import load_config
from aecf_ros.training.data.corpus import Corpus
from aecf_ros.training.export.quantize import PRECISIONS, quantize
from aecf_ros.training.head.distributed import process_group
from aecf_ros.training.run.preflight import configured_specs
from aecf_ros.training.run.run import Workers
from aecf_ros.training.run.train import train


@click.command("train")
@click.option(
    "--data",
    required=True,
    type=PathArgument,
    help="Folder of recordings, table (CSV, Parquet), or folder that holds dataset.yaml.",
)
@click.option("--out", required=True, type=PathArgument, help="Bundle directory to write; its name is the model's.")
@click.option(
    "--config", "config_path", type=PathArgument, help="YAML configuration, for example config/av_digits.yaml."
)
@click.option(
    "--run", type=PathArgument, help="Folder for checkpoints, features, losses and plots  [default: out/train/NAME]"
)
@click.option(
    "--ray",
    "ray_address",
    is_flag=False,
    flag_value="",
    default=None,
    metavar="[ADDRESS]",
    help="Compute features over Ray: on this machine, or on the cluster at ADDRESS (auto finds one).",
)
@click.option(
    "--tune",
    "trials",
    type=click.IntRange(1),
    help="First search the head's settings in so many trials, on the calibration part.",
)
@click.option(
    "--quantize",
    "precisions",
    multiple=True,
    type=click.Choice(list(PRECISIONS)),
    help="Also write OUT-PRECISION, measured beside OUT. Repeatable.",
)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def train_command(
    data: Path,
    out: Path,
    config_path: Path | None,
    run: Path | None,
    ray_address: str | None,
    trials: int | None,
    precisions: tuple[str, ...],
    overrides: tuple[str, ...],
) -> None:
    """Train a model bundle from labeled data.

    KEY=VALUE overrides the configuration, with dotted keys: head.optimizer.epochs=5 encoders.camera.onnx=dino.onnx.
    A run that was killed goes on where it stopped when the same command is given again. Under torchrun
    its processes share the work (docs/scale.md).
    """
    with training_errors():
        config = load_config(config_path, overrides)
        specs = configured_specs(config)
        corpus = open_corpus_watched(data, specs or None, config.data)
        with process_group() as processes:
            for line in corpus.warnings if processes.is_first else ():
                click.echo(f"warning: {line}", err=True)
            if trials is not None:
                config = _tuned(corpus, out, config, trials, run, processes.size)
            if ray_address is not None and processes.size > 1:
                raise ConfigError("--ray and torchrun both share the work; use one of them")
            manifest = train(corpus, out, config, run=run, workers=Workers(processes, ray_address))
            if not processes.is_first:
                return
        for line in dict.fromkeys(line for units in corpus.parts.values() for unit in units for line in unit.problems):
            click.echo(f"warning: {line}", err=True)
    shown = SHOWN[manifest.task]
    click.echo(f"{'subset':<16}{'n':>7}" + "".join(f"{title:>11}" for title in shown.values()))
    for name, values in manifest.metrics.items():
        row = "".join(f"{values[key]:>11.4f}" for key in shown) if values["n"] else "  no such moments in the test part"
        click.echo(f"{name:<16}{values['n']:>7}{row}")
    click.echo(f"wrote {out}")
    for precision in precisions:
        with training_errors():
            smaller = out.with_name(f"{out.name}-{precision}")
            print_comparison(*quantize(out, smaller, precision, corpus), smaller)


def _tuned(
    corpus: Corpus, out: Path, config: TrainConfig, trials: int, run: Path | None, processes: int
) -> TrainConfig:
    if processes > 1:
        raise ConfigError(
            "--tune works in one process; search without torchrun, then train with the run folder's tuned.yaml"
        )
    try:
        from aecf_ros.training.run.tune import tune
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise ConfigError("--tune needs the package optuna; pip install optuna") from None
    best, nll, given = tune(corpus, out, config, trials, run=run)
    click.echo(
        f"NLL over all subsets on halves of the calibration part: {given:.4f} as configured, {nll:.4f} as in tuned.yaml"
    )
    return best
