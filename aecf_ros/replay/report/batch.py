"""One ``summary.json`` and ``report.html`` over many recordings."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from aecf_ros.core.bundle import Manifest
from aecf_ros.core.metrics.classification import ECE_BINS
from aecf_ros.replay.report.html import (
    html_page,
    html_table,
    picture,
    subset_header,
    subset_rows,
)
from aecf_ros.replay.report.timeline import figure_png
from aecf_ros.replay.scoring.aggregate import Sums, latency_quantile_ms
from aecf_ros.replay.scoring.batch import Outcome, outcome_line

_NOTE = (
    "Pooled over all settled predictions of all recordings. The noise floor is the one of many predictions, sqrt(2 v / pi) for each bin's variance v; "
    "latencies are counted in bins of 1 %."
)


def pooled_summary(outcomes: Sequence[Outcome], manifest: Manifest, wall_s: float, workers: int) -> dict:
    """``summary.json`` (docs/replay.md) pooled over all recordings that have a result, and ``fleet``, which names each.

    Faults carry the name of their ``recording``; ``longest_gap_s`` is the longest of any. ``realtime_factor`` is that of one worker,
    ``fleet.realtime_factor`` that of all together in this run, 0 where everything was kept.
    """
    done = [o for o in outcomes if not o.failed]
    summaries = [o.result["summary"] for o in done]
    sums = {name: _pooled(done, name) for name in ("overall", "settling", *manifest.subset_names)}
    latency = [o.result["latency"] for o in done]
    pairs = sum(s["monotonicity"]["pairs"] for s in summaries)
    violated = sum(s["monotonicity"]["violation_rate"] * s["monotonicity"]["pairs"] for s in summaries)
    seconds, busy_s = sum(o.result["duration_s"] for o in done), sum(o.result["busy_s"] for o in done)
    fresh_s = sum(o.result["duration_s"] for o in done if not o.kept)
    return {
        "model": manifest.name,
        "samples": sums["overall"].n,
        "overall": sums["overall"].metrics(),
        "subsets": {name: sums[name].metrics() for name in manifest.subset_names},
        "settling": sums["settling"].metrics(),
        "nothing_shown": _nothing_shown([s["nothing_shown"] for s in summaries]),
        "monotonicity": {"violation_rate": violated / pairs if pairs else 0.0, "pairs": pairs},
        "streams": {name: _stream(name, done) for name in manifest.names},
        "latency_ms": {
            "p50": latency_quantile_ms(latency, 0.5),
            "p99": latency_quantile_ms(latency, 0.99),
            "max": max((s["latency_ms"]["max"] for s in summaries), default=0.0),
            "frames": sum(s["latency_ms"]["frames"] for s in summaries),
        },
        "predictions": sum(s["predictions"] for s in summaries),
        "longest_gap_s": max((s["longest_gap_s"] for s in summaries), default=0.0),
        "realtime_factor": seconds / busy_s if busy_s else 0.0,
        "fleet": {
            "recordings": len(outcomes),
            "evaluated": sum(not o.kept for o in done),
            "kept": sum(o.kept for o in done),
            "failed": {o.name: o.failed for o in outcomes if o.failed},
            "hours": seconds / 3600,
            "workers": workers,
            "wall_s": wall_s,
            "realtime_factor": fresh_s / wall_s if wall_s else 0.0,
        },
        "recordings": {o.name: _row(o) for o in done},
    }


def write_fleet(
    out: Path, outcomes: Sequence[Outcome], summary: dict, manifest: Manifest, title: str
) -> tuple[Path, Path]:
    """Write both files into ``out``, which is made; gives their paths. Each recording's own report lies in ``out/recordings``."""
    out.mkdir(parents=True, exist_ok=True)
    summary_path, report_path = out / "summary.json", out / "report.html"
    summary_path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    fleet = summary["fleet"]
    states = [
        [name, state, f"{s:.1f}"]
        for name, of in summary["streams"].items()
        for state, s in of["seconds_in_state"].items()
    ]
    lead = (
        f"Model {summary['model']}: {fleet['recordings']} recordings, {fleet['hours']:.2f} h, {summary['predictions']} predictions, {summary['samples']} of "
        f"them scored; {len(fleet['failed'])} failed, {fleet['kept']} kept from an earlier run."
    )
    done = [o for o in outcomes if not o.failed]
    sections = [
        *(
            ["<h2>Failed</h2>", html_table(["recording", "why"], list(fleet["failed"].items()))]
            if fleet["failed"]
            else []
        ),
        "<h2>By the modalities that fed each prediction, after settling</h2>",
        html_table(subset_header(summary), subset_rows(summary)),
        f"<p class='note'>{_NOTE}</p>",
        picture(_reliability(done, manifest), "Reliability diagram of each subset", narrow=True),
        "<h2>By recording</h2>",
        html_table(*recording_table(outcomes, manifest)),
        "<p class='note'>"
        + ", ".join(f"<a href='recordings/{escape(o.name)}/report.html'>{escape(o.name)}</a>" for o in done)
        + "</p>",
        "<h2>Streams: seconds in each state</h2>",
        html_table(["stream", "state", "seconds"], states),
    ]
    report_path.write_text(html_page(title, lead, sections), encoding="utf-8")
    return summary_path, report_path


def recording_table(outcomes: Sequence[Outcome], manifest: Manifest) -> tuple[list[str], list[list[str]]]:
    """Header and rows, as text: one recording each, the failed ones too."""
    header = [
        "recording",
        "minutes",
        "n",
        "accuracy",
        "NLL",
        "ECE",
        "floor",
        *(f"accuracy {name}" for name in manifest.subset_names if name != "none"),
        "faults shown",
        "alarms",
        "longest gap (s)",
        "",
    ]
    rows = []
    for o in outcomes:
        if o.failed:
            rows.append([o.name, *[""] * (len(header) - 2), "failed"])
            continue
        s = o.result["summary"]
        faults = [f for stream in s["streams"].values() for f in stream["faults"]]
        of = s["overall"]
        rows.append(
            [
                o.name,
                f"{o.result['duration_s'] / 60:.1f}",
                str(of["n"]),
                *(_number(of, key) for key in ("accuracy", "nll", "ece", "ece_noise_floor")),
                *(_number(s["subsets"][name], "accuracy") for name in manifest.subset_names if name != "none"),
                f"{sum(f['detected_after_s'] is not None for f in faults)} of {len(faults)}",
                str(sum(stream["false_alarms"] for stream in s["streams"].values())),
                f"{s['longest_gap_s']:.2f}",
                outcome_line(o),
            ]
        )
    return header, rows


def _number(metrics: dict, key: str) -> str:
    return f"{metrics[key]:.3f}" if key in metrics else "–"


def _pooled(done: Sequence[Outcome], name: str) -> Sums:
    return sum((Sums.from_json(o.result["sums"][name]) for o in done), Sums.none())


def _row(outcome: Outcome) -> dict:
    s = outcome.result["summary"]
    return {
        "bag": outcome.bag,
        "kept": outcome.kept,
        "duration_s": outcome.result["duration_s"],
        "overall": s["overall"],
        "longest_gap_s": s["longest_gap_s"],
        "realtime_factor": s["realtime_factor"],
        "warnings": outcome.result["warnings"],
    }


def _nothing_shown(parts: Sequence[dict]) -> dict:
    n = sum(part["n"] for part in parts)
    if not n:
        return {"n": 0}
    return {
        "n": n,
        **{
            key: sum(part[key] * part["n"] for part in parts if part["n"]) / n
            for key in ("mean_confidence", "abstained")
        },
    }


def _stream(name: str, done: Sequence[Outcome]) -> dict:
    seconds: Counter[str] = Counter()
    faults, alarms = [], 0
    for outcome in done:
        stream = outcome.result["summary"]["streams"][name]
        seconds.update(stream["seconds_in_state"])
        faults += [fault | {"recording": outcome.name} for fault in stream["faults"]]
        alarms += stream["false_alarms"]
    return {
        "seconds_in_state": {state: round(s, 3) for state, s in seconds.items()},
        "faults": faults,
        "false_alarms": alarms,
    }


def _reliability(done: Sequence[Outcome], manifest: Manifest) -> bytes | None:
    """Accuracy by bin of confidence of each subset, beside where a calibrated model would be."""
    shown = {name: of for name in manifest.subset_names if (of := _pooled(done, name)).n}
    if not shown:
        return None
    figure = Figure(figsize=(3.4 * max(len(shown), 2), 3.4), dpi=110, layout="constrained")
    for axes, (name, of) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
        count, confidence, correct, _ = of.bins
        filled = count > 0
        centers = (np.arange(ECE_BINS)[filled] + 0.5) / ECE_BINS
        axes.bar(centers, correct[filled] / count[filled], width=0.9 / ECE_BINS, color="#3b6ea8")
        axes.plot(
            confidence[filled] / count[filled],
            confidence[filled] / count[filled],
            "k.",
            markersize=4,
            label="calibrated",
        )
        m = of.metrics()
        axes.set(
            xlim=(0, 1),
            ylim=(0, 1),
            xlabel="confidence",
            title=f"{name}\nECE {m['ece']:.3f}, floor {m['ece_noise_floor']:.3f}, n {m['n']}",
        )
        axes.title.set_fontsize(9)
    figure.axes[0].set_ylabel("accuracy")
    figure.axes[0].legend(loc="upper left", frameon=False, fontsize=8)
    return figure_png(figure)
