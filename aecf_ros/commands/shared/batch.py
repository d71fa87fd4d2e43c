"""`aecf evaluate` of many recordings: progress, one report, and what failed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from aecf_ros import __version__
from aecf_ros.commands.shared.terminal import say_warnings
from aecf_ros.core.bundle import Manifest, load_bundle
from aecf_ros.replay.bag.topics import Reading
from aecf_ros.replay.faults.schedule import load_faults
from aecf_ros.replay.report.batch import pooled_summary, recording_table, write_fleet
from aecf_ros.replay.report.tables import summary_tables, text_table
from aecf_ros.replay.scoring.batch import FleetError, Outcome, find_jobs, outcome_line, run_here, run_on_ray
from aecf_ros.replay.scoring.driver import stream_kinds
from aecf_ros.replay.scoring.summary import Summary

SHOWN = 20
"""Rows of the table on the terminal; the report has all."""


def evaluate_many(
    console: Console,
    bags: Sequence[Path],
    model: Path,
    out: Path,
    faults: Path | None,
    reading: Reading,
    workers: int,
    ray_address: str | None,
) -> bool:
    """Evaluate every recording and pool them; whether all of them could be.

    Args:
        bags: recordings, or folders of them.
        ray_address: over Ray; empty starts it here, ``None`` is processes of this machine.

    Raises:
        BundleError, FaultError: the model or the faults cannot be used, whatever the recordings are.
        FleetError: there is no recording.
        ClusterError: there is no Ray.
    """
    bundle = load_bundle(model)
    if bundle.manifest.task == "multilabel":
        raise FleetError(
            f"{model}: its task is multilabel, and macro mAP is not pooled over recordings; evaluate one at a time"
        )
    if faults is not None:
        load_faults(faults, stream_kinds(bundle.manifest))
    jobs = find_jobs(
        bags,
        out,
        model=model.absolute(),
        faults=faults.absolute() if faults else None,
        reading=reading,
        version=__version__,
    )
    started, outcomes, used = time.perf_counter(), {}, [workers]
    with Progress(*_columns(), console=console, transient=True) as bar:
        task = bar.add_task(f"{len(jobs)} recordings", total=len(jobs))
        stream = (
            run_here(jobs, min(workers, len(jobs)))
            if ray_address is None
            else run_on_ray(jobs, ray_address or None, used.append)
        )
        for outcome in stream:
            outcomes[outcome.name] = outcome
            bar.advance(task)
            _say(console, outcome)
    in_order = [outcomes[job.name] for job in jobs]
    summary = pooled_summary(in_order, bundle.manifest, time.perf_counter() - started, used[-1])
    paths = write_fleet(out, in_order, summary, bundle.manifest, f"aecf evaluate: {len(jobs)} recordings")
    _print_summary(console, in_order, summary, bundle.manifest, paths)
    assert summary.fleet is not None
    return not summary.fleet.failed


def _columns() -> tuple[ProgressColumn, ...]:
    return (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )


def _print_summary(
    console: Console, outcomes: Sequence[Outcome], summary: Summary, manifest: Manifest, paths: Sequence[Path]
) -> None:
    for table in summary_tables(summary):
        console.print(table)
    header, rows = recording_table(outcomes[:SHOWN], manifest)
    title = f"recordings (the first {SHOWN})" if len(rows) < len(outcomes) else "recordings"
    console.print(text_table(title, [*header[:7], header[-1]], [[*row[:7], row[-1]] for row in rows]))
    fleet = summary.fleet
    assert fleet is not None
    pace = f"{fleet.realtime_factor:.0f} times real time with {fleet.workers} worker{'s' if fleet.workers > 1 else ''}"
    console.print(
        f"{fleet.evaluated} evaluated, {fleet.kept} kept, {len(fleet.failed)} failed; "
        f"{pace if fleet.evaluated else 'nothing was replayed'}; wrote " + " and ".join(map(str, paths)),
        soft_wrap=True,
    )


def _say(console: Console, outcome: Outcome) -> None:
    if outcome.failed:
        console.print(f"[red]{escape(outcome.name)}[/] {escape(outcome_line(outcome))}", soft_wrap=True)
    say_warnings(console, [f"{outcome.name}: {line}" for line in (outcome.result.warnings if outcome.result else ())])
