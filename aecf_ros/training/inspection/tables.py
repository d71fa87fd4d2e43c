"""An inspection as tables of text, for the terminal and the page alike: (title, header, rows)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aecf_ros.training.inspection.summary import NOTHING_NAME, Inspection, balance

TextTable = tuple[str, list[str], list[list[str]]]


def headline(inspection: Inspection) -> str:
    """What it is, in one line."""
    corpus = inspection.corpus
    moments = sum(row.moments for row in inspection.units)
    seconds = [row.duration_s for row in inspection.units if row.duration_s is not None]
    lasting = f", {sum(seconds) / 60:.1f} minutes" if seconds else ""
    modalities = ", ".join(f"{m.name} ({m.size_text})" for m in corpus.modalities)
    what = "moments" if corpus.paired else "samples, paired by label when trained on"
    return f"{moments} {what}, {len(corpus.labels)} classes{lasting}; {modalities}"


def class_table(inspection: Inspection) -> TextTable:
    """Moments of each class in each part, and their share of all; of several labels each counts. Below, how even the
    classes are.
    """
    parts = list(inspection.corpus.parts)
    counts = np.array([inspection.counts(part) for part in parts])
    total, moments = counts.sum(0), [inspection.moments(part) for part in parts]
    rows = [
        [name, *map(str, counts[:, c]), str(total[c]), f"{total[c] / max(sum(moments), 1):.1%}"]
        for c, name in enumerate(inspection.class_names)
        if total[c] or name != NOTHING_NAME
    ]
    rows.append(["all", *map(str, moments), str(sum(moments)), ""])
    rows.append(["evenness", *(f"{balance(counts[:-1]):.2f}" for counts in counts), f"{balance(total[:-1]):.2f}", ""])
    return (
        "classes" if inspection.corpus.paired else "classes, samples of all modalities",
        ["class", *parts, "all", "share"],
        rows,
    )


def presence_table(inspection: Inspection) -> TextTable:
    """Which modalities are there together, in each part; or, where they are unpaired, samples of each."""
    parts = list(inspection.corpus.parts)
    if not inspection.corpus.paired:
        return (
            "samples of each modality",
            ["modality", *parts],
            [[name, *(str(counts[part].sum()) for part in parts)] for name, counts in inspection.held.items()],
        )
    names = dict.fromkeys(name for part in parts for name, _ in inspection.subsets[part].most_common())
    totals = {part: max(sum(inspection.subsets[part].values()), 1) for part in parts}
    rows = [
        [
            name,
            *(
                f"{inspection.subsets[part][name]} ({inspection.subsets[part][name] / totals[part]:.1%})"
                for part in parts
            ),
        ]
        for name in names
    ]
    return "there together", ["modalities", *parts], rows


def missing_table(inspection: Inspection) -> TextTable:
    """Of how many moments of each class a modality is missing; no rows where none is."""
    total = np.sum([inspection.counts(part) for part in inspection.corpus.parts], axis=0)
    rows: list[list[str]] = []
    if not inspection.corpus.paired or not any(n for row in inspection.units for n in row.missing.values()):
        return "missing", [], rows
    for c, name in enumerate(inspection.class_names):
        if total[c]:
            lacking = [int(total[c] - sum(counts[part][c] for part in counts)) for counts in inspection.held.values()]
            rows.append([name, *(f"{n} ({n / total[c]:.1%})" for n in lacking)])
    return "missing", ["class", *inspection.held], rows


def unit_table(inspection: Inspection) -> TextTable:
    """Each recording or block: its part, length, moments, classes, and of what share of its moments a modality is
    missing.
    """
    names = inspection.corpus.names
    rows = []
    for row in inspection.units:
        n = row.moments
        held = [f"{inspection.class_names[c]} {row.counts[c]}" for c in np.flatnonzero(row.counts)]
        lacking = [f"{row.missing[name] / max(n, 1):.0%}" if row.missing else "" for name in names]
        rows.append(
            [
                row.name,
                row.part,
                "" if row.duration_s is None else f"{row.duration_s:.1f}",
                str(n),
                *lacking,
                _shortened(held),
            ]
        )
    header = ["name", "part", "seconds", "moments", *(f"no {name}" for name in names), "classes"]
    said = [i for i in range(len(header)) if any(row[i] for row in rows)]
    title = "recordings" if any(row.duration_s is not None for row in inspection.units) else "blocks"
    return title, [header[i] for i in said], [[row[i] for i in said] for row in rows]


def _shortened(held: Sequence[str]) -> str:
    return ", ".join(held[:6]) + (f" and {len(held) - 6} more" if len(held) > 6 else "")


def tables_of(inspection: Inspection) -> list[TextTable]:
    """All that have rows."""
    return [
        table
        for table in (
            class_table(inspection),
            presence_table(inspection),
            missing_table(inspection),
            unit_table(inspection),
        )
        if table[2]
    ]
