"""`python -m benchmarks fusion`: train, evaluate, write out/bench/fusion.json and the tables of docs/benchmarks.md."""

import argparse
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from rich.console import Console
from rich.progress import track

from benchmarks.fusion import jobs, rows, summary, targets
from benchmarks.fusion.features import FULL, QUICK
from benchmarks.fusion.report import write_pictures, write_tables
from benchmarks.fusion.training import Budget

REPOSITORY = Path(__file__).resolve().parents[2]
QUICK_ROWS = ("concat, no mask (confound)", "concat + mask", "mean of logits", rows.STRONG, rows.OURS, "additive gate")


def main(arguments: list[str]) -> int:
    """0 done, 1 failed."""
    options = _parser().parse_args(arguments)
    console = Console()
    try:
        work = _jobs(options)
        for job in work if options.fresh else []:
            job.path.unlink(missing_ok=True)
        with ProcessPoolExecutor(options.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            futures = [pool.submit(jobs.run, job) for job in work]
            for future in track(as_completed(futures), "training heads", total=len(futures), console=console):
                future.result()
    except FileNotFoundError as error:
        console.print(str(error))
        return 1
    results = summary.collect([job.path for job in work])
    results["targets"] = targets.check(results)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "fusion.json").write_text(json.dumps(results, indent=1))
    console.print(targets.table(results["targets"]))
    if options.docs:
        write_tables(results, REPOSITORY / "docs" / "benchmarks.md")
        write_pictures(results, REPOSITORY / "docs" / "images")
    return 0


def _jobs(options: argparse.Namespace) -> list[jobs.Job]:
    """Baselines of every variant first, seed by seed, then ours, then the ablations: a run cut short is still balanced."""
    cache = options.out / "cache"
    if options.quick:
        budget = Budget(epochs=6)
        return [jobs.Job(v, 0, QUICK_ROWS, QUICK, budget, cache) for v in ("hard", "field")]
    budget = Budget()

    def of(variants, seeds, names):
        return [jobs.Job(v, seed, tuple(names), FULL, budget, cache) for seed in range(seeds) for v in variants]

    work = of(jobs.VARIANTS, options.seeds, rows.BASELINES) + of(jobs.VARIANTS, options.seeds, rows.VARIANTS_OF_OURS)
    return work + of(jobs.ABLATED, options.ablation_seeds, rows.ABLATIONS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks fusion", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, two variants, a few rows: what the tests run")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--ablation-seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "out" / "bench")
    parser.add_argument("--fresh", action="store_true", help="train again what an earlier run left results of")
    parser.add_argument("--docs", action="store_true", help="write docs/benchmarks.md and docs/images from the result")
    return parser
