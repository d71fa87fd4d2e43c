"""`aecf` and its subcommands. Each imports what it needs when it runs, so that no command pays for another's libraries."""
from __future__ import annotations

import importlib
from pathlib import Path

import click
from rich.console import Console

PathArgument = click.Path(path_type=Path)
_LAZY = {"train": ("aecf_ros.training.command", "train_command", "turn labelled data into a model bundle")}


class _Commands(click.Group):
    """Commands defined here, and those that live in rooms with heavy imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_LAZY])

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _LAZY:
            return super().get_command(ctx, name)
        module, attribute, _ = _LAZY[name]
        try:
            return getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("aecf_ros"):
                raise
            raise click.ClickException(f"`aecf {name}` needs the package '{error.name}'; install it with: pip install 'aecf_ros[train]'") from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, _LAZY[name][2] if name in _LAZY else self.commands[name].get_short_help_str(90)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="aecf_ros")
def main() -> None:
    """Sensor fusion that keeps predicting, with an honest confidence, when a camera or a microphone stops."""


def _console() -> Console:
    """A console wide enough for the tables where there is no terminal to ask."""
    console = Console()
    return console if console.is_terminal else Console(width=110)


def _fails_in_one_line(error: Exception) -> click.ClickException:
    return click.ClickException(str(error))


@main.command()
@click.option("--model", type=PathArgument, default=None, help="Model bundle; the shipped one by default.")
@click.option("--bag", type=PathArgument, default=None, help="Recording; the bundle's demo.mcap by default.")
@click.option("--faults", type=PathArgument, default=None, help="Faults file; the shipped schedule by default.")
@click.option("--out", type=PathArgument, default=Path("out/demo"), show_default=True, help="Where the report goes.")
def demo(model: Path | None, bag: Path | None, faults: Path | None, out: Path) -> None:
    """Watch the fusion node keep predicting while its sensors fail."""
    from aecf_ros.core.bundle import BundleError
    from aecf_ros.nodes.demo import DemoError, run_demo
    from aecf_ros.nodes.parameters import shipped, shipped_model
    from aecf_ros.replay.bag import BagError
    from aecf_ros.replay.faults import FaultError

    model = model or shipped_model()
    try:
        run_demo(model, bag or model / "demo.mcap", faults or shipped("config/demo_faults.yaml"), out, _console())
    except (BundleError, BagError, FaultError, DemoError) as error:
        raise _fails_in_one_line(error) from None


@main.command()
@click.option("--model", type=PathArgument, required=True, help="Model bundle.")
@click.option("--bag", "bag_path", type=PathArgument, required=True, help="Recording: rosbag2 directory, .mcap or .db3.")
@click.option("--faults", "faults_path", type=PathArgument, default=None, help="Faults file: a YAML list of {stream, kind, start_s, end_s}.")
@click.option("--labels", "labels_path", type=PathArgument, default=None, help="CSV start_s,end_s,label; the bag's label topic by default.")
@click.option("--out", type=PathArgument, required=True, help="Where summary.json and report.html go.")
def evaluate(model: Path, bag_path: Path, faults_path: Path | None, labels_path: Path | None, out: Path) -> None:
    """Replay a recording through the node's pipeline: how accurate and how calibrated, with any sensor failing."""
    from rich.progress import Progress

    from aecf_ros.core.bundle import BundleError, load_bundle
    from aecf_ros.nodes.live_table import summary_tables
    from aecf_ros.replay.bag import BagError, open_bag
    from aecf_ros.replay.driver import evaluate as replay
    from aecf_ros.replay.faults import FaultError, load_faults
    from aecf_ros.replay.report import write_reports
    from aecf_ros.replay.truth import LabelError
    from aecf_ros.runtime.backends import BackendError, make_backend
    from aecf_ros.runtime.pipeline import Pipeline

    console = _console()
    try:
        bundle = load_bundle(model)
        faults = load_faults(faults_path, bundle.manifest.names) if faults_path else ()
        pipeline = Pipeline(bundle.manifest, make_backend("onnxruntime", bundle))
        with open_bag(bag_path) as bag, Progress(console=console, transient=True) as bar:
            task = bar.add_task("replaying", total=bag.duration_s)
            summary, answers, truth = replay(bag, pipeline, faults, labels_path, lambda at_s: bar.update(task, completed=at_s))
            duration_s = bag.duration_s
    except (BundleError, BagError, BackendError, FaultError, LabelError) as error:
        raise _fails_in_one_line(error) from None
    paths = write_reports(out, summary, answers, truth, faults, bundle.manifest, duration_s, f"aecf evaluate: {bag_path.name}")
    for table in summary_tables(summary):
        console.print(table)
    console.print(f"{summary['realtime_factor']:.0f} times real time; wrote " + " and ".join(str(path) for path in paths))


@main.command()
@click.argument("model", type=PathArgument)
def inspect(model: Path) -> None:
    """Show what a bundle holds, and whether it verifies."""
    from rich.table import Table

    from aecf_ros.core.bundle import BundleError, load_bundle
    from aecf_ros.runtime.backends import BackendError, make_backend

    try:
        bundle = load_bundle(model)
        make_backend("onnxruntime", bundle, device="cpu")
    except (BundleError, BackendError) as error:
        raise _fails_in_one_line(error) from None
    manifest, console = bundle.manifest, _console()
    console.print(f"[bold]{manifest.name}[/] {manifest.description}\nlabels: {', '.join(manifest.labels)}\n"
                  f"calibration: {manifest.calibration.method}, sets cover {manifest.calibration.coverage:.0%}; trained {manifest.training.created}")
    modalities = Table("modality", "kind", "input", "embedding", "encoder", header_style="dim")
    for m in manifest.modalities:
        modalities.add_row(m.name, m.kind, "x".join(map(str, m.input_shape)), str(m.embedding_dim), m.encoder)
    metrics = Table("held-out subset", "n", "accuracy", "NLL", "ECE", "floor", "coverage", header_style="dim")
    for name, m in manifest.metrics.items():
        metrics.add_row(name, str(m["n"]), *(f"{m[k]:.3f}" for k in ("accuracy", "nll", "ece", "ece_noise_floor", "coverage")))
    console.print(modalities, metrics, f"[green]verified[/]: {len(manifest.files)} files match their SHA-256 and the graphs load")


if __name__ == "__main__":
    main()
