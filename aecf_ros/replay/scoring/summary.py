"""The record of ``summary.json`` (docs/replay.md), for evaluation, comparison, sweep, batch and demo."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from aecf_ros.core.files import write_text

Metrics = dict[str, int | float]
"""The METRICS of some predictions, see :func:`aecf_ros.core.metrics.classification.subset_metrics`; ``{"n": 0}`` for
none.
"""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")

    def to_json(self) -> dict[str, Any]:
        """The record as JSON holds it; keys that were never set are left out."""
        return self.model_dump(exclude_unset=True)


class FaultSummary(_Record):
    """A fault, and how the published state of its stream followed it.

    The fault is detected when the state gets worse than it was before: LATE or DEGRADED, or a state that fusion does
    not use. It is
    recovered from when fusion uses the stream again, or a stream that was LATE or DEGRADED is OK. Both are ``None``
    where that never
    happened.

    Attributes:
        already: the state was bad before the fault began.
        states: states of the stream during the fault.
        recording: name of the recording, in a summary of several.
    """

    kind: str
    start_s: float
    end_s: float
    detected_after_s: float | None
    recovered_after_s: float | None
    already: bool
    states: list[str]
    severity: int | float
    options: Metrics
    recording: str = ""


class StreamSummary(_Record):
    """Health of a stream. ``false_alarms`` counts how often it left OK without a fault."""

    seconds_in_state: dict[str, float]
    faults: list[FaultSummary]
    false_alarms: int


class LatencySummary(_Record):
    """Latency from the stamp of a frame to publication in milliseconds, over ``frames`` frames."""

    p50: float
    p99: float
    max: float
    frames: int


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """One run of a sweep: a fault of ``kind`` on ``stream`` throughout, at ``severity``.

    Attributes:
        metrics: of all settled predictions.
        abstained: share of settled predictions that abstained.
        gate_weights: mean gate weight of each modality.
    """

    stream: str
    kind: str
    severity: int | float
    metrics: Metrics
    abstained: float
    gate_weights: dict[str, float]


class FleetSummary(_Record):
    """How the evaluation of several recordings went. ``failed`` has the reason by recording."""

    recordings: int
    evaluated: int
    kept: int
    failed: dict[str, str]
    hours: float
    workers: int
    wall_s: float
    realtime_factor: float


class RecordingSummary(_Record):
    """One of several recordings. ``kept``: its result is that of an earlier run."""

    bag: str
    kept: bool
    duration_s: float
    overall: Metrics
    longest_gap_s: float
    realtime_factor: float
    warnings: list[str]


class Summary(_Record):
    """``summary.json``. Optional keys are set by the demo, a comparison, a sweep, or an evaluation of several
    recordings.
    """

    model: str
    samples: int
    overall: Metrics
    subsets: dict[str, Metrics]
    settling: Metrics
    nothing_shown: Metrics
    monotonicity: Metrics
    streams: dict[str, StreamSummary]
    latency_ms: LatencySummary
    predictions: int
    longest_gap_s: float
    realtime_factor: float
    frames: Metrics | None = None
    node_exit_code: int | None = None
    shared_memory_left: list[str] | None = None
    title: str = ""
    compared: dict[str, Summary] | None = None
    sweep: list[SweepPoint] | None = None
    fleet: FleetSummary | None = None
    recordings: dict[str, RecordingSummary] | None = None

    def with_keys(self, **keys: object) -> Summary:
        """A copy with optional keys set."""
        return self.model_copy(update=keys)

    @property
    def faults(self) -> list[tuple[str, FaultSummary]]:
        """Stream and fault of every fault, stream by stream."""
        return [(name, fault) for name, stream in self.streams.items() for fault in stream.faults]

    @property
    def faults_shown(self) -> str:
        """How many of the faults were detected, as text."""
        faults = self.faults
        return f"{sum(fault.detected_after_s is not None for _, fault in faults)} of {len(faults)}"

    @property
    def false_alarms(self) -> int:
        """False alarms of all streams."""
        return sum(stream.false_alarms for stream in self.streams.values())


def write_summary(folder: Path, summary: Summary) -> Path:
    """Write ``summary.json`` into a folder, which is created; returns its path."""
    path = folder / "summary.json"
    write_text(path, json.dumps(summary.to_json(), indent=2) + "\n")
    return path


def number(metrics: Mapping[str, float], key: str) -> str:
    """A metric as a cell of a table, a dash where there is none."""
    return f"{metrics[key]:.3f}" if key in metrics else "–"
