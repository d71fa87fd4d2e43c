"""`aecf` and its subcommands. Each imports what it needs when it runs, so that no command pays for another's libraries."""
from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from aecf_ros import __version__

if TYPE_CHECKING:
    from aecf_ros.core.bundle import Manifest
    from aecf_ros.replay.bag import AudioFormat

PathArgument = click.Path(path_type=Path)
_LAZY = {"dataset": ("aecf_ros.commands.dataset", "dataset_command", "Look at labelled data before training on it."),
         "train": ("aecf_ros.commands.train", "train_command", "Turn labelled data into a model bundle."),
         "wrap-encoder": ("aecf_ros.training.wrap", "wrap_command", "Put an ONNX encoder's preprocessing into its graph, and check it."),
         "calibrate": ("aecf_ros.commands.calibrate", "calibrate_command", "Fit calibration again to a recording of this robot."),
         "compare": ("aecf_ros.commands.compare", "compare_command", "Compare two bundles on the same samples, with intervals."),
         "export": ("aecf_ros.training.torch_export", "export_command", "Write a bundle's head as a torch exported program."),
         "quantize": ("aecf_ros.commands.train", "quantize_command", "Write a bundle again in fp16 or int8, measured.")}


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
            raise click.ClickException(f"`aecf {name}` needs the package '{error.name}'; install what training needs: pip install torch onnx onnxscript scikit-learn") from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, _LAZY[name][2] if name in _LAZY else self.commands[name].get_short_help_str(90)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
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


def _topic_names(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """``camera=/x`` pairs."""
    named = {}
    for value in values:
        name, equals, topic = value.partition("=")
        if not (name and equals and topic):
            raise click.BadParameter(f"'{value}' is not STREAM=TOPIC, such as camera=/front/image; none is no topic")
        named[name] = topic
    return named


def _recording_options(command: Callable) -> Callable:
    """Options that say how a recording is read, shared by `evaluate` and `replay`."""
    for option in reversed((
            click.option("--topic", "topic_names", multiple=True, metavar="STREAM=TOPIC", callback=_topic_names,
                         help="Topic of a stream (camera=/x, audio_info=/y, label=/z, audio=none); by type and name by default. Repeatable."),
            click.option("--audio-format", default=None, metavar="S16LE", help="Sample format of sound that no AudioInfo describes."),
            click.option("--audio-rate", type=click.IntRange(1, 384_000), default=16000, show_default=True, help="Its sample rate in Hz."),
            click.option("--audio-channels", type=click.IntRange(1, 64), default=1, show_default=True, help="Its channels."))):
        command = option(command)
    return command


def _formats(manifest: Manifest, sample_format: str | None, rate_hz: int, channels: int) -> dict[str, AudioFormat]:
    from aecf_ros.replay.bag import AudioFormat

    if sample_format is None:
        return {}
    return {m.name: AudioFormat(sample_format, rate_hz, channels) for m in manifest.modalities if m.kind == "audio"}


@main.command()
@click.option("--model", "models", type=PathArgument, required=True, multiple=True, help="Model bundle. Repeatable: several are compared.")
@click.option("--bag", "bag_paths", type=PathArgument, required=True, multiple=True,
              help="Recording: rosbag2 directory, .mcap or .db3; or a folder of them. Repeatable: many are evaluated one by one and pooled.")
@click.option("--faults", "faults_paths", type=PathArgument, multiple=True,
              help="Faults file: a YAML list of {stream, kind, start_s, end_s, ...}. Repeatable: several are compared.")
@click.option("--labels", "labels_path", type=PathArgument, default=None, help="CSV start_s,end_s,label; the bag's label topic by default.")
@click.option("--sweep", "sweep_streams", default=None, metavar="STREAMS", help="Also run faults throughout the recording: camera,audio.")
@click.option("--kinds", default="drop,freeze,noise", show_default=True, help="Kinds of fault of the sweep.")
@click.option("--severity", default="0:5", show_default=True, help="Severities of the sweep.")
@_recording_options
@click.option("--workers", type=click.IntRange(1, 1024), default=1, show_default=True, help="Processes, for several recordings.")
@click.option("--ray", "ray_address", is_flag=False, flag_value="", default=None, metavar="[ADDRESS]",
              help="Several recordings over Ray: on this machine, or on the cluster at ADDRESS (auto finds one).")
@click.option("--out", type=PathArgument, required=True, help="Where summary.json and report.html go.")
def evaluate(models: tuple[Path, ...], bag_paths: tuple[Path, ...], faults_paths: tuple[Path, ...], labels_path: Path | None, sweep_streams: str | None,
             kinds: str, severity: str, topic_names: dict[str, str], audio_format: str | None, audio_rate: int, audio_channels: int, workers: int,
             ray_address: str | None, out: Path) -> None:
    """Replay recordings through the node's pipeline: how accurate and how calibrated, with any sensor failing."""
    from aecf_ros.replay.recordings import find_recordings

    if len(bag_paths) > 1 or bag_paths[0] not in (found := find_recordings(bag_paths[0])).values() and found:
        if len(models) > 1 or len(faults_paths) > 1 or sweep_streams or labels_path:
            raise click.UsageError("several recordings are evaluated with one --model and at most one --faults; --sweep and --labels are for one recording "
                                   "(labels of several: NAME.csv beside each)")
        audio = (audio_format, audio_rate, audio_channels) if audio_format else None
        _evaluate_many(bag_paths, models[0], out, faults_paths[0] if faults_paths else None, topic_names, audio, workers, ray_address)
        return
    _evaluate_one(models, bag_paths[0], faults_paths, labels_path, (sweep_streams, kinds, severity), topic_names, (audio_format, audio_rate, audio_channels), out)


def _evaluate_many(bags: tuple[Path, ...], model: Path, out: Path, *options: object) -> None:
    from aecf_ros.commands.fleet import evaluate_many
    from aecf_ros.core.bundle import BundleError
    from aecf_ros.core.cluster import ClusterError
    from aecf_ros.replay.bag import BagError
    from aecf_ros.replay.faults import FaultError
    from aecf_ros.replay.fleet import FleetError

    try:
        all_done = evaluate_many(_console(), bags, model, out, *options)
    except (BundleError, BagError, ClusterError, FaultError, FleetError) as error:
        raise _fails_in_one_line(error) from None
    if not all_done:
        raise SystemExit(1)


def _evaluate_one(models: tuple[Path, ...], bag_path: Path, faults_paths: tuple[Path, ...], labels_path: Path | None, swept: tuple[str | None, str, str],
                  topic_names: dict[str, str], sound: tuple[str | None, int, int], out: Path) -> None:
    from rich.progress import Progress

    from aecf_ros.core.bundle import Bundle, BundleError, load_bundle
    from aecf_ros.nodes.live_table import summary_tables, text_table
    from aecf_ros.replay.bag import BagError, open_bag
    from aecf_ros.replay.driver import evaluate as replay
    from aecf_ros.replay.driver import stream_kinds
    from aecf_ros.replay.faults import Fault, FaultError, load_faults
    from aecf_ros.replay.report import comparison_table, write_comparison
    from aecf_ros.replay.score import Run
    from aecf_ros.replay.sweep import plan, read_severities, sweep
    from aecf_ros.replay.truth import LabelError
    from aecf_ros.runtime.backends import BackendError, make_backend
    from aecf_ros.runtime.pipeline import Pipeline

    console, (sweep_streams, kinds, severity) = _console(), swept
    try:
        severities = read_severities(severity)
        bundles = [load_bundle(model) for model in models]
        schedules = [(path, load_faults(path, stream_kinds(bundles[0].manifest))) for path in faults_paths] or [(None, ())]
        names = _distinct([model.resolve().name for model in models], list(map(str, models)))
        files = _distinct([path.stem if path else "no faults" for path, _ in schedules], [str(path) for path, _ in schedules])
        with open_bag(bag_path) as bag, Progress(console=console, transient=True) as bar:
            topics = bag.choose_topics(bundles[0].manifest, topic_names)
            console.print(f"[dim]{topics.line(bag.types)}[/]", soft_wrap=True)

            def one(bundle: Bundle, faults: tuple[Fault, ...], title: str) -> Run:
                task = bar.add_task(title, total=bag.duration_s)
                chosen = topics if bundle is bundles[0] else bag.choose_topics(bundle.manifest, topic_names)
                pipeline = Pipeline(bundle.manifest, make_backend("onnxruntime", bundle))
                done = replay(bag, pipeline, faults, labels_path, lambda at_s: bar.update(task, completed=at_s), chosen,
                              _formats(bundle.manifest, *sound), title)
                bar.remove_task(task)
                return done

            swept_faults = plan(sweep_streams.split(","), kinds.split(","), severities, stream_kinds(bundles[0].manifest), bag.duration_s) \
                if sweep_streams else []
            compared = [one(bundle, faults, ", ".join(part for part, many in ((name, len(bundles) > 1), (file, len(schedules) > 1)) if many) or bag_path.name)
                        for bundle, name in zip(bundles, names, strict=True) for (_, faults), file in zip(schedules, files, strict=True)]
            points = []
            if swept_faults:
                task = bar.add_task("sweep", total=len(swept_faults))
                for point in sweep(swept_faults, lambda faults: one(bundles[0], faults, f"{faults[0].stream} {faults[0].kind}" if faults else "no fault")):
                    points.append(point)
                    bar.advance(task)
            losses = bag.losses
    except (BundleError, BagError, BackendError, FaultError, LabelError) as error:
        raise _fails_in_one_line(error) from None
    warnings = [*losses, *dict.fromkeys(w for run in compared if run.truth and (w := run.truth.warning(run.manifest.labels)))]
    paths = write_comparison(out, compared, f"aecf evaluate: {bag_path.name}", points)
    warnings += [f"fault {f.stream} {f.kind} begins at {f.start_s:g} s, and the recording ends at {compared[0].duration_s:.1f} s"
                 for run in compared for f in run.faults if f.start_s >= run.duration_s]
    for table in summary_tables(compared[0].summary) if len(compared) == 1 else [text_table("compared", *_narrow(*comparison_table(compared)))]:
        console.print(table)
    for line in warnings:
        console.print(f"[yellow]warning:[/] {line}", soft_wrap=True)
    console.print(f"{compared[0].summary['realtime_factor']:.0f} times real time; wrote " + " and ".join(str(path) for path in paths), soft_wrap=True)


def _narrow(header: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """The first six and the last two columns, which fit a terminal; the report has the others."""
    return [*header[:6], *header[-2:]], [[*row[:6], *row[-2:]] for row in rows]


def _distinct(names: list[str], fallback: list[str]) -> list[str]:
    """Short names where they tell things apart, else the long ones."""
    return names if len(set(names)) == len(names) else fallback


@main.command()
@click.option("--model", type=PathArgument, required=True, help="Model bundle.")
@click.option("--bag", "bag_path", type=PathArgument, required=True, help="Recording: rosbag2 directory, .mcap or .db3.")
@click.option("--faults", "faults_path", type=PathArgument, default=None, help="Faults file: a YAML list of {stream, kind, start_s, end_s, ...}.")
@_recording_options
@click.option("--out", type=PathArgument, required=True, help="The .mcap to write.")
def replay(model: Path, bag_path: Path, faults_path: Path | None, topic_names: dict[str, str], audio_format: str | None, audio_rate: int,
           audio_channels: int, out: Path) -> None:
    """Write a recording again with predictions, diagnostics and a debug picture added, for Foxglove, Lichtblick or PlotJuggler."""
    from rich.progress import Progress

    from aecf_ros.core.bundle import BundleError, load_bundle
    from aecf_ros.replay.bag import BagError, open_bag
    from aecf_ros.replay.driver import stream_kinds
    from aecf_ros.replay.faults import FaultError, load_faults
    from aecf_ros.replay.record import RecordError, record
    from aecf_ros.runtime.backends import BackendError, make_backend
    from aecf_ros.runtime.pipeline import Pipeline

    console = _console()
    try:
        bundle = load_bundle(model)
        faults = load_faults(faults_path, stream_kinds(bundle.manifest)) if faults_path else ()
        backend = make_backend("onnxruntime", bundle)
        with open_bag(bag_path) as bag, Progress(console=console, transient=True) as bar:
            topics = bag.choose_topics(bundle.manifest, topic_names)
            console.print(f"[dim]{topics.line(bag.types)}[/]", soft_wrap=True)
            task = bar.add_task("replaying", total=bag.duration_s)
            counts = record(bag, topics, Pipeline(bundle.manifest, backend), out, backend.device, faults,
                            _formats(bundle.manifest, audio_format, audio_rate, audio_channels), lambda at_s: bar.update(task, completed=at_s))
            losses = bag.losses
    except (BundleError, BagError, BackendError, FaultError, RecordError) as error:
        raise _fails_in_one_line(error) from None
    for line in losses:
        console.print(f"[yellow]warning:[/] {line}", soft_wrap=True)
    console.print(f"wrote {out}: " + ", ".join(f"{n} on {topic}" for topic, n in counts.items()), soft_wrap=True)


@main.command()
@click.argument("model", type=PathArgument)
def inspect(model: Path) -> None:
    """Show what a bundle holds, and whether it verifies."""
    from rich.table import Table

    from aecf_ros.core.bundle import BundleError, load_bundle
    from aecf_ros.core.label_metrics import SHOWN
    from aecf_ros.runtime.backends import BackendError, make_backend

    try:
        bundle = load_bundle(model)
        make_backend("onnxruntime", bundle, device="cpu")
    except (BundleError, BackendError) as error:
        raise _fails_in_one_line(error) from None
    manifest, console = bundle.manifest, _console()
    console.print(f"[bold]{manifest.name}[/] {manifest.description}\nlabels: {', '.join(manifest.labels)}\n"
                  f"task: {manifest.task}; calibration: {manifest.calibration.method}, sets cover {manifest.calibration.coverage:.0%}; trained {manifest.training.created}")
    modalities = Table("modality", "kind", "input", "embedding", "encoder", header_style="dim")
    for m in manifest.modalities:
        modalities.add_row(m.name, m.kind, "x".join(map(str, m.input_shape)), str(m.embedding_dim), m.encoder)
    metrics = Table("held-out subset", "n", *SHOWN[manifest.task].values(), header_style="dim")
    for name, m in manifest.metrics.items():
        metrics.add_row(name, str(m["n"]), *(f"{m[k]:.3f}" if k in m else "-" for k in SHOWN[manifest.task]))
    console.print(modalities, metrics, f"[green]verified[/]: {len(manifest.files)} files match their SHA-256 and the graphs load")


@main.command()
@click.option("--node", default="/fusion_node", show_default=True, help="Name of the node, with its namespace.")
def watch(node: str) -> None:
    """Watch a running fusion node live: what it says, how sure, and which sensors it trusts."""
    from aecf_ros.nodes.watch import WatchError
    from aecf_ros.nodes.watch import watch as watch_node

    try:
        watch_node(node, _console())
    except WatchError as error:
        raise _fails_in_one_line(error) from None


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Say what this machine has, what is wrong with it, and what to do."""
    from aecf_ros.nodes.doctor import examine, findings_json, findings_table

    findings = examine()
    if as_json:
        click.echo(findings_json(findings))
    else:
        _console().print(findings_table(findings))
    ctx.exit(1 if any(f.verdict == "FAIL" for f in findings) else 0)


if __name__ == "__main__":
    main()
