"""`aecf compare`: whether one model is better than another, with intervals."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.table import Table

from aecf_ros.commands.shared.terminal import PathArgument, bars_on_stderr, wide_console
from aecf_ros.core.bundle import Bundle, BundleError, load_bundle
from aecf_ros.core.metrics.comparison import HEADER, Comparison, as_json, rows
from aecf_ros.replay.bag.errors import BagError
from aecf_ros.replay.bag.reader import open_bag
from aecf_ros.replay.faults.schedule import FaultError, load_faults
from aecf_ros.replay.scoring.compare import compare_runs
from aecf_ros.replay.scoring.driver import evaluate, read_ground_truth, stream_kinds
from aecf_ros.replay.scoring.ground_truth import LabelError
from aecf_ros.runtime.backends import BackendError, make_backend
from aecf_ros.runtime.pipeline import Pipeline


def _require_alike(first: Bundle, second: Bundle) -> None:
    several = next((bundle.directory for bundle in (first, second) if bundle.manifest.task == "multilabel"), None)
    if several is not None:
        raise click.ClickException(
            f"{several}: its task is multilabel, "
            "and models are compared whose moments have one label; their cards have macro mAP"
        )
    for what in ("names", "labels"):
        values = [getattr(bundle.manifest, what) for bundle in (first, second)]
        if values[0] != values[1]:
            kind = "modalities" if what == "names" else what
            raise click.ClickException(
                f"{second.directory}: its {kind} are {', '.join(values[1])}, "
                f"those of {first.directory} are {', '.join(values[0])}; "
                f"give two models with the same {kind} in the same order"
            )


def _on_recording(
    first: Bundle, second: Bundle, bag_path: Path, faults_path: Path | None, labels: Path | None
) -> dict[str, Comparison]:
    faults = load_faults(faults_path, stream_kinds(first.manifest)) if faults_path else ()
    with open_bag(bag_path) as bag, bars_on_stderr() as bar:
        topics = bag.choose_topics(first.manifest)
        if read_ground_truth(bag, topics, first.manifest, labels) is None:
            raise LabelError(f"{bag_path}: nothing in it is labeled; give --labels, a CSV of start_s,end_s,label")
        runs = []
        for bundle in (first, second):
            task = bar.add_task(bundle.directory.name, total=bag.duration_s)
            pipeline = Pipeline(bundle.manifest, make_backend("onnxruntime", bundle))
            runs.append(evaluate(bag, pipeline, faults, labels, lambda at_s: bar.update(task, completed=at_s), topics))  # noqa: B023
    return compare_runs(*runs)


def _on_data(first: Bundle, second: Bundle, data: Path) -> dict[str, Comparison]:
    """Imported here: recordings are compared without torch."""
    try:
        from aecf_ros.commands.shared.corpus import open_corpus
        from aecf_ros.training.data.npy_dataset import DatasetError
        from aecf_ros.training.evaluation.compare import compare_on
        from aecf_ros.training.evaluation.measure import specs_of, training_config
        from aecf_ros.training.features.onnx_encoder import EncoderError
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"--data needs the package '{error.name}', as training does; or compare on a recording with --bag"
        ) from None
    try:
        return compare_on(first, second, open_corpus(data, specs_of(first), training_config(first).data))
    except (DatasetError, EncoderError) as error:
        raise click.ClickException(str(error)) from None


@click.command("compare")
@click.argument("first", type=PathArgument)
@click.argument("second", type=PathArgument)
@click.option("--bag", type=PathArgument, default=None, help="Labeled recording: rosbag2 directory, .mcap or .db3.")
@click.option("--faults", type=PathArgument, default=None, help="Faults file that both meet.")
@click.option(
    "--labels", type=PathArgument, default=None, help="CSV start_s,end_s,label; the recording's label topic by default."
)
@click.option(
    "--data",
    type=PathArgument,
    default=None,
    help="Instead of a recording: data as for aecf train, whose test part counts.",
)
@click.option("--out", type=PathArgument, default=None, help="JSON file to write.")
def compare_command(
    first: Path,
    second: Path,
    bag: Path | None,
    faults: Path | None,
    labels: Path | None,
    data: Path | None,
    out: Path | None,
) -> None:
    """Compare two bundles on the same samples, subset by subset.

    Differences are of the SECOND less the FIRST. Intervals are 95 %, by drawing labeled spans, because frames of one
    span are not independent; where an interval holds zero, no difference is shown.
    """
    if (bag is None) == (data is None):
        raise click.UsageError("give a recording with --bag, or data with --data, one of the two")
    if bag is None and (faults or labels):
        raise click.UsageError("--faults and --labels go with --bag")
    try:
        bundles = load_bundle(first), load_bundle(second)
        _require_alike(*bundles)
        if bag is not None:
            comparison = _on_recording(*bundles, bag, faults, labels)
        else:
            assert data is not None  # one of the two is given
            comparison = _on_data(*bundles, data)
    except (BundleError, BackendError, BagError, FaultError, LabelError) as error:
        raise click.ClickException(str(error)) from None
    console = wide_console(140)
    shown = Table(*HEADER, header_style="dim")
    for row in rows(comparison):
        shown.add_row(*row)
    console.print(f"first: {first}\nsecond: {second}", soft_wrap=True, highlight=False)
    console.print(shown)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        record = {
            "first": str(first),
            "second": str(second),
            "on": str(bag or data),
            "faults": str(faults) if faults else None,
            "subsets": as_json(comparison),
        }
        out.write_text(json.dumps(record, indent=1), encoding="utf-8")
        console.print(f"wrote {out}", soft_wrap=True)
