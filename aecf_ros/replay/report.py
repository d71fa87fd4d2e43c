"""``summary.json`` and ``report.html``: one self-contained page."""
from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from aecf_ros.core.bundle import Manifest
from aecf_ros.replay.faults import Fault
from aecf_ros.replay.score import Answer
from aecf_ros.replay.timeline import draw_timeline
from aecf_ros.replay.truth import Truth

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
:root {{ --ink: #1f2a36; --soft: #66727f; --line: #e3e7ec; }}
body {{ font: 15px/1.5 system-ui, sans-serif; color: var(--ink); max-width: 1180px; margin: 2rem auto; padding: 0 1.2rem; }}
h1 {{ font-size: 1.5rem; margin: 0; }} h2 {{ font-size: 1.1rem; margin: 2rem 0 .5rem; }}
p.lead {{ color: var(--soft); margin: .2rem 0 1.2rem; }}
img {{ width: 100%; border: 1px solid var(--line); border-radius: 6px; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .32rem .8rem; border-bottom: 1px solid var(--line); text-align: right; }}
th {{ font-weight: 600; color: var(--soft); }} th:first-child, td:first-child {{ text-align: left; }}
.note {{ color: var(--soft); font-size: .9rem; }}
</style></head><body>
<h1>{title}</h1><p class="lead">{lead}</p>
<img alt="Timeline of truth, prediction, confidence, gate weights and stream states" src="data:image/png;base64,{picture}">
<h2>By the modalities that fed each prediction, after settling</h2>{subsets}
<p class="note">ECE: 15 equal-width bins on top-label confidence. Its noise floor is what a perfectly calibrated model with the same confidences would
show on as many samples. Cover: share of prediction sets that hold the truth; set: their mean size. Predictions of one shown label are not independent, so a short recording says less than its n suggests.</p>
<h2>Faults</h2>{faults}
<h2>Streams: seconds in each state</h2>{states}
<h2>Timing</h2>{timing}
</body></html>
"""

_METRICS = (("n", "n", "d"), ("accuracy", "accuracy", ".3f"), ("nll", "NLL", ".3f"), ("ece", "ECE", ".3f"), ("ece_noise_floor", "floor", ".3f"),
            ("brier", "Brier", ".3f"), ("mean_confidence", "conf.", ".3f"), ("coverage", "cover", ".3f"), ("set_size", "set", ".2f"))


def write_reports(out: Path, summary: dict, answers: Sequence[Answer], truth: Truth | None, faults: Sequence[Fault], manifest: Manifest,
                  duration_s: float, title: str) -> tuple[Path, Path]:
    """Write ``summary.json`` and ``report.html`` into ``out``, which is made; gives both paths."""
    out.mkdir(parents=True, exist_ok=True)
    summary_path, report_path, picture_path = out / "summary.json", out / "report.html", out / "timeline.png"
    summary_path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    picture = draw_timeline(answers, truth, faults, manifest, duration_s)
    picture_path.write_bytes(picture)
    report_path.write_text(_PAGE.format(
        title=escape(title),
        lead=escape(f"Model {summary['model']}: {summary['predictions']} predictions in {duration_s:.0f} s, {summary['samples']} of them scored; "
                    f"longest gap {summary['longest_gap_s']:.2f} s."),
        picture=b64encode(picture).decode(),
        subsets=_table(subset_header(), subset_rows(summary)),
        faults=_table(["stream", "kind", "from (s)", "to (s)", "detected after (s)", "recovered after (s)"], fault_rows(summary)),
        states=_table(["stream", "state", "seconds"], _state_rows(summary)),
        timing=_table(["latency, stamp of the frame to publication", "ms"], [[q, f"{summary['latency_ms'][q]:.1f}"] for q in ("p50", "p99", "max")])),
        encoding="utf-8")
    return summary_path, report_path


def subset_rows(summary: dict) -> list[list[str]]:
    """Rows of the table of subsets, as text; the last two are the settling time and everything."""
    rows = {**summary["subsets"], "settling": summary["settling"], "all settled": summary["overall"]}
    return [[name, *(format(m[key], spec) if key in m else "–" for key, _, spec in _METRICS)] for name, m in rows.items()]


def subset_header() -> list[str]:
    """Column titles that go with :func:`subset_rows`."""
    return ["fed by", *(title for _, title, _ in _METRICS)]


def fault_rows(summary: dict) -> list[list[str]]:
    """Rows of the table of faults, as text."""
    def delay(value: float | None) -> str:
        return "never" if value is None else f"{value:.2f}"

    return [[name, f["kind"], f"{f['start_s']:g}", f"{f['end_s']:g}", delay(f["detected_after_s"]), delay(f["recovered_after_s"])]
            for name, stream in summary["streams"].items() for f in stream["faults"]]


def _state_rows(summary: dict) -> list[list[str]]:
    return [[name, state, f"{seconds:.1f}"] for name, stream in summary["streams"].items() for state, seconds in stream["seconds_in_state"].items()]


def _table(header: Iterable[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "<p class='note'>None.</p>"
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
