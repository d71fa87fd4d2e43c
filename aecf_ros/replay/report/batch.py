"""One ``summary.json`` and ``report.html`` over many recordings."""

from __future__ import annotations

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
    state_rows,
    subset_header,
    subset_rows,
)
from aecf_ros.replay.report.timeline import figure_png
from aecf_ros.replay.scoring.aggregate import Sums, latency_quantile_ms
from aecf_ros.replay.scoring.batch import Outcome, RecordingResult, outcome_line
from aecf_ros.replay.scoring.summary import (
    FleetSummary,
    LatencySummary,
    Metrics,
    RecordingSummary,
    StreamSummary,
    Summary,
    number,
    write_summary,
)

_NOTE = (
    "Pooled over all settled predictions of all recordings. The noise floor is the one of many "
    "predictions, sqrt(2 v / pi) for each bin's variance v; "
    "latencies are counted in bins of 1 %."
)


def pooled_summary(outcomes: Sequence[Outcome], manifest: Manifest, wall_s: float, workers: int) -> Summary:
    """``summary.json`` (docs/replay.md) pooled over all recordings that have a result, and ``fleet``, which names each.

    Faults carry the name of their ``recording``; ``longest_gap_s`` is the longest of any. ``realtime_factor`` is
    that of one worker,
    ``fleet.realtime_factor`` that of all together in this run, 0 where everything was kept.
    """
    done = [(o, o.result) for o in outcomes if o.result is not None]
    results = [result for _, result in done]
    summaries = [result.summary for result in results]
    sums = {name: pooled(results, name) for name in ("overall", "settling", *manifest.subset_names)}
    latency = [result.latency for result in results]
    pairs = int(sum(s.monotonicity["pairs"] for s in summaries))
    violated = sum(s.monotonicity["violation_rate"] * s.monotonicity["pairs"] for s in summaries)
    seconds, busy_s = sum(r.duration_s for r in results), sum(r.busy_s for r in results)
    fresh_s = sum(result.duration_s for outcome, result in done if not outcome.kept)
    return Summary(
        model=manifest.name,
        samples=sums["overall"].n,
        overall=sums["overall"].metrics(),
        subsets={name: sums[name].metrics() for name in manifest.subset_names},
        settling=sums["settling"].metrics(),
        nothing_shown=_nothing_shown([s.nothing_shown for s in summaries]),
        monotonicity={"violation_rate": violated / pairs if pairs else 0.0, "pairs": pairs},
        streams={name: _stream(name, done) for name in manifest.names},
        latency_ms=LatencySummary(
            p50=latency_quantile_ms(latency, 0.5),
            p99=latency_quantile_ms(latency, 0.99),
            max=max((s.latency_ms.max for s in summaries), default=0.0),
            frames=sum(s.latency_ms.frames for s in summaries),
        ),
        predictions=sum(s.predictions for s in summaries),
        longest_gap_s=max((s.longest_gap_s for s in summaries), default=0.0),
        realtime_factor=seconds / busy_s if busy_s else 0.0,
        fleet=FleetSummary(
            recordings=len(outcomes),
            evaluated=sum(not outcome.kept for outcome, _ in done),
            kept=sum(outcome.kept for outcome, _ in done),
            failed={o.name: o.failed for o in outcomes if o.failed},
            hours=seconds / 3600,
            workers=workers,
            wall_s=wall_s,
            realtime_factor=fresh_s / wall_s if wall_s else 0.0,
        ),
        recordings={outcome.name: _recording(outcome, result) for outcome, result in done},
    )


def write_fleet(
    out: Path, outcomes: Sequence[Outcome], summary: Summary, manifest: Manifest, title: str
) -> tuple[Path, Path]:
    """Write both files into ``out``, which is made; gives their paths. Each recording's own report lies in
    ``out/recordings``.
    """
    summary_path, report_path = write_summary(out, summary), out / "report.html"
    fleet = summary.fleet
    assert fleet is not None
    lead = (
        f"Model {summary.model}: {fleet.recordings} recordings, {fleet.hours:.2f} h, "
        f"{summary.predictions} predictions, {summary.samples} of "
        f"them scored; {len(fleet.failed)} failed, {fleet.kept} kept from an earlier run."
    )
    results = [o.result for o in outcomes if o.result is not None]
    sections = [
        *(["<h2>Failed</h2>", html_table(["recording", "why"], list(fleet.failed.items()))] if fleet.failed else []),
        "<h2>By the modalities that fed each prediction, after settling</h2>",
        html_table(subset_header(summary), subset_rows(summary)),
        f"<p class='note'>{_NOTE}</p>",
        picture(_reliability(results, manifest), "Reliability diagram of each subset", narrow=True),
        "<h2>By recording</h2>",
        html_table(*recording_table(outcomes, manifest)),
        "<p class='note'>"
        + ", ".join(
            f"<a href='recordings/{escape(o.name)}/report.html'>{escape(o.name)}</a>" for o in outcomes if not o.failed
        )
        + "</p>",
        "<h2>Streams: seconds in each state</h2>",
        html_table(["stream", "state", "seconds"], state_rows(summary)),
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
        if o.result is None:
            rows.append([o.name, *[""] * (len(header) - 2), "failed"])
            continue
        s = o.result.summary
        rows.append(
            [
                o.name,
                f"{o.result.duration_s / 60:.1f}",
                str(s.overall["n"]),
                *(number(s.overall, key) for key in ("accuracy", "nll", "ece", "ece_noise_floor")),
                *(number(s.subsets[name], "accuracy") for name in manifest.subset_names if name != "none"),
                s.faults_shown,
                str(s.false_alarms),
                f"{s.longest_gap_s:.2f}",
                outcome_line(o),
            ]
        )
    return header, rows


def pooled(results: Sequence[RecordingResult], name: str) -> Sums:
    """Sums of a subset over all recordings."""
    return sum((Sums.from_json(result.sums[name]) for result in results), Sums.none())


def _recording(outcome: Outcome, result: RecordingResult) -> RecordingSummary:
    summary = result.summary
    return RecordingSummary(
        bag=outcome.bag,
        kept=outcome.kept,
        duration_s=result.duration_s,
        overall=summary.overall,
        longest_gap_s=summary.longest_gap_s,
        realtime_factor=summary.realtime_factor,
        warnings=result.warnings,
    )


def _nothing_shown(parts: Sequence[Metrics]) -> Metrics:
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


def _stream(name: str, done: Sequence[tuple[Outcome, RecordingResult]]) -> StreamSummary:
    seconds: dict[str, float] = {}
    faults, alarms = [], 0
    for outcome, result in done:
        stream = result.summary.streams[name]
        for state, duration_s in stream.seconds_in_state.items():
            seconds[state] = seconds.get(state, 0) + duration_s
        faults += [fault.model_copy(update={"recording": outcome.name}) for fault in stream.faults]
        alarms += stream.false_alarms
    rounded = {state: round(s, 3) for state, s in seconds.items()}
    return StreamSummary(seconds_in_state=rounded, faults=faults, false_alarms=alarms)


def _reliability(results: Sequence[RecordingResult], manifest: Manifest) -> bytes | None:
    """Accuracy by bin of confidence of each subset, beside where a calibrated model would be."""
    shown = {name: sums for name in manifest.subset_names if (sums := pooled(results, name)).n}
    if not shown:
        return None
    figure = Figure(figsize=(3.4 * max(len(shown), 2), 3.4), dpi=110, layout="constrained")
    for axes, (name, sums) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
        count, confidence, correct, _ = sums.bins
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
        m = sums.metrics()
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
