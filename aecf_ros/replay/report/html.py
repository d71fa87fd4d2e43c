"""``summary.json`` and ``report.html``: one self-contained page for one run, several compared, or a sweep."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path

from aecf_ros.core.bundle import Manifest
from aecf_ros.replay.faults.schedule import Fault
from aecf_ros.replay.report.figures import (
    SweepPoint,
    draw_confusion,
    draw_gates_by_severity,
    draw_latency,
    draw_reliability,
    draw_reliability_of_runs,
    draw_sweep,
)
from aecf_ros.replay.report.timeline import draw_timeline
from aecf_ros.replay.scoring.ground_truth import GroundTruth
from aecf_ros.replay.scoring.prediction_log import PredictionLog, PublishedPrediction, as_prediction_log
from aecf_ros.replay.scoring.score import Run

_STYLE = """
:root { --ink: #1f2a36; --soft: #66727f; --line: #e3e7ec; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); max-width: 1180px; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2.4rem 0 .5rem; } h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p.lead { color: var(--soft); margin: .2rem 0 1.2rem; }
img { width: 100%; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .32rem .8rem; border-bottom: 1px solid var(--line); text-align: right; }
th { font-weight: 600; color: var(--soft); } th:first-child, td:first-child { text-align: left; }
.note { color: var(--soft); font-size: .9rem; }
img.narrow { width: auto; max-width: 100%; }
.wide { overflow-x: auto; }
"""

_METRICS = (
    ("n", "n", "d"),
    ("accuracy", "accuracy", ".3f"),
    ("map", "mAP", ".3f"),
    ("subset_accuracy", "all right", ".3f"),
    ("nll", "NLL", ".3f"),
    ("ece", "ECE", ".3f"),
    ("ece_noise_floor", "floor", ".3f"),
    ("brier", "Brier", ".3f"),
    ("mean_confidence", "conf.", ".3f"),
    ("coverage", "cover", ".3f"),
    ("set_size", "set", ".2f"),
)
_NOTE = (
    "ECE: 15 equal-width bins on top-label confidence. Its noise floor is what a perfectly calibrated model with the same confidences would show on as "
    "many samples. Cover: share of prediction sets that hold the truth; set: their mean size. Predictions of one shown label are not independent, "
    "so a short recording says less than its n suggests."
)
_SWEEP_NOTE = (
    "All settled predictions count, those that abstain with them: where no stream is left the prior is scored, so that accuracy falls to that of a "
    "guess while abstention rises to 1 and ECE to nothing."
)
FAULT_HEADER = (
    "stream",
    "kind",
    "severity",
    "from (s)",
    "to (s)",
    "detected after (s)",
    "recovered after (s)",
    "states meanwhile",
)
"""Column titles that go with :func:`fault_rows`."""


def write_reports(
    out: Path,
    summary: dict,
    answers: PredictionLog | Sequence[PublishedPrediction],
    truth: GroundTruth | None,
    faults: Sequence[Fault],
    manifest: Manifest,
    duration_s: float,
    title: str,
) -> tuple[Path, Path]:
    """Write the reports of one run, see :func:`write_comparison`."""
    return write_comparison(
        out,
        [Run(title, manifest, summary, as_prediction_log(answers, manifest), truth, tuple(faults), duration_s)],
        title,
    )


def write_comparison(
    out: Path, compared: Sequence[Run], title: str, sweep: Sequence[SweepPoint] = ()
) -> tuple[Path, Path]:
    """Write ``summary.json`` and ``report.html`` into ``out``, which is made; gives both paths.

    The summary is that of the first run; ``compared`` within it has those of the others, by title, and ``sweep`` the points of a sweep.
    """
    out.mkdir(parents=True, exist_ok=True)
    first = compared[0]
    summary = dict(first.summary)
    if len(compared) > 1:
        summary["title"] = first.title
        summary["compared"] = {run.title: run.summary for run in compared[1:]}
    if sweep:
        summary["sweep"] = [asdict(point) for point in sweep]
    summary_path, report_path = out / "summary.json", out / "report.html"
    summary_path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    sections: list[str] = []
    if len(compared) > 1:
        sections += [
            "<h2>Compared</h2>",
            html_table(*comparison_table(compared)),
            picture(draw_reliability_of_runs(compared), "Reliability of each run", narrow=True),
        ]
    if sweep:
        sections += [
            "<h2>Sweep: a fault throughout the recording</h2>",
            picture(draw_sweep(sweep), "Accuracy, ECE and abstention against severity", narrow=True),
            f"<p class='note'>{_SWEEP_NOTE}</p>",
            html_table(*_sweep_table(sweep)),
        ]
    for run in compared:
        pictures = _run_sections(run, sweep if run is first else (), out if run is first else None)
        sections += [f"<h2>{escape(run.title)}</h2>" if len(compared) > 1 else "", *pictures]
    lead = (
        (
            f"Model {first.summary['model']}: {first.summary['predictions']} predictions in {first.duration_s:.0f} s, {first.summary['samples']} of them "
            f"scored; longest gap {first.summary['longest_gap_s']:.2f} s."
        )
        if len(compared) == 1
        else f"{len(compared)} runs of {first.duration_s:.0f} s."
    )
    report_path.write_text(html_page(title, lead, sections), encoding="utf-8")
    return summary_path, report_path


def html_page(title: str, lead: str, sections: Sequence[str]) -> str:
    """A self-contained page; empty sections are left out."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)}</title><style>{_STYLE}</style></head><body>\n<h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>\n'
        + "\n".join(section for section in sections if section)
        + "\n</body></html>\n"
    )


def _run_sections(run: Run, sweep: Sequence[SweepPoint], out: Path | None) -> list[str]:
    """The parts of the page that show one run; its timeline goes to ``out`` as a file too."""
    timeline = draw_timeline(run)
    if out is not None:
        (out / "timeline.png").write_bytes(timeline)
    latency = run.summary["latency_ms"]
    gates = picture(draw_gates_by_severity(run, sweep), "Gate weights against the severity of the fault", narrow=True)
    reliability = picture(draw_reliability(run), "Reliability diagram of each subset")
    confusion = picture(draw_confusion(run), "Confusion matrix", narrow=True)
    scored = (
        ["<h3>Reliability, after settling</h3>", reliability, "<h3>Confusion, after settling</h3>", confusion]
        if reliability
        else []
    )
    return [
        picture(timeline, "Timeline of truth, prediction, confidence, gate weights and stream states"),
        "<h3>By the modalities that fed each prediction, after settling</h3>",
        html_table(subset_header(run.summary), subset_rows(run.summary)),
        f"<p class='note'>{_NOTE}</p>",
        *scored,
        "<h3>Faults</h3>",
        html_table(FAULT_HEADER, fault_rows(run.summary)),
        _alarms(run.summary),
        *(["<h3>Gate weights against severity</h3>", gates] if gates else []),
        "<h3>Streams: seconds in each state</h3>",
        html_table(["stream", "state", "seconds"], _state_rows(run.summary)),
        "<h3>Latency</h3>",
        html_table(
            ["stamp of the frame to publication", "ms"], [[q, f"{latency[q]:.1f}"] for q in ("p50", "p99", "max")]
        )
        if latency.get("frames", 1)
        else "<p class='note'>No frame made a prediction.</p>",
        picture(draw_latency(run), "Histogram of the latency", narrow=True),
    ]


def picture(png: bytes | None, alt: str, narrow: bool = False) -> str:
    """A PNG within the page, nothing for ``None``."""
    if png is None:
        return ""
    return f'<img{" class=narrow" if narrow else ""} alt="{escape(alt)}" src="data:image/png;base64,{b64encode(png).decode()}">'


def _alarms(summary: dict) -> str:
    counts = {name: stream["false_alarms"] for name, stream in summary["streams"].items() if "false_alarms" in stream}
    said = ", ".join(f"{name} {count}" for name, count in counts.items())
    return f"<p class='note'>Alarms outside the faults (each time a stream left OK): {said}.</p>" if counts else ""


def comparison_table(compared: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    """Header and rows, as text, that set several runs side by side."""
    subsets = [
        name
        for name in compared[0].manifest.subset_names
        if any(run.summary["subsets"].get(name, {}).get("n") for run in compared)
    ]
    header = [
        "run",
        "n",
        "accuracy",
        "NLL",
        "ECE",
        "floor",
        *(f"{kind} {name}" for name in subsets for kind in ("accuracy", "ECE")),
        "faults shown",
        "alarms",
    ]
    rows = []
    for run in compared:
        overall = run.summary["overall"]
        faults = [f for stream in run.summary["streams"].values() for f in stream["faults"]]
        cells = [
            run.title,
            str(overall["n"]),
            *(f"{overall[k]:.3f}" if k in overall else "–" for k in ("accuracy", "nll", "ece", "ece_noise_floor")),
        ]
        for name in subsets:
            m = run.summary["subsets"].get(name, {})
            cells += [f"{m[k]:.3f}" if k in m else "–" for k in ("accuracy", "ece")]
        cells += [
            f"{sum(f['detected_after_s'] is not None for f in faults)} of {len(faults)}",
            str(sum(stream.get("false_alarms", 0) for stream in run.summary["streams"].values())),
        ]
        rows.append(cells)
    return header, rows


def _sweep_table(sweep: Sequence[SweepPoint]) -> tuple[list[str], list[list[str]]]:
    def number(point: SweepPoint, key: str) -> str:
        return f"{point.metrics[key]:.3f}" if key in point.metrics else "–"

    return (
        ["stream", "kind", "severity", "n", "accuracy", "ECE", "floor", "abstained"],
        [
            [
                p.stream,
                p.kind,
                f"{p.severity:g}",
                str(p.metrics["n"]),
                number(p, "accuracy"),
                number(p, "ece"),
                number(p, "ece_noise_floor"),
                f"{p.abstained:.3f}",
            ]
            for p in sweep
        ],
    )


def subset_rows(summary: dict) -> list[list[str]]:
    """Rows of the table of subsets, as text; the last two are the settling time and everything."""
    rows = {**summary["subsets"], "settling": summary["settling"], "all settled": summary["overall"]}
    return [
        [name, *(format(m[key], spec) if key in m else "–" for key, _, spec in _shown(summary))]
        for name, m in rows.items()
    ]


def subset_header(summary: dict) -> list[str]:
    """Column titles that go with :func:`subset_rows`."""
    return ["fed by", *(title for _, title, _ in _shown(summary))]


def _shown(summary: dict) -> list[tuple[str, str, str]]:
    """The metrics that there are; those of one label where there are none."""
    several = any("map" in of for of in summary["subsets"].values())
    left_out = ("accuracy", "mean_confidence") if several else ("map", "subset_accuracy")
    return [of for of in _METRICS if of[0] not in left_out]


def fault_rows(summary: dict) -> list[list[str]]:
    """Rows of the table of faults, as text."""

    def delay(value: float | None, otherwise: str) -> str:
        return otherwise if value is None else f"{value:.2f}"

    def strength(fault: dict) -> str:
        options = ", ".join(f"{name} {value:g}" for name, value in fault.get("options", {}).items())
        return options or f"{fault.get('severity', 5):g}"

    faults = sorted(
        ((name, f) for name, stream in summary["streams"].items() for f in stream["faults"]),
        key=lambda of: of[1]["start_s"],
    )
    return [
        [
            name,
            f["kind"],
            strength(f),
            f"{f['start_s']:g}",
            f"{f['end_s']:g}",
            delay(f["detected_after_s"], "already bad" if f.get("already") else "never"),
            delay(f["recovered_after_s"], "never"),
            " ".join(f.get("states", [])),
        ]
        for name, f in faults
    ]


def _state_rows(summary: dict) -> list[list[str]]:
    return [
        [name, state, f"{seconds:.1f}"]
        for name, stream in summary["streams"].items()
        for state, seconds in stream["seconds_in_state"].items()
    ]


def html_table(header: Iterable[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of text cells."""
    if not rows:
        return "<p class='note'>None.</p>"
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class=wide><table><tr>{head}</tr>{body}</table></div>"
