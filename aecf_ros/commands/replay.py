"""`aecf replay`: a recording written again with what the node would have published, for viewers."""

from __future__ import annotations

from pathlib import Path

import click
from rich.progress import Progress

from aecf_ros.commands.shared.recordings import recording_options
from aecf_ros.commands.shared.terminal import PathArgument, in_one_line, say_warnings, wide_console
from aecf_ros.core.bundle import BundleError, load_bundle
from aecf_ros.replay.bag.errors import BagError
from aecf_ros.replay.bag.reader import open_bag
from aecf_ros.replay.bag.topics import Reading
from aecf_ros.replay.bag.writer import RecordError, record
from aecf_ros.replay.faults.schedule import FaultError, load_faults
from aecf_ros.replay.scoring.driver import stream_kinds
from aecf_ros.runtime.backends import BackendError, make_backend
from aecf_ros.runtime.pipeline import Pipeline


@click.command("replay")
@click.option("--model", type=PathArgument, required=True, help="Model bundle.")
@click.option(
    "--bag", "bag_path", type=PathArgument, required=True, help="Recording: rosbag2 directory, .mcap or .db3."
)
@click.option(
    "--faults",
    "faults_path",
    type=PathArgument,
    default=None,
    help="Faults file: a YAML list of {stream, kind, start_s, end_s, ...}.",
)
@recording_options
@click.option("--out", type=PathArgument, required=True, help="The .mcap to write.")
def replay_command(model: Path, bag_path: Path, faults_path: Path | None, reading: Reading, out: Path) -> None:
    """Write a recording again with predictions, diagnostics and a debug picture added, for Foxglove, Lichtblick or
    PlotJuggler.
    """
    console = wide_console()
    try:
        bundle = load_bundle(model)
        faults = load_faults(faults_path, stream_kinds(bundle.manifest)) if faults_path else ()
        backend = make_backend("onnxruntime", bundle)
        with open_bag(bag_path) as bag, Progress(console=console, transient=True) as bar:
            topics = bag.choose_topics(bundle.manifest, reading)
            console.print(f"[dim]{topics.line(bag.types)}[/]", soft_wrap=True)
            task = bar.add_task("replaying", total=bag.duration_s)
            counts = record(
                bag,
                topics,
                Pipeline(bundle.manifest, backend),
                out,
                faults,
                lambda at_s: bar.update(task, completed=at_s),
            )
            problems = bag.problems
    except (BundleError, BagError, BackendError, FaultError, RecordError) as error:
        raise in_one_line(error) from None
    say_warnings(console, problems)
    console.print(f"wrote {out}: " + ", ".join(f"{n} on {topic}" for topic, n in counts.items()), soft_wrap=True)
