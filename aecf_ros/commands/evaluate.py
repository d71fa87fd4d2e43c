"""`aecf evaluate`: recordings through the node's pipeline, scored, with any sensor failing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import click
from rich.progress import Progress

from aecf_ros.commands.shared.batch import evaluate_many
from aecf_ros.commands.shared.recordings import recording_options
from aecf_ros.commands.shared.terminal import PathArgument, in_one_line, say_warnings, wide_console
from aecf_ros.core.bundle import Bundle, BundleError, load_bundle
from aecf_ros.core.ray_cluster import ClusterError
from aecf_ros.replay.bag.discovery import find_recordings
from aecf_ros.replay.bag.errors import BagError
from aecf_ros.replay.bag.reader import Bag, open_bag
from aecf_ros.replay.bag.topics import Reading
from aecf_ros.replay.faults.schedule import Fault, FaultError, load_faults
from aecf_ros.replay.faults.sweep import plan, read_severities, sweep
from aecf_ros.replay.report.html import comparison_table, write_comparison
from aecf_ros.replay.report.tables import summary_tables, text_table
from aecf_ros.replay.scoring.batch import FleetError
from aecf_ros.replay.scoring.driver import evaluate, stream_kinds
from aecf_ros.replay.scoring.ground_truth import LabelError
from aecf_ros.replay.scoring.score import Run
from aecf_ros.replay.scoring.summary import SweepPoint
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
    if len(bag_paths) > 1 or bag_paths[0] not in (recordings := find_recordings(bag_paths[0])).values() and recordings:
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
        titles = _titles(models, [path for path, _ in schedules], bag_path.name)
        with open_bag(bag_path) as bag, Progress(console=console, transient=True) as bar:
            evaluation = _Evaluation(bag, labels_path, reading, bar)
            topics = bag.choose_topics(bundles[0].manifest, reading)
            console.print(f"[dim]{topics.line(bag.types)}[/]", soft_wrap=True)
            runs = [
                evaluation.run(bundle, faults, title)
                for title, (bundle, (_, faults)) in zip(titles, product(bundles, schedules), strict=True)
            ]
            points: list[SweepPoint] = []
            if sweep_streams:
                names = sweep_streams.split(","), kinds.split(",")
                schedule = plan(*names, severities, kinds_of_streams, bag.duration_s)
                points = evaluation.sweep(bundles[0], schedule)
            problems = bag.problems
    except (BundleError, BagError, BackendError, FaultError, LabelError) as error:
        raise in_one_line(error) from None
    paths = write_comparison(out, runs, f"aecf evaluate: {bag_path.name}", points)
    several = [text_table("compared", *_narrow(*comparison_table(runs)))]
    for table in summary_tables(runs[0].summary) if len(runs) == 1 else several:
        console.print(table)
    say_warnings(console, [*problems, *_warnings(runs)])
    wrote = " and ".join(str(path) for path in paths)
    console.print(f"{runs[0].summary.realtime_factor:.0f} times real time; wrote {wrote}", soft_wrap=True)


@dataclass(frozen=True)
class _Evaluation:
    """One recording, evaluated several times."""

    bag: Bag
    labels_path: Path | None
    reading: Reading
    bar: Progress

    def run(self, bundle: Bundle, faults: tuple[Fault, ...], title: str) -> Run:
        """Evaluate one model under one schedule of faults."""
        task = self.bar.add_task(title, total=self.bag.duration_s)
        topics = self.bag.choose_topics(bundle.manifest, self.reading)
        pipeline = Pipeline(bundle.manifest, make_backend("onnxruntime", bundle))
        run = evaluate(
            self.bag, pipeline, faults, self.labels_path, lambda at_s: self.bar.update(task, completed=at_s), topics
        )
        self.bar.remove_task(task)
        return replace(run, title=title)

    def sweep(self, bundle: Bundle, schedule: Sequence[Fault]) -> list[SweepPoint]:
        """Evaluate one model under each fault of a sweep."""
        task = self.bar.add_task("sweep", total=len(schedule))
        points = []

        def run(faults: tuple[Fault, ...]) -> Run:
            return self.run(bundle, faults, f"{faults[0].stream} {faults[0].kind}" if faults else "no fault")

        for point in sweep(schedule, run):
            points.append(point)
            self.bar.advance(task)
        return points


def _titles(models: Sequence[Path], schedules: Sequence[Path | None], recording: str) -> list[str]:
    """A title for each model and schedule, by what differs between them."""
    names = _distinct([model.resolve().name for model in models], list(map(str, models)))
    files = _distinct([path.stem if path else "no faults" for path in schedules], list(map(str, schedules)))
    parts = product(names if len(models) > 1 else [""], files if len(schedules) > 1 else [""])
    return [", ".join(filter(None, part)) or recording for part in parts]


def _warnings(runs: Sequence[Run]) -> list[str]:
    """Warnings about labels, and faults that begin after the end of the recording."""
    labels = dict.fromkeys(w for run in runs if run.truth and (w := run.truth.warning(run.manifest.labels)))
    end_s = runs[0].duration_s
    return [*labels] + [
        f"fault {fault.stream} {fault.kind} begins at {fault.start_s:g} s, and the recording ends at {end_s:.1f} s"
        for run in runs
        for fault in run.faults
        if fault.start_s >= run.duration_s
    ]


def _narrow(header: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """The first six and the last two columns, which fit a terminal; the report has the others."""
    return [*header[:6], *header[-2:]], [[*row[:6], *row[-2:]] for row in rows]


def _distinct(names: list[str], fallback: list[str]) -> list[str]:
    """Short names where they tell things apart, else the long ones."""
    return names if len(set(names)) == len(names) else fallback
