"""The other pictures of a report: reliability, confusion, gate weights by severity, latency, and the curves of a
sweep.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from aecf_ros.core.metrics.classification import ECE_BINS
from aecf_ros.replay.report.timeline import MODALITY_COLORS, figure_png
from aecf_ros.replay.scoring.score import Run, Scored
from aecf_ros.replay.scoring.summary import SweepPoint

_MARKERS = "osD^vPX*"
RUN_COLORS = ("#2c3e50", "#d98b36", "#3a9e6f", "#a35c8f", "#3b6ea8", "#b5a642", "#b04a4a", "#7f7f7f")
_BAND_DRAWS = 400


def draw_reliability(run: Run) -> bytes | None:
    """A reliability diagram for each subset that fed scored predictions: PNG bytes, ``None`` without any.

    Bars are accuracy by bin of confidence, with the share of predictions below them. The lines are where 95 % of the
    bars of a perfectly calibrated model with the same confidences
    would end: their length is the noise floor made visible.
    """
    scored = Scored(run.log, run.truth)
    subsets = [name for name in run.manifest.subset_names if (scored.settled & (scored.subset == name)).any()]
    if not subsets:
        return None
    figure = Figure(figsize=(3.7 * max(len(subsets), 2), 3.9), dpi=110, layout="constrained")
    for axes, name in zip(figure.subplots(1, len(subsets), squeeze=False)[0], subsets, strict=True):
        _draw_reliability(axes, scored, scored.settled & (scored.subset == name))
        m = run.summary.subsets[name]
        axes.set_title(f"{name}\nECE {m['ece']:.3f}, floor {m['ece_noise_floor']:.3f}, n {m['n']}", fontsize=9)
    figure.axes[0].set_ylabel("accuracy")
    figure.axes[0].legend(loc="upper left", frameon=False, fontsize=8)
    return figure_png(figure)


def _draw_reliability(axes: Axes, scored: Scored, mask: np.ndarray) -> None:
    confidence, correct = scored.judged(mask)
    bins = np.clip((confidence * ECE_BINS).astype(int), 0, ECE_BINS - 1)
    count = np.bincount(bins, minlength=ECE_BINS)
    held = np.flatnonzero(count)
    accuracy = np.bincount(bins, weights=correct, minlength=ECE_BINS)[held] / count[held]
    rng = np.random.default_rng(0)
    mean = np.bincount(bins, weights=confidence, minlength=ECE_BINS)[held] / count[held]
    drawn = rng.binomial(count[held], np.clip(mean, 0, 1), (_BAND_DRAWS, len(held))) / count[held]
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    left, width = held / ECE_BINS, 1 / ECE_BINS
    axes.bar(
        left, accuracy, width, align="edge", color="#3b6ea8", alpha=0.65, edgecolor="white", lw=0.5, label="accuracy"
    )
    axes.vlines(left + width / 2, low, high, color="#d98b36", lw=4, alpha=0.9, label="if calibrated (95 %)")
    axes.plot([0, 1], [0, 1], color="#66727f", lw=0.8, ls="--")
    share = count[held] / count.sum()
    for x, s in zip(left, share, strict=True):
        if s >= 0.05:
            axes.text(x + width / 2, -0.015, f"{s:.0%}", fontsize=6.5, ha="center", va="top", color="#66727f")
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.07, 1.02)
    axes.set_xlabel("confidence")


def draw_reliability_of_runs(compared: Sequence[Run]) -> bytes | None:
    """Reliability of several runs over each other, all settled predictions: PNG bytes, ``None`` without any.

    A dot for each bin of at least five predictions, the larger the more it holds.
    """
    figure = Figure(figsize=(7.5, 4.4), dpi=110, layout="constrained")
    axes = figure.subplots()
    drawn = False
    for color, run in zip(_cycled(len(compared)), compared, strict=True):
        scored = Scored(run.log, run.truth)
        if not scored.settled.any():
            continue
        drawn = True
        confidence, correct = scored.judged(scored.settled)
        bins = np.clip((confidence * ECE_BINS).astype(int), 0, ECE_BINS - 1)
        count = np.bincount(bins, minlength=ECE_BINS)
        held = np.flatnonzero(count >= 5)
        mean = np.bincount(bins, weights=confidence, minlength=ECE_BINS)[held] / count[held]
        accuracy = np.bincount(bins, weights=correct, minlength=ECE_BINS)[held] / count[held]
        overall = run.summary.overall
        axes.scatter(
            mean,
            accuracy,
            12 + 220 * np.sqrt(count[held] / count.sum()),
            color=color,
            alpha=0.7,
            lw=0,
            label=f"{run.title} (ECE {overall['ece']:.3f}, floor {overall['ece_noise_floor']:.3f})",
        )
        for part in np.split(
            np.arange(len(held)), np.flatnonzero(np.diff(held) > 1) + 1
        ):  # no line over bins that hold nothing
            axes.plot(mean[part], accuracy[part], lw=1, color=color, alpha=0.7)
    if not drawn:
        return None
    axes.plot([0, 1], [0, 1], color="#66727f", lw=0.8, ls="--")
    axes.set(xlim=(0, 1.03), ylim=(0, 1.04), xlabel="mean confidence of the bin", ylabel="accuracy")
    for handle in axes.legend(frameon=False, fontsize=8, loc="upper left").legend_handles:
        assert isinstance(handle, PathCollection)  # of a scatter
        handle.set_sizes([40])
    return figure_png(figure)


def _cycled(count: int) -> list[str]:
    return [RUN_COLORS[i % len(RUN_COLORS)] for i in range(count)]


def draw_confusion(run: Run) -> bytes | None:
    """The confusion matrix of all settled predictions, each row's shares, abstentions apart: PNG bytes, ``None``
    without any, or where there
    may be several labels."""
    scored = Scored(run.log, run.truth)
    if run.manifest.task == "multilabel" or not scored.settled.any():
        return None
    labels = run.manifest.labels
    c = len(labels)
    said = np.where(run.log.column("abstain"), c, run.log.column("class_id"))[scored.settled]
    counts = np.zeros((c, c + 1), int)
    np.add.at(counts, (scored.label[scored.settled], said), 1)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(max(4.5, 0.55 * c), 14)
    figure = Figure(figsize=(side + 1.5, side), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    if c <= 30:
        for i, j in zip(*np.nonzero(counts), strict=True):
            axes.text(
                j,
                i,
                f"{shares[i, j]:.0%}" if shares[i, j] >= 0.005 else "<1%",
                fontsize=7,
                ha="center",
                va="center",
                color="white" if shares[i, j] > 0.6 else "#1f2a36",
            )
    axes.set_xticks(range(c + 1), [*labels, "abstains"], rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(c), [f"{label} ({n})" for label, n in zip(labels, counts.sum(1), strict=True)], fontsize=8)
    axes.axvline(c - 0.5, color="#66727f", lw=0.8)
    axes.set(xlabel="predicted", ylabel="truth (predictions)")
    return figure_png(figure)


def draw_latency(run: Run) -> bytes | None:
    """A histogram of the latencies of frames, from stamp to publication: PNG bytes, ``None`` without frames."""
    latency_ms = run.log.column("latency_s") * 1e3
    latency_ms = latency_ms[~np.isnan(latency_ms)]
    if not len(latency_ms):
        return None
    figure = Figure(figsize=(7.5, 2.6), dpi=110, layout="constrained")
    axes = figure.subplots()
    top = float(np.quantile(latency_ms, 0.995)) * 1.15 + 1
    axes.hist(np.clip(latency_ms, None, top), bins=60, color="#3b6ea8", alpha=0.85)
    for q, style in ((0.5, "-"), (0.99, "--")):
        axes.axvline(
            np.quantile(latency_ms, q),
            color="#1f2a36",
            lw=1,
            ls=style,
            label=f"p{q * 100:g}: {np.quantile(latency_ms, q):.1f} ms",
        )
    axes.legend(frameon=False, fontsize=8)
    axes.set(xlabel="ms from the frame's stamp to publication", ylabel="frames")
    return figure_png(figure)


def gate_points(run: Run) -> list[tuple[str, float, list[float]]]:
    """(stream and kind, severity, mean gate weight of each modality) over each fault of a run, from a second after
    its start.
    """
    times_s, weights = run.log.column("at_s"), run.log.column("gate_weights")
    spans = []
    for fault in run.faults:
        inside = (times_s >= min(fault.start_s + 1.0, (fault.start_s + fault.end_s) / 2)) & (times_s < fault.end_s)
        if inside.any() and not fault.options:
            spans.append((f"{fault.stream} {fault.kind}", fault.severity, weights[inside].mean(0).tolist()))
    return spans


def draw_gates_by_severity(run: Run, sweep: Sequence[SweepPoint]) -> bytes | None:
    """Mean gate weight of each modality against the severity of the fault, a panel for each stream and kind: PNG bytes.

    From the sweep if there was one, else from the faults of the schedule; ``None`` without either.
    """
    names = run.manifest.names
    points = [(f"{p.stream} {p.kind}", p.severity, [p.gate_weights[n] for n in names]) for p in sweep] or gate_points(
        run
    )
    titles = list(dict.fromkeys(title for title, _, _ in points))
    if not titles:
        return None
    columns = min(len(titles), 6)
    rows = -(-len(titles) // columns)
    figure = Figure(figsize=(2.5 * max(columns, 2), 2.3 * rows + 0.3), dpi=110, layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, title in zip(panels, titles, strict=False):
        severities = sorted({s for t, s, _ in points if t == title})
        for i, name in enumerate(names):
            mean = [
                float(np.mean([w[i] for t, s, w in points if t == title and s == severity])) for severity in severities
            ]
            axes.plot(severities, mean, "o-", ms=4, lw=1.3, color=MODALITY_COLORS[i % len(MODALITY_COLORS)], label=name)
        axes.set_title(title, fontsize=9)
    for axes in panels[len(titles) :]:
        axes.set_visible(False)
    panels[0].set(xlim=(-0.2, 5.2), ylim=(-0.03, 1.03), xticks=range(6))
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=len(names), frameon=False, fontsize=8
    )
    figure.supxlabel("severity", fontsize=9)
    figure.supylabel("mean gate weight", fontsize=9)
    return figure_png(figure)


def draw_sweep(sweep: Sequence[SweepPoint]) -> bytes | None:
    """Accuracy, ECE and abstention against severity, a column for each stream and a curve for each kind: PNG bytes."""
    if not sweep:
        return None
    streams, kinds = list(dict.fromkeys(p.stream for p in sweep)), list(dict.fromkeys(p.kind for p in sweep))
    colors = dict(zip(kinds, _cycled(len(kinds)), strict=True))
    markers = {kind: _MARKERS[i % len(_MARKERS)] for i, kind in enumerate(kinds)}
    rows = (
        ("accuracy", lambda p: p.metrics.get("accuracy")),
        ("ECE", lambda p: p.metrics.get("ece")),
        ("abstained", lambda p: p.abstained),
    )
    figure = Figure(figsize=(4.6 * len(streams) + 0.6, 7.2), dpi=110, layout="constrained")
    panels = figure.subplots(len(rows), len(streams), sharex=True, sharey="row", squeeze=False)
    for j, stream in enumerate(streams):
        for i, (name, value) in enumerate(rows):
            axes = panels[i, j]
            for kind in kinds:
                points = sorted(
                    (p for p in sweep if (p.stream, p.kind) == (stream, kind) and value(p) is not None),
                    key=lambda p: p.severity,
                )
                severities = [p.severity for p in points]
                if points:
                    style = {"marker": markers[kind], "ms": 5, "lw": 1.3, "alpha": 0.8, "color": colors[kind]}
                    axes.plot(severities, [value(p) for p in points], label=kind, **style)
                if points and name == "ECE":
                    floors = [p.metrics["ece_noise_floor"] for p in points]
                    axes.plot(severities, floors, ":", lw=0.9, color=colors[kind])
            axes.grid(alpha=0.25)
            if j == 0:
                axes.set_ylabel(name + (" (dotted: floor)" if name == "ECE" else ""))
        panels[0, j].set_title(f"fault on {stream}", fontsize=10)
        panels[-1, j].set_xlabel("severity")
        panels[-1, j].set_xticks(range(6))
    handles = {
        label: handle for axes in panels[0] for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside upper center",
        ncols=min(len(handles), 9),
        frameon=False,
        fontsize=8,
    )
    for (name, value), row in zip(rows, panels, strict=True):  # a row shares its axis
        values = [v for p in sweep if (v := value(p)) is not None]
        if name == "accuracy":
            row[0].set_ylim(max(0.0, min(values, default=0.0) - 0.05), 1.02)
        else:
            row[0].set_ylim(0.0, max(0.05, 1.1 * max(values, default=0.0)))
    return figure_png(figure)
