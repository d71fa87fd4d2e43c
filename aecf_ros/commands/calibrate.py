"""`aecf calibrate`: a bundle's calibration fitted again to labeled recordings of another robot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from rich.table import Table

from aecf_ros.commands.shared.corpus import reading_of
from aecf_ros.commands.shared.recordings import recording_options
from aecf_ros.commands.shared.terminal import PathArgument, bars_on_stderr, say_warnings, wide_console
from aecf_ros.core.bundle import Bundle, BundleError, load_bundle
from aecf_ros.replay.bag.discovery import find_recordings
from aecf_ros.replay.bag.errors import BagError
from aecf_ros.replay.bag.reader import open_bag
from aecf_ros.replay.bag.topics import DEFAULT_READING, Reading
from aecf_ros.replay.samples import BagUnit, scan_recording
from aecf_ros.replay.scoring.ground_truth import LabelError
from aecf_ros.replay.scoring.label_spans import read_spans
from aecf_ros.training.calibration.calibrate import CalibrationError
from aecf_ros.training.calibration.recalibrate import EmbeddedMoments, RecalibrationConfig
from aecf_ros.training.calibration.recalibrate_bundle import recalibrate_bundle, table
from aecf_ros.training.config import CalibrationConfig, DataConfig
from aecf_ros.training.evaluation.measure import specs_of, training_config
from aecf_ros.training.export.head_graph import ExportError
from aecf_ros.training.features.onnx_encoder import EncoderError, open_encoder

BATCH = 32


class NoLabeledMomentsError(ValueError):
    """Recordings in which nothing is labeled that a bundle knows; one line with what was found and what to do."""


def field_units(
    bundle: Bundle,
    path: Path,
    labels: Path | None,
    reading: Reading = DEFAULT_READING,
) -> tuple[list[BagUnit], list[str]]:
    """The labeled moments of a recording, or of each in a folder, and warnings of what was left out.

    Args:
        labels: a CSV of start_s,end_s,label, for one recording; else one beside it, else its label topic.
        reading: sound that no ``AudioInfo`` describes is read as in training where it has no format of its own.

    Raises:
        BagError, LabelError: a recording or its labels cannot be read.
        NoLabeledMomentsError: nothing in it is labeled.
    """
    manifest, data, trained = bundle.manifest, DataConfig(), training_config(bundle).data
    reading = Reading(reading.topics, reading.audio_format or reading_of(trained).audio_format)
    specs, classes = specs_of(bundle), {label: i for i, label in enumerate(bundle.manifest.labels)}
    recordings = find_recordings(path)
    if not recordings:
        raise BagError(f"{path}: no recording; name a rosbag2 directory, an .mcap or a .db3, or a folder of them")
    if labels is not None and len(recordings) > 1:
        raise LabelError(
            f"{labels}: is for one recording, and {path} holds {len(recordings)}; lay NAME.csv beside each"
        )
    units, warnings, unknown = [], list[str](), set()
    for name, at in recordings.items():
        scan = scan_recording(name, at, specs, reading)
        if labels is not None:
            with open_bag(at) as bag:
                scan = replace(scan, spans=read_spans(bag, labels, None))
        unknown |= {span.label for span in scan.spans} - set(classes)
        unit = replace(scan, spans=[s for s in scan.spans if s.label in classes]).unit(
            specs, classes, data.stride_s, data.settle_s, data.max_age_s
        )
        warnings += scan.problems
        if len(unit.labels):
            units.append(unit)
    if unknown:
        warnings.append(
            f"labels {', '.join(sorted(unknown)[:5])} are none of the model's ({', '.join(manifest.labels)}); "
            "their spans are left out"
        )
    if not units:
        raise NoLabeledMomentsError(
            f"{path}: no labeled span that outlasts the settling after a change of label; "
            "label it by a topic or by --labels start_s,end_s,label" + "".join(f"; {line}" for line in warnings[-1:])
        )
    return units, warnings


def encode(
    bundle: Bundle, units: Sequence[BagUnit], advance: Callable[[int], None] = lambda moments: None
) -> EmbeddedMoments:
    """Encode every moment with the encoders of a bundle.

    Raises:
        EncoderError: an encoder cannot be used.
    """
    manifest = bundle.manifest
    encoders = {m.name: open_encoder(bundle.path(m.encoder), m.name) for m in manifest.modalities}
    embeddings: list[list[np.ndarray]] = [[] for _ in encoders]
    present, spans, first = [], [], 0
    for unit in units:
        for batch in unit.batches(BATCH):
            for m, (name, encoder) in enumerate(encoders.items()):
                rows = np.zeros((len(batch.present), encoder.embedding_dim), np.float32)
                if batch.present[:, m].any():
                    rows[batch.present[:, m]] = encoder.encode(batch.inputs[name])
                embeddings[m].append(rows)
            present.append(batch.present)
            advance(len(batch.present))
        spans.append(first + unit.clusters)
        first = int(spans[-1].max()) + 1
    return EmbeddedMoments(
        [np.concatenate(batches) for batches in embeddings],
        np.concatenate(present),
        np.concatenate([u.labels for u in units]),
        np.concatenate(spans),
    )


def _settings(bundle: Bundle, coverage: float | None) -> RecalibrationConfig:
    """The settings of the training, with the coverage of the command line if there is one."""
    fields = bundle.manifest.training.config.get("calibration", {})
    known = CalibrationConfig.model_validate(
        {key: value for key, value in fields.items() if key in CalibrationConfig.model_fields}
    )
    return RecalibrationConfig(
        coverage or bundle.manifest.calibration.coverage, known.minimum_samples, known.conflict_rate, known.outlier_rate
    )


@click.command("calibrate")
@click.option("--model", required=True, type=PathArgument, help="Model bundle.")
@click.option("--bag", required=True, type=PathArgument, help="Labeled recording of this robot, or a folder of them.")
@click.option(
    "--labels",
    type=PathArgument,
    default=None,
    help="CSV start_s,end_s,label; NAME.csv beside the recording or its label topic by default.",
)
@recording_options
@click.option(
    "--coverage",
    type=click.FloatRange(0.5, 0.999),
    default=None,
    help="Of prediction sets; the bundle's by default. A lower one needs fewer spans.",
)
@click.option("--out", required=True, type=PathArgument, help="Bundle directory to write.")
def calibrate_command(
    model: Path,
    bag: Path,
    labels: Path | None,
    reading: Reading,
    coverage: float | None,
    out: Path,
) -> None:
    """Fit a bundle's calibration to labeled recordings of this robot; its weights and its test figures stay.

    Prints the gain on held-out spans, or that there is none. Sound that no AudioInfo describes is read as in training,
    unless --audio-format is given.
    """
    console = wide_console(140)
    try:
        bundle = load_bundle(model)
        if bundle.manifest.task == "multilabel":
            raise BundleError(
                f"{model}: its task is multilabel, and calibration is fitted again where a moment has one label; "
                "train it again with the new data"
            )
        units, warnings = field_units(bundle, bag, labels, reading)
        with bars_on_stderr() as bar:
            task = bar.add_task("encoding", total=sum(len(unit.labels) for unit in units))
            moments = encode(bundle, units, lambda done: bar.advance(task, done))
            bar.add_task("fitting and exporting", total=None)
            gain = recalibrate_bundle(bundle, out, moments, [unit.name for unit in units], _settings(bundle, coverage))
    except (
        BundleError,
        BagError,
        LabelError,
        NoLabeledMomentsError,
        EncoderError,
        CalibrationError,
        ExportError,
    ) as error:
        raise click.ClickException(str(error)) from None
    header, *rows = table(gain)
    shown = Table(*header, header_style="dim", title="held-out spans", title_justify="left")
    for row in rows:
        shown.add_row(*row)
    console.print(shown)
    say_warnings(console, [*warnings, *dict.fromkeys(line for unit in units for line in unit.problems)])
    console.print(f"{gain.verdict}.\nwrote {out}", soft_wrap=True)
