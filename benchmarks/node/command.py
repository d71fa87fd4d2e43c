"""`python -m benchmarks node`: floor, usual design and fusion_node as processes over DDS.

Writes out/bench/node.json and the node's tables of docs/research/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import replace
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.node import models, report
from benchmarks.node.cases import CASES, QUICK, Case, Effort
from benchmarks.node.measure import SYSTEMS, run_case
from benchmarks.node.naive import SOURCE
from benchmarks.node.processes import REPOSITORY, BenchmarkError, environment
from benchmarks.node.soak import soak
from benchmarks.node.streams import COUNTS, draw
from benchmarks.node.streams import measure as measure_streams

FIRST_DOMAIN, DOMAINS = 160, 60
NONE = "none"
WARM_S = 0.8
STREAM_REPETITIONS = 2


def main(arguments: list[str]) -> int:
    """0 done, 1 failed."""
    options = _parser().parse_args(arguments)
    console = Console()
    os.environ.update(environment(FIRST_DOMAIN + os.getpid() % DOMAINS))
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "node.json"
    results = json.loads(path.read_text()) if options.keep and path.is_file() else {"cases": {}}
    try:
        _measure(options, results, path, console)
    except BenchmarkError as error:
        console.print(str(error), style="red")
        return 1
    results["ratio_p50_to_floor"], results["head_share"] = (
        report.ratios(results["cases"]),
        report.head_shares(results["cases"]),
    )
    results["targets"] = report.targets(results)
    path.write_text(json.dumps(results, indent=1))
    for table in _tables(results):
        console.print(table)
    console.print(f"wrote {path}")
    if options.docs:
        if "streams" in results:
            draw(results["streams"], REPOSITORY / "docs" / "images" / "node-streams.png")
        report.write_tables(results, REPOSITORY / "docs" / "research" / "benchmarks.md")
    return 0


def _measure(options: argparse.Namespace, results: dict, path: Path, console: Console) -> None:
    effort = Effort(1, 0.6, 1.0) if options.quick else Effort(options.repetitions, WARM_S, options.window)
    cases = _chosen(options)
    counts = COUNTS if options.streams and not options.quick else ()
    logs = options.out / "logs"
    with Progress(
        console=console, auto_refresh=False
    ) as progress:  # a bar that refreshes by itself would be measured too
        task = progress.add_task(
            "starting",
            total=len(cases) * len(SYSTEMS) * effort.repetitions + len(counts) * STREAM_REPETITIONS + 60 * options.soak,
        )

        def advance(by: float = 1) -> None:
            progress.advance(task, by)
            progress.refresh()

        for case in cases:
            progress.update(task, description=case.name, refresh=True)
            results.setdefault("runs", {})[case.name] = {
                "date": date.today().isoformat(),
                "machine": _machine(),
                "repetitions": effort.repetitions,
                "window_s": effort.window_s,
                "synchronizer": SOURCE,
                "load_before": os.getloadavg()[0],
            }
            results["cases"][case.name] = run_case(
                case, _model(case, options.cache), SYSTEMS, effort, logs / case.name, advance
            )
            path.write_text(json.dumps(results, indent=1))  # what is measured stays if a later case fails
        if counts:
            progress.update(task, description="one to eight cameras", refresh=True)
            results["streams"] = measure_streams(
                counts, options.cache, replace(effort, repetitions=STREAM_REPETITIONS), logs, advance
            )
        if options.soak:
            progress.update(task, description="memory", refresh=True)
            results["soak"] = soak(_model(CASES[0], options.cache), options.soak, logs, advance)


def _chosen(options: argparse.Namespace) -> tuple[Case, ...]:
    if options.only is not None:
        return tuple(case for case in CASES if case.name in options.only)
    return QUICK if options.quick else CASES


def _model(case: Case, cache: Path) -> Path:
    return (
        models.SHIPPED
        if case.encoder == "shipped"
        else models.write_bundle(cache / f"{case.encoder}_{case.side}", case.encoder, side=case.side)
    )


def _machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "",
    )
    return f"{os.cpu_count()} cores of {model or platform.machine()}"


def _tables(results: dict) -> list[Table]:
    tables = []
    for name, case in results["cases"].items():
        table = Table(
            "",
            "p50 ms",
            "p99 ms",
            "answered",
            "predictions/s",
            "CPU %",
            "RSS MB",
            title=name,
            title_justify="left",
            header_style="dim",
        )
        for system, f in case.items():
            latency = ("none", "none") if f["p50_ms"] is None else (f"{f['p50_ms']:.2f}", f"{f['p99_ms']:.2f}")
            table.add_row(
                system,
                *latency,
                f"{f['answered']:.1%}",
                f"{f['predictions_per_s']:.1f}",
                f"{100 * f['cpu']:.1f}",
                f"{f['rss_mb']:.0f}",
            )
        tables.append(table)
    goals = Table("target", "measured", "met", header_style="dim")
    for t in results["targets"]:
        goals.add_row(t["target"], t["measured"], "yes" if t["met"] else "[red]no[/]")
    return [*tables, goals]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks node", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two cases, one short repetition: what the tests run")
    parser.add_argument(
        "--only",
        action="append",
        choices=[*(case.name for case in CASES), NONE],
        metavar="CASE",
        help="a case, repeatable; all of them by default, none for streams or memory alone",
    )
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--window", type=float, default=2.5, help="seconds of each repetition that count")
    parser.add_argument(
        "--streams", action=argparse.BooleanOptionalAction, default=True, help="also the node with one to eight cameras"
    )
    parser.add_argument(
        "--soak", type=float, default=0.0, metavar="MINUTES", help="also memory over so long; 30 for the target"
    )
    parser.add_argument(
        "--keep", action="store_true", help="add to the result that lies there instead of starting a new one"
    )
    parser.add_argument("--out", type=Path, default=REPOSITORY / "out" / "bench")
    parser.add_argument(
        "--cache", type=Path, default=REPOSITORY / "out" / "bench" / "cache" / "node", help="bundles of the encoders"
    )
    parser.add_argument(
        "--docs",
        action="store_true",
        help="write the node's tables of docs/research/benchmarks.md and docs/images/node-streams.png",
    )
    return parser
