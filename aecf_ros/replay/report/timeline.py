"""The timeline figure: ground truth, prediction, confidence, gate weights and stream states; faults are shaded."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from aecf_ros.core.types import StreamState
from aecf_ros.replay.faults.schedule import Fault
from aecf_ros.replay.scoring.prediction_log import runs
from aecf_ros.replay.scoring.score import Run, Scored

STATE_COLORS = {
    StreamState.WAITING: "#c9ced6",
    StreamState.OK: "#3a9e6f",
    StreamState.LATE: "#b8c94a",
    StreamState.DEGRADED: "#e0b03a",
    StreamState.STALE: "#e8833a",
    StreamState.DROPPED: "#c8423b",
    StreamState.FROZEN: "#4a7fc1",
    StreamState.REJECTED: "#8e4fa8",
    StreamState.CLOCK_FAULT: "#6b4a3a",
}
MODALITY_COLORS = ("#3b6ea8", "#d98b36", "#5b9a68", "#a35c8f", "#7f7f7f", "#b5a642", "#4aa3a8", "#b04a4a")
FAULT_COLOR = "#c8423b"
WRONG_COLOR = "#c8423b"
VERDICT_COLORS = {
    "right": "#9ecbb0",
    "settling": "#f2dfae",
    "wrong": "#eaa7a3",
    "abstains": "#eef0f2",
    "nothing shown": "#d6d0e0",
    "unknown truth": "#c9d6e6",
}
_TEXT: dict[str, Any] = {"fontsize": 8, "ha": "center", "va": "center"}
_POINTS = 3000
"""Of a long recording each curve is drawn with this many; the numbers of the summary come from all."""
_NAMED_S = 150
"""Of a recording longer than this the labels and faults are not written out, which would only be a smear."""
_LETTER = 0.0062
"""Width of a letter of a fault's name, as a share of the axes."""


def figure_png(figure: Figure) -> bytes:
    """A figure as PNG bytes, on white and without a frame."""
    figure.patch.set_facecolor("white")
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def draw_timeline(run: Run) -> bytes:
    """Draw the whole recording: PNG bytes."""
    figure = Figure(figsize=(15, 7.2), dpi=110, layout="constrained")
    labels_ax, confidence_ax, gates_ax, states_ax = figure.subplots(
        4, 1, sharex=True, height_ratios=[1.0, 1.5, 1.2, 0.35 * len(run.manifest.modalities)]
    )
    scored = Scored(run.log, run.truth)
    _draw_labels(labels_ax, run, scored)
    _draw_confidence(confidence_ax, run, scored)
    _draw_gates(gates_ax, run)
    _draw_states(states_ax, run)
    for axes in (labels_ax, confidence_ax, gates_ax):
        for start_s, end_s in _spans([f for f in run.faults if f.start_s < run.duration_s]):
            axes.axvspan(start_s, min(end_s, run.duration_s), color=FAULT_COLOR, alpha=0.10, lw=0, zorder=0)
    if run.duration_s <= _NAMED_S:
        _name_faults(confidence_ax, run.faults, run.duration_s)
    states_ax.set_xlim(0, max(run.duration_s, 1e-3))
    states_ax.set_xlabel("seconds into the recording")
    return figure_png(figure)


def _spans(faults: Sequence[Fault]) -> list[tuple[float, float]]:
    """Spans in which any fault is on, merged."""
    merged: list[tuple[float, float]] = []
    for start_s, end_s in sorted((f.start_s, f.end_s) for f in faults):
        if merged and start_s <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end_s, merged[-1][1])
        else:
            merged.append((start_s, end_s))
    return merged


def _name_faults(axes: Axes, faults: Sequence[Fault], duration_s: float) -> None:
    spans: dict[tuple[float, float], list[str]] = {}
    for fault in faults:
        if fault.start_s < duration_s:
            spans.setdefault((fault.start_s, min(fault.end_s, duration_s)), []).append(f"{fault.stream} {fault.kind}")
    ends_s: list[float] = []  # of what is written in each row
    for (start_s, end_s), names in sorted(spans.items()):
        half_s = 0.5 * _LETTER * duration_s * max(map(len, names))
        middle_s = max(min((start_s + end_s) / 2, duration_s - half_s), half_s)
        row = next((i for i, taken_s in enumerate(ends_s) if taken_s <= middle_s - half_s), len(ends_s))
        ends_s[row : row + 1] = [middle_s + half_s]
        axes.text(
            middle_s,
            1.07 + 0.13 * row,
            "\n".join(names),
            color=FAULT_COLOR,
            fontsize=8,
            ha="center",
            va="bottom",
            fontweight="bold",
        )


def _verdicts(run: Run, scored: Scored) -> np.ndarray:
    """object ``(N,)``: a key of ``VERDICT_COLORS`` for each prediction."""
    log = run.log
    said = np.where(scored.right, "right", np.where(scored.settling, "settling", "wrong")).astype(object)
    said[scored.label < 0] = "nothing shown" if run.truth is not None else "unknown truth"
    said[log.column("abstain")] = "abstains"
    return said


def _bars(
    axes: Axes,
    spans: Sequence[tuple[float, float, Any]],
    colors: dict[Any, str],
    bottom: float,
    height: float,
    **style: Any,
) -> None:
    """A bar for each span, one collection for each color."""
    for key in dict.fromkeys(key for _, _, key in spans):
        axes.broken_barh(
            [(a, b - a) for a, b, k in spans if k == key], (bottom, height), facecolor=colors[key], **style
        )


def _draw_labels(axes: Axes, run: Run, scored: Scored) -> None:
    labels = run.manifest.labels
    short = [str(i) if len(labels) == 10 and labels[0] == "zero" else label[:6] for i, label in enumerate(labels)]
    named = run.duration_s <= _NAMED_S
    if run.truth is not None:
        classes = np.array([-1 if c is None else c for c in run.truth.classes])
        shown = [span for span in runs(run.truth.changes_s, classes, run.duration_s) if span[2] >= 0]
        axes.broken_barh(
            [(a, b - a) for a, b, _ in shown], (1.1, 0.8), facecolor="#dfe5ec", edgecolor="white", lw=1 if named else 0
        )
        for start_s, end_s, value in shown if named else ():
            axes.text((start_s + end_s) / 2, 1.5, run.truth.named(value, short), **_TEXT)
    times_s, verdicts = run.log.column("at_s"), _verdicts(run, scored)
    _bars(axes, runs(times_s, verdicts, run.duration_s), VERDICT_COLORS, 0.1, 0.8, lw=0)
    if named:
        classes = np.where((verdicts == "abstains") | (verdicts == "nothing shown"), -1, run.log.column("class_id"))
        for start_s, end_s, class_id in runs(times_s, classes, run.duration_s):
            if class_id >= 0 and end_s - start_s > 0.4:
                axes.text((start_s + end_s) / 2, 0.5, short[class_id], **_TEXT)
    axes.set_ylim(0, 2)
    axes.set_yticks([0.5, 1.5], ["predicted", "truth"])
    seen = set(verdicts)
    axes.legend(
        handles=[Patch(color=color, label=verdict) for verdict, color in VERDICT_COLORS.items() if verdict in seen],
        ncols=6,
        loc="lower right",
        bbox_to_anchor=(1, 1.0),
        frameon=False,
        fontsize=8,
    )


def _draw_confidence(axes: Axes, run: Run, scored: Scored) -> None:
    times_s, confidence = run.log.column("at_s"), run.log.column("confidence")
    if run.duration_s <= _NAMED_S:
        axes.plot(times_s, confidence, color="#2c3e50", lw=0.9)
    else:
        middles, mean = _averaged(times_s, confidence[:, None], run.duration_s)
        axes.plot(middles, mean[:, 0], color="#2c3e50", lw=0.7)
    wrong = scored.settled & ~scored.right
    if wrong.any():
        axes.plot(
            times_s[wrong],
            confidence[wrong],
            ".",
            color=WRONG_COLOR,
            ms=4 if run.duration_s <= _NAMED_S else 1.5,
            label="wrong after settling",
        )
        axes.legend(loc="lower left", frameon=False, fontsize=8)
    axes.set_ylim(0, 1.05)
    axes.set_ylabel("confidence")
    axes.grid(axis="y", alpha=0.25)


def _averaged(times_s: np.ndarray, values: np.ndarray, duration_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Means over ``_POINTS`` equal spans of time, of those that hold any: middles ``(P,)`` and float ``(P, M)``."""
    slot = np.clip((times_s / duration_s * _POINTS).astype(int), 0, _POINTS - 1)
    counts = np.bincount(slot, minlength=_POINTS)
    sums = np.stack([np.bincount(slot, weights=column, minlength=_POINTS) for column in values.T], axis=1)
    held = counts > 0
    return (np.flatnonzero(held) + 0.5) * duration_s / _POINTS, sums[held] / counts[held, None]


def _draw_gates(axes: Axes, run: Run) -> None:
    times_s, weights, names = run.log.column("at_s"), run.log.column("gate_weights"), run.manifest.names
    if run.duration_s > _NAMED_S:
        times_s, weights = _averaged(times_s, weights, run.duration_s)
    if len(times_s):
        axes.stackplot(
            times_s, weights.T, colors=MODALITY_COLORS[: len(names)], labels=names, alpha=0.85, step="post", lw=0
        )
        axes.legend(ncols=len(names), loc="lower right", bbox_to_anchor=(1, 1.0), frameon=False, fontsize=8)
    axes.set_ylim(0, 1)
    axes.set_ylabel("gate weights")


def _draw_states(axes: Axes, run: Run) -> None:
    names, states = run.manifest.names, run.log.column("states")
    rows = len(names)
    for i in range(rows):
        _bars(
            axes,
            runs(run.log.column("at_s"), states[:, i], run.duration_s),
            {int(s): c for s, c in STATE_COLORS.items()},
            rows - 1 - i + 0.15,
            0.7,
            lw=0,
        )
    axes.set_ylim(0, rows)
    axes.set_yticks([rows - 1 - i + 0.5 for i in range(rows)], names)
    seen = [StreamState(s) for s in np.unique(states)]
    if seen:
        axes.legend(
            handles=[Patch(color=STATE_COLORS[s], label=s.name) for s in seen],
            ncols=len(seen),
            loc="lower right",
            bbox_to_anchor=(1, 1.0),
            frameon=False,
            fontsize=8,
        )
