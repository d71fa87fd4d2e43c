"""The timeline picture: truth, prediction, confidence, gate weights and stream states over a recording, faults shaded."""
from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from aecf_ros.core.bundle import Manifest
from aecf_ros.core.types import StreamState
from aecf_ros.replay.faults import Fault
from aecf_ros.replay.score import Answer
from aecf_ros.replay.truth import Truth

STATE_COLORS = {
    StreamState.WAITING: "#c9ced6", StreamState.OK: "#3a9e6f", StreamState.LATE: "#b8c94a", StreamState.DEGRADED: "#e0b03a",
    StreamState.STALE: "#e8833a", StreamState.DROPPED: "#c8423b", StreamState.FROZEN: "#4a7fc1", StreamState.REJECTED: "#8e4fa8",
    StreamState.CLOCK_FAULT: "#6b4a3a"}
MODALITY_COLORS = ("#3b6ea8", "#d98b36", "#5b9a68", "#a35c8f", "#7f7f7f", "#b5a642", "#4aa3a8", "#b04a4a")
FAULT_COLOR = "#c8423b"
WRONG_COLOR = "#c8423b"
VERDICT_COLORS = {"right": "#9ecbb0", "settling": "#f2dfae", "wrong": "#eaa7a3", "abstains": "#eef0f2", "nothing shown": "#d6d0e0",
                  "unknown truth": "#c9d6e6"}
_TEXT = {"fontsize": 8, "ha": "center", "va": "center"}


def draw_timeline(answers: Sequence[Answer], truth: Truth | None, faults: Sequence[Fault], manifest: Manifest, duration_s: float) -> bytes:
    """Draw the whole recording: PNG bytes."""
    figure = Figure(figsize=(15, 7.2), dpi=110, layout="constrained")
    figure.patch.set_facecolor("white")
    labels_ax, confidence_ax, gates_ax, states_ax = figure.subplots(
        4, 1, sharex=True, height_ratios=[1.0, 1.5, 1.2, 0.35 * len(manifest.modalities)])
    _draw_labels(labels_ax, answers, truth, manifest, duration_s)
    _draw_confidence(confidence_ax, answers, truth)
    _draw_gates(gates_ax, answers, manifest)
    _draw_states(states_ax, answers, manifest, duration_s)
    for axes in (labels_ax, confidence_ax, gates_ax):
        _shade(axes, faults)
    _name_faults(confidence_ax, faults)
    states_ax.set_xlim(0, duration_s)
    states_ax.set_xlabel("seconds into the recording")
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _shade(axes: Axes, faults: Sequence[Fault]) -> None:
    for fault in faults:
        axes.axvspan(fault.start_s, fault.end_s, color=FAULT_COLOR, alpha=0.10, lw=0, zorder=0)


def _name_faults(axes: Axes, faults: Sequence[Fault]) -> None:
    spans: dict[tuple[float, float], list[str]] = {}
    for fault in faults:
        spans.setdefault((fault.start_s, fault.end_s), []).append(f"{fault.stream} {fault.kind}")
    for (start_s, end_s), names in spans.items():
        axes.text((start_s + end_s) / 2, 1.12, "\n".join(names), color=FAULT_COLOR, fontsize=8, ha="center", va="bottom", fontweight="bold")


def _runs(times: Sequence[float], values: Sequence[object], end_s: float) -> list[tuple[float, float, object]]:
    """Spans of equal consecutive values: (start, end, value)."""
    edges = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(values)) if a != b), len(values)]
    return [(times[a], times[b] if b < len(times) else end_s, values[a]) for a, b in pairwise(edges) if a < b]


def _verdict(answer: Answer, truth: Truth | None) -> str:
    if answer.prediction.abstain:
        return "abstains"
    if truth is None:
        return "unknown truth"
    known, settling = truth.at(answer.at_s)
    if known is None:
        return "nothing shown"
    if known == answer.prediction.class_id:
        return "right"
    return "settling" if settling else "wrong"


def _draw_labels(axes: Axes, answers: Sequence[Answer], truth: Truth | None, manifest: Manifest, duration_s: float) -> None:
    short = {i: str(i) if len(manifest.labels) == 10 and manifest.labels[0] == "zero" else label[:6] for i, label in enumerate(manifest.labels)}
    if truth is not None:
        for start_s, end_s, value in _runs(truth.changes_s, truth.classes, duration_s):
            if value is None:
                continue
            axes.broken_barh([(start_s, end_s - start_s)], (1.1, 0.8), facecolor="#dfe5ec", edgecolor="white", lw=1)
            axes.text((start_s + end_s) / 2, 1.5, short[value], **_TEXT)
    times = [a.at_s for a in answers]
    said = [(a.prediction.class_id, _verdict(a, truth)) for a in answers]
    for start_s, end_s, (class_id, verdict) in _runs(times, said, duration_s):
        axes.broken_barh([(start_s, end_s - start_s)], (0.1, 0.8), facecolor=VERDICT_COLORS[verdict], lw=0)
        if verdict not in ("abstains", "nothing shown") and end_s - start_s > 0.4:
            axes.text((start_s + end_s) / 2, 0.5, short[class_id], **_TEXT)
    axes.set_ylim(0, 2)
    axes.set_yticks([0.5, 1.5], ["predicted", "truth"])
    seen = {verdict for _, verdict in said}
    axes.legend(handles=[Patch(color=color, label=verdict) for verdict, color in VERDICT_COLORS.items() if verdict in seen], ncols=6, loc="lower right", bbox_to_anchor=(1, 1.0), frameon=False, fontsize=8)


def _draw_confidence(axes: Axes, answers: Sequence[Answer], truth: Truth | None) -> None:
    times = np.array([a.at_s for a in answers])
    confidence = np.array([a.prediction.confidence for a in answers])
    axes.plot(times, confidence, color="#2c3e50", lw=0.9)
    if truth is not None:
        known = [(truth.at(a.at_s), a) for a in answers]
        wrong = [a for (label, settling), a in known if label is not None and not settling and label != a.prediction.class_id]
        axes.plot([a.at_s for a in wrong], [a.prediction.confidence for a in wrong], ".", color=WRONG_COLOR, ms=4, label="wrong after settling")
        if wrong:
            axes.legend(loc="lower left", frameon=False, fontsize=8)
    axes.set_ylim(0, 1.05)
    axes.set_ylabel("confidence")
    axes.grid(axis="y", alpha=0.25)


def _draw_gates(axes: Axes, answers: Sequence[Answer], manifest: Manifest) -> None:
    times = np.array([a.at_s for a in answers])
    weights = np.array([[m.gate_weight for m in a.prediction.modalities] for a in answers]).reshape(len(answers), -1).T
    axes.stackplot(times, weights, colors=MODALITY_COLORS[:len(manifest.names)], labels=manifest.names, alpha=0.85, step="post", lw=0)
    axes.set_ylim(0, 1)
    axes.set_ylabel("gate weights")
    axes.legend(ncols=len(manifest.names), loc="lower right", bbox_to_anchor=(1, 1.0), frameon=False, fontsize=8)


def _draw_states(axes: Axes, answers: Sequence[Answer], manifest: Manifest, duration_s: float) -> None:
    times = [a.at_s for a in answers]
    seen = set()
    rows = len(manifest.names)
    for i in range(rows):
        states = [a.prediction.modalities[i].state for a in answers]
        seen |= set(states)
        for start_s, end_s, state in _runs(times, states, duration_s):
            axes.broken_barh([(start_s, end_s - start_s)], (rows - 1 - i + 0.15, 0.7), facecolor=STATE_COLORS[state], lw=0)
    axes.set_ylim(0, rows)
    axes.set_yticks([rows - 1 - i + 0.5 for i in range(rows)], manifest.names)
    axes.legend(handles=[Patch(color=STATE_COLORS[s], label=s.name) for s in sorted(seen)], ncols=len(seen) or 1, loc="lower right",
                bbox_to_anchor=(1, 1.0), frameon=False, fontsize=8)
