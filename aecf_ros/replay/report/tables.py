"""What the terminal shows: one prediction as it is now, and the tables of a summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from aecf_ros.core.bundle import Manifest
from aecf_ros.core.types import NANOSECONDS, Prediction, StreamState
from aecf_ros.replay.faults.schedule import Fault
from aecf_ros.replay.report.html import FAULT_HEADER, fault_rows, subset_header, subset_rows
from aecf_ros.replay.scoring.ground_truth import GroundTruth
from aecf_ros.replay.scoring.summary import Summary

_STYLES = {
    StreamState.OK: "green",
    StreamState.LATE: "yellow",
    StreamState.DEGRADED: "yellow",
    StreamState.WAITING: "dim",
}
_BAR = 24
MOST_FAULTS = 24


def _bar(value: float, style: str) -> Text:
    filled = round(max(0.0, min(1.0, value)) * _BAR)
    return Text("█" * filled, style) + Text("·" * (_BAR - filled), "dim") + Text(f" {value:.2f}")


@dataclass(frozen=True, slots=True)
class Scene:
    """What is being shown: the recording's truth and faults, and the node time of its start."""

    manifest: Manifest
    faults: Sequence[Fault]
    truth: GroundTruth | None
    duration_s: float
    start_ns: int = 0


def headline(prediction: Prediction) -> Table:
    """What a prediction says, and how sure it is; rows of three cells may be added."""
    head = Table.grid(padding=(0, 2))
    head.add_row(
        "says",
        Text(f"abstains: {prediction.abstain_reason}", "yellow")
        if prediction.abstain
        else Text(prediction.label, "bold"),
        _bar(prediction.confidence, "yellow" if prediction.abstain else "green"),
    )
    return head


def streams_table(prediction: Prediction, published_ns: int) -> Table:
    """A row for each modality: state, gate weight, what it alone says, age at publication."""
    streams = Table(box=None, pad_edge=False)
    for title in ("stream", "state", "gate weight", "alone it says", "age"):
        streams.add_column(title, header_style="dim", min_width=8, no_wrap=True)
    for report in prediction.modalities:
        age = (
            ""
            if report.evidence_stamp_ns is None
            else f"{(published_ns - report.evidence_stamp_ns) / NANOSECONDS * 1e3:.0f} ms"
        )
        says = f"{report.label} {report.confidence:.2f}" if report.used else ""
        streams.add_row(
            report.name,
            Text(report.state.name, _STYLES.get(report.state, "red")),
            _bar(report.gate_weight, "blue"),
            says,
            age,
        )
    return streams


def draw_live(prediction: Prediction, published_ns: int, count: int, scene: Scene) -> RenderableType:
    """One prediction: label and confidence above, a row for each stream below."""
    at_s = (published_ns - scene.start_ns) / NANOSECONDS
    active = ", ".join(f"{f.stream} {f.kind}" for f in scene.faults if f.start_s <= at_s < f.end_s)
    head = headline(prediction)
    if scene.truth is not None:
        known, settling = scene.truth.at(at_s)
        shown = "nothing shown" if known is None else scene.truth.named(known, scene.manifest.labels)
        head.add_row("truth", shown + (" (settling)" if settling and known is not None else ""), "")
    title = f"{max(at_s, 0.0):.1f} of {scene.duration_s:.0f} s, {count} predictions"
    subtitle = Text(f"fault: {active}", "bold red") if active else Text("all well", "green")
    return Panel(
        Group(head, Text(""), streams_table(prediction, published_ns)),
        title=title,
        title_align="left",
        subtitle=subtitle,
        subtitle_align="left",
        width=92,
    )


def summary_tables(summary: Summary) -> list[Table]:
    """The tables of a summary: subsets, faults, latency."""
    subsets = text_table("by the modalities that fed each prediction", subset_header(summary), subset_rows(summary))
    rows = fault_rows(summary)
    shown = f"the first {MOST_FAULTS} of {len(rows)} faults" if len(rows) > MOST_FAULTS else "faults"
    faults = text_table(shown, FAULT_HEADER[:-1], [row[:-1] for row in rows[:MOST_FAULTS]])
    latency = summary.latency_ms
    timing = text_table(
        "timing",
        ["predictions", "longest gap (s)", "latency p50 (ms)", "p99", "max"],
        [
            [
                str(summary.predictions),
                f"{summary.longest_gap_s:.3f}",
                *(f"{value:.1f}" for value in (latency.p50, latency.p99, latency.max)),
            ]
        ],
    )
    return [subsets, faults, timing]


def text_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table of cells that are text already."""
    table = Table(
        title=title, title_justify="left", title_style="bold", header_style="dim", box=SIMPLE_HEAD, pad_edge=False
    )
    for i, column in enumerate(header):
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table
