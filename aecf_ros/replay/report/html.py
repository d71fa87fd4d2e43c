"""``summary.json`` and ``report.html``: one self-contained page for one run, several compared, or a sweep."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from aecf_ros.replay.report.figures import (
    draw_confusion,
    draw_gates_by_severity,
    draw_latency,
    draw_reliability,
    draw_reliability_of_runs,
    draw_sweep,
)
from aecf_ros.replay.report.timeline import draw_timeline
from aecf_ros.replay.scoring.score import Run
from aecf_ros.replay.scoring.summary import FaultSummary, Summary, SweepPoint, number, write_summary

_STYLE = """
:root { --ink: #1f2a36; --soft: #66727f; --line: #e3e7ec; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); }
body { max-width: 1180px; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2.4rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
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
    "ECE: 15 equal-width bins on top-label confidence. Its noise floor is what a perfectly "
    "calibrated model with the same confidences would show on as "
    "many samples. Cover: share of prediction sets that hold the truth; set: their mean size. "
    "Predictions of one shown label are not independent, "
    "so a short recording says less than its n suggests."
)
_SWEEP_NOTE = (
    "All settled predictions count, those that abstain with them: where no stream is left the prior "
    "is scored, so that accuracy falls to that of a "
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


def write_comparison(
    out: Path, compared: Sequence[Run], title: str, sweep: Sequence[SweepPoint] = ()
) -> tuple[Path, Path]:
    """Write ``summary.json`` and ``report.html`` into ``out``, which is made; gives both paths.

    The summary is that of the first run; ``compared`` within it has those of the others, by title, and ``sweep`` the
    points of a sweep.
    """
    first = compared[0]
    summary = first.summary
    if len(compared) > 1:
        summary = summary.with_keys(title=first.title, compared={run.title: run.summary for run in compared[1:]})
    if sweep:
        summary = summary.with_keys(sweep=list(sweep))
    summary_path, report_path = write_summary(out, summary), out / "report.html"
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
            f"Model {summary.model}: {summary.predictions} predictions in {first.duration_s:.0f} s, "
            f"{summary.samples} of them "
            f"scored; longest gap {summary.longest_gap_s:.2f} s."
        )
        if len(compared) == 1
        else f"{len(compared)} runs of {first.duration_s:.0f} s."
    )
    report_path.write_text(html_page(title, lead, sections), encoding="utf-8")
    return summary_path, report_path


def html_page(title: str, lead: str, sections: Sequence[str]) -> str:
    """A self-contained page; empty sections are left out."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>\n"
        f'<h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>\n'
        + "\n".join(section for section in sections if section)
        + "\n</body></html>\n"
    )


def _run_sections(run: Run, sweep: Sequence[SweepPoint], out: Path | None) -> list[str]:
    """The parts of the page that show one run; its timeline goes to ``out`` as a file too."""
    timeline = draw_timeline(run)
    if out is not None:
        (out / "timeline.png").write_bytes(timeline)
    latency = run.summary.latency_ms
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
        html_table(["stream", "state", "seconds"], state_rows(run.summary)),
        "<h3>Latency</h3>",
        html_table(
            ["stamp of the frame to publication", "ms"],
            [[q, f"{getattr(latency, q):.1f}"] for q in ("p50", "p99", "max")],
        )
        if latency.frames
        else "<p class='note'>No frame made a prediction.</p>",
        picture(draw_latency(run), "Histogram of the latency", narrow=True),
    ]


def picture(png: bytes | None, alt: str, narrow: bool = False) -> str:
    """A PNG within the page, nothing for ``None``."""
    if png is None:
        return ""
    style = " class=narrow" if narrow else ""
    return f'<img{style} alt="{escape(alt)}" src="data:image/png;base64,{b64encode(png).decode()}">'


def _alarms(summary: Summary) -> str:
    counts = ", ".join(f"{name} {stream.false_alarms}" for name, stream in summary.streams.items())
    return f"<p class='note'>Alarms outside the faults (each time a stream left OK): {counts}.</p>" if counts else ""


def comparison_table(compared: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    """Header and rows, as text, that set several runs side by side."""
    subsets = [
        name
        for name in compared[0].manifest.subset_names
        if any(run.summary.subsets.get(name, {}).get("n") for run in compared)
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
        overall = run.summary.overall
        cells = [run.title, str(overall["n"])]
        cells += [number(overall, key) for key in ("accuracy", "nll", "ece", "ece_noise_floor")]
        for name in subsets:
            cells += [number(run.summary.subsets.get(name, {}), key) for key in ("accuracy", "ece")]
        cells += [run.summary.faults_shown, str(run.summary.false_alarms)]
        rows.append(cells)
    return header, rows


def _sweep_table(sweep: Sequence[SweepPoint]) -> tuple[list[str], list[list[str]]]:
    return (
        ["stream", "kind", "severity", "n", "accuracy", "ECE", "floor", "abstained"],
        [
            [
                p.stream,
                p.kind,
                f"{p.severity:g}",
                str(p.metrics["n"]),
                number(p.metrics, "accuracy"),
                number(p.metrics, "ece"),
                number(p.metrics, "ece_noise_floor"),
                f"{p.abstained:.3f}",
            ]
            for p in sweep
        ],
    )


def subset_rows(summary: Summary) -> list[list[str]]:
    """Rows of the table of subsets, as text; the last two are the settling time and everything."""
    rows = {**summary.subsets, "settling": summary.settling, "all settled": summary.overall}
    return [
        [name, *(format(m[key], spec) if key in m else "–" for key, _, spec in _shown(summary))]
        for name, m in rows.items()
    ]


def subset_header(summary: Summary) -> list[str]:
    """Column titles that go with :func:`subset_rows`."""
    return ["fed by", *(title for _, title, _ in _shown(summary))]


def _shown(summary: Summary) -> list[tuple[str, str, str]]:
    """The metrics that there are; those of one label where there are none."""
    several = any("map" in metrics for metrics in summary.subsets.values())
    omitted = ("accuracy", "mean_confidence") if several else ("map", "subset_accuracy")
    return [metric for metric in _METRICS if metric[0] not in omitted]


def fault_rows(summary: Summary) -> list[list[str]]:
    """Rows of the table of faults, as text."""

    def delay(value: float | None, otherwise: str) -> str:
        return otherwise if value is None else f"{value:.2f}"

    def strength(fault: FaultSummary) -> str:
        return ", ".join(f"{name} {value:g}" for name, value in fault.options.items()) or f"{fault.severity:g}"

    return [
        [
            name,
            f.kind,
            strength(f),
            f"{f.start_s:g}",
            f"{f.end_s:g}",
            delay(f.detected_after_s, "already bad" if f.already else "never"),
            delay(f.recovered_after_s, "never"),
            " ".join(f.states),
        ]
        for name, f in sorted(summary.faults, key=lambda fault: fault[1].start_s)
    ]


def state_rows(summary: Summary) -> list[list[str]]:
    """Rows of the table of seconds in each state, as text."""
    return [
        [name, state, f"{seconds:.1f}"]
        for name, stream in summary.streams.items()
        for state, seconds in stream.seconds_in_state.items()
    ]


def html_table(header: Iterable[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of text cells."""
    if not rows:
        return "<p class='note'>None.</p>"
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class=wide><table><tr>{head}</tr>{body}</table></div>"
