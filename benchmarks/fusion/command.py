"""`python -m benchmarks fusion`: train, evaluate, write out/bench/fusion.json and docs/research/benchmarks.md."""

import argparse
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from rich.console import Console
from rich.progress import track

from benchmarks.fusion import jobs, multilabel, overhead, rows, summary, targets
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
        if not options.collect:
            _train(work, options, console)
        results = _collect(work, options)
    except (FileNotFoundError, ValueError) as error:
        console.print(str(error))
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "fusion.json").write_text(json.dumps(results, indent=1))
    console.print(targets.table(results["targets"]))
    if options.docs:
        write_tables(results, REPOSITORY / "docs" / "research" / "benchmarks.md")
        write_pictures(results, REPOSITORY / "docs" / "images")
    return 0


def _train(work: list[jobs.Job], options: argparse.Namespace, console: Console) -> None:
    for job in work if options.fresh else []:
        job.path.unlink(missing_ok=True)
    with ProcessPoolExecutor(options.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(jobs.run, job) for job in work]
        if not options.quick:
            seeds = range(options.ablation_seeds)
            futures += [pool.submit(multilabel.run, options.cache, FULL, seed) for seed in seeds]
        for future in track(as_completed(futures), "training heads", total=len(futures), console=console):
            future.result()


def _collect(work: list[jobs.Job], options: argparse.Namespace) -> dict:
    paths = [job.path for job in work if job.path.is_file()]
    if not paths:
        raise FileNotFoundError(f"{options.cache}/results: nothing there to collect; run without --collect first")
    results = summary.collect(paths)
    spent = [json.loads(path.read_text()).get("cpu_s") for path in paths]
    results["jobs"] = {"done": len(paths), "planned": len(work), "cpu_s": None if None in spent else sum(spent)}
    if not options.quick:
        results["overhead"] = overhead.measure()
        labels = [multilabel.run(options.cache, FULL, seed) for seed in range(options.ablation_seeds)]
        results["multilabel"] = summary.merge_seeds([json.loads(path.read_text()) for path in labels])
    results["targets"] = targets.check(results)
    return results


def _jobs(options: argparse.Namespace) -> list[jobs.Job]:
    """Seed by seed, so that a run cut short is still balanced; the ablations of a seed follow its main rows."""
    cache = options.cache
    if options.quick:
        return [jobs.Job(v, 0, QUICK_ROWS, QUICK, Budget(epochs=6), cache) for v in ("hard", "field")]
    work = []
    for seed in range(options.seeds):
        ablated = jobs.ABLATED if seed < options.ablation_seeds else ()
        for variant in jobs.VARIANTS:  # what a job trains once, all its rows share
            mine = rows.VARIANTS_OF_OURS | (rows.ABLATIONS_OF_OURS if variant in ablated else {})
            work += [jobs.Job(variant, seed, tuple(names), FULL, Budget(), cache) for names in (mine, rows.BASELINES)]
        work += [jobs.Job(variant, seed, tuple(rows.ABLATIONS), FULL, Budget(), cache) for variant in ablated]
    return work


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks fusion", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, two variants, a few rows: what the tests run")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--ablation-seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "out" / "bench")
    parser.add_argument(
        "--cache", type=Path, default=REPOSITORY / "out" / "bench" / "cache", help="features and results of jobs"
    )
    parser.add_argument("--collect", action="store_true", help="train nothing; report the results that lie there")
    parser.add_argument("--fresh", action="store_true", help="train again what an earlier run left results of")
    parser.add_argument(
        "--docs", action="store_true", help="write docs/research/benchmarks.md and docs/images from the result"
    )
    return parser
