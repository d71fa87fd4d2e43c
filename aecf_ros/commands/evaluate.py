"""`aecf evaluate`: recordings through the node's pipeline, scored, with any sensor failing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
from rich.progress import Progress

from aecf_ros.commands.fleet import evaluate_many
from aecf_ros.commands.recording import recording_options
from aecf_ros.commands.terminal import PathArgument, in_one_line, say_warnings, wide_console
from aecf_ros.core.bundle import Bundle, BundleError, load_bundle
from aecf_ros.core.ray_cluster import ClusterError
from aecf_ros.replay.bag.discovery import find_recordings
from aecf_ros.replay.bag.errors import BagError
from aecf_ros.replay.bag.reader import open_bag
from aecf_ros.replay.bag.topics import Reading
from aecf_ros.replay.faults.schedule import Fault, FaultError, load_faults
from aecf_ros.replay.faults.sweep import plan, read_severities, sweep
from aecf_ros.replay.report.html import comparison_table, write_comparison
from aecf_ros.replay.report.tables import summary_tables, text_table
from aecf_ros.replay.scoring.batch import FleetError
from aecf_ros.replay.scoring.driver import evaluate, stream_kinds
from aecf_ros.replay.scoring.ground_truth import LabelError
from aecf_ros.replay.scoring.score import Run
from aecf_ros.runtime.backends import BackendError, make_backend
from aecf_ros.runtime.pipeline import Pipeline


@click.command("evaluate")
@click.option(
    "--model",
    "models",
    type=PathArgument,
    required=True,
    multiple=True,
    help="Model bundle. Repeatable: several are compared.",
)
@click.option(
    "--bag",
    "bag_paths",
    type=PathArgument,
    required=True,
    multiple=True,
    help="Recording: rosbag2 directory, .mcap or .db3; or a folder of them. Repeatable: many are evaluated and pooled.",
)
@click.option(
    "--faults",
    "faults_paths",
    type=PathArgument,
    multiple=True,
    help="Faults file: a YAML list of {stream, kind, start_s, end_s, ...}. Repeatable: several are compared.",
)
@click.option(
    "--labels",
    "labels_path",
    type=PathArgument,
    default=None,
    help="CSV start_s,end_s,label; the bag's label topic by default.",
)
@click.option(
    "--sweep",
    "sweep_streams",
    default=None,
    metavar="STREAMS",
    help="Also run faults throughout the recording: camera,audio.",
)
@click.option("--kinds", default="drop,freeze,noise", show_default=True, help="Kinds of fault of the sweep.")
@click.option("--severity", default="0:5", show_default=True, help="Severities of the sweep.")
@recording_options
@click.option(
    "--workers", type=click.IntRange(1, 1024), default=1, show_default=True, help="Processes, for several recordings."
)
@click.option(
    "--ray",
    "ray_address",
    is_flag=False,
    flag_value="",
    default=None,
    metavar="[ADDRESS]",
    help="Several recordings over Ray: on this machine, or on the cluster at ADDRESS (auto finds one).",
)
@click.option("--out", type=PathArgument, required=True, help="Where summary.json and report.html go.")
def evaluate_command(
    models: tuple[Path, ...],
    bag_paths: tuple[Path, ...],
    faults_paths: tuple[Path, ...],
    labels_path: Path | None,
    sweep_streams: str | None,
    kinds: str,
    severity: str,
    reading: Reading,
    workers: int,
    ray_address: str | None,
    out: Path,
) -> None:
    """Replay recordings through the node's pipeline: how accurate and how calibrated, with any sensor failing."""
    if len(bag_paths) > 1 or bag_paths[0] not in (found := find_recordings(bag_paths[0])).values() and found:
        if len(models) > 1 or len(faults_paths) > 1 or sweep_streams or labels_path:
            raise click.UsageError(
                "several recordings are evaluated with one --model and at most one --faults; --sweep "
                "and --labels are for one recording "
                "(labels of several: NAME.csv beside each)"
            )
        _evaluate_many(
            bag_paths, models[0], out, faults_paths[0] if faults_paths else None, reading, workers, ray_address
        )
        return
    _evaluate_one(models, bag_paths[0], faults_paths, labels_path, (sweep_streams, kinds, severity), reading, out)


def _evaluate_many(
    bags: tuple[Path, ...],
    model: Path,
    out: Path,
    faults: Path | None,
    reading: Reading,
    workers: int,
    ray_address: str | None,
) -> None:
    try:
        all_done = evaluate_many(wide_console(), bags, model, out, faults, reading, workers, ray_address)
    except (BundleError, BagError, ClusterError, FaultError, FleetError) as error:
        raise in_one_line(error) from None
    if not all_done:
        raise SystemExit(1)


def _evaluate_one(
    models: tuple[Path, ...],
    bag_path: Path,
    faults_paths: tuple[Path, ...],
    labels_path: Path | None,
    swept: tuple[str | None, str, str],
    reading: Reading,
    out: Path,
) -> None:
    console, (sweep_streams, kinds, severity) = wide_console(), swept
    try:
        severities = read_severities(severity)
        bundles = [load_bundle(model) for model in models]
        kinds_of_streams = stream_kinds(bundles[0].manifest)
        schedules: list[tuple[Path | None, tuple[Fault, ...]]] = [
            (path, load_faults(path, kinds_of_streams)) for path in faults_paths
        ] or [(None, ())]
        names = _distinct([model.resolve().name for model in models], list(map(str, models)))
        files = _distinct(
            [path.stem if path else "no faults" for path, _ in schedules], [str(path) for path, _ in schedules]
        )
        with open_bag(bag_path) as bag, Progress(console=console, transient=True) as bar:
            topics = bag.choose_topics(bundles[0].manifest, reading)
            console.print(f"[dim]{topics.line(bag.types)}[/]", soft_wrap=True)

            def one(bundle: Bundle, faults: tuple[Fault, ...], title: str) -> Run:
                task = bar.add_task(title, total=bag.duration_s)
                chosen = topics if bundle is bundles[0] else bag.choose_topics(bundle.manifest, reading)
                pipeline = Pipeline(bundle.manifest, make_backend("onnxruntime", bundle))
                done = evaluate(
                    bag,
                    pipeline,
                    faults,
                    labels_path,
                    lambda at_s: bar.update(task, completed=at_s),
                    chosen,
                )
                bar.remove_task(task)
                return replace(done, title=title)

            swept_faults = (
                plan(
                    sweep_streams.split(","),
                    kinds.split(","),
                    severities,
                    stream_kinds(bundles[0].manifest),
                    bag.duration_s,
                )
                if sweep_streams
                else []
            )
            compared = [
                one(
                    bundle,
                    faults,
                    ", ".join(part for part, many in ((name, len(bundles) > 1), (file, len(schedules) > 1)) if many)
                    or bag_path.name,
                )
                for bundle, name in zip(bundles, names, strict=True)
                for (_, faults), file in zip(schedules, files, strict=True)
            ]
            points = []
            if swept_faults:
                task = bar.add_task("sweep", total=len(swept_faults))
                for point in sweep(
                    swept_faults,
                    lambda faults: one(
                        bundles[0], faults, f"{faults[0].stream} {faults[0].kind}" if faults else "no fault"
                    ),
                ):
                    points.append(point)
                    bar.advance(task)
            problems = bag.problems
    except (BundleError, BagError, BackendError, FaultError, LabelError) as error:
        raise in_one_line(error) from None
    warnings = [
        *problems,
        *dict.fromkeys(w for run in compared if run.truth and (w := run.truth.warning(run.manifest.labels))),
    ]
    paths = write_comparison(out, compared, f"aecf evaluate: {bag_path.name}", points)
    warnings += [
        f"fault {f.stream} {f.kind} begins at {f.start_s:g} s, and the recording ends at {compared[0].duration_s:.1f} s"
        for run in compared
        for f in run.faults
        if f.start_s >= run.duration_s
    ]
    for table in (
        summary_tables(compared[0].summary)
        if len(compared) == 1
        else [text_table("compared", *_narrow(*comparison_table(compared)))]
    ):
        console.print(table)
    say_warnings(console, warnings)
    console.print(
        f"{compared[0].summary.realtime_factor:.0f} times real time; wrote "
        + " and ".join(str(path) for path in paths),
        soft_wrap=True,
    )


def _narrow(header: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """The first six and the last two columns, which fit a terminal; the report has the others."""
    return [*header[:6], *header[-2:]], [[*row[:6], *row[-2:]] for row in rows]


def _distinct(names: list[str], fallback: list[str]) -> list[str]:
    """Short names where they tell things apart, else the long ones."""
    return names if len(set(names)) == len(names) else fallback
