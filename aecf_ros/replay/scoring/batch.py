"""Evaluate several recordings: in this process, in worker processes, or over Ray. Finished results are kept."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from aecf_ros.core.bundle import MANIFEST, load_bundle, sha256
from aecf_ros.core.files import write_text
from aecf_ros.core.ray_cluster import cluster, cpus
from aecf_ros.replay.bag.discovery import content_digest, find_recordings
from aecf_ros.replay.bag.errors import BagError
from aecf_ros.replay.bag.reader import open_bag
from aecf_ros.replay.bag.topics import Reading
from aecf_ros.replay.faults.schedule import load_faults
from aecf_ros.replay.report.html import write_comparison
from aecf_ros.replay.scoring.aggregate import latency_counts, metric_sums
from aecf_ros.replay.scoring.driver import evaluate, stream_kinds
from aecf_ros.replay.scoring.label_spans import label_file
from aecf_ros.replay.scoring.score import Scored
from aecf_ros.replay.scoring.summary import Summary
from aecf_ros.runtime.backends import make_backend
from aecf_ros.runtime.pipeline import Pipeline

KEPT = "evaluated.json"
_LAYOUT = 1


class FleetError(ValueError):
    """Recordings cannot be evaluated together; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Job:
    """One recording to be evaluated into the folder ``out``. ``version`` is that of the package."""

    name: str
    bag: Path
    model: Path
    out: Path
    faults: Path | None = None
    reading: Reading = Reading()
    version: str = ""

    def key(self) -> str:
        """SHA-256 over all that the result depends on: model, recording, faults, labels, options, this package's
        version.
        """
        labels = label_file(self.bag)
        parts = {
            "layout": _LAYOUT,
            "version": self.version,
            "model": sha256(self.model / MANIFEST),
            "bag": content_digest(self.bag),
            "faults": sha256(self.faults) if self.faults else None,
            "labels": sha256(labels) if labels else None,
            "topics": dict(self.reading.topics),
            "audio_format": asdict(self.reading.audio_format) if self.reading.audio_format else None,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class RecordingResult(BaseModel):
    """Result of one recording. ``sums`` and ``latency`` (counts by bin) are pooled over recordings."""

    summary: Summary
    sums: dict[str, dict[str, Any]]
    latency: dict[str, int]
    duration_s: float
    busy_s: float
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """The result as JSON holds it."""
        return self.model_dump(exclude_unset=True)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of one job: a result, or the reason why it ``failed``. ``kept``: the result is that of an earlier run."""

    name: str
    bag: str
    failed: str = ""
    kept: bool = False
    result: RecordingResult | None = None


def find_jobs(paths: Sequence[Path], out: Path, **common: Any) -> list[Job]:
    """A job for each recording among ``paths``, which are recordings or folders of them.

    Raises:
        FleetError: a path holds no recording, or two have one name.
    """
    jobs: dict[str, Job] = {}
    for path in paths:
        recordings = find_recordings(path)
        if not recordings:
            raise FleetError(
                f"{path}: no recording is there; name a rosbag2 directory, an .mcap or .db3, or a "
                f"folder that holds some"
            )
        for name, bag in recordings.items():
            if name in jobs:
                raise FleetError(
                    f"{bag} and {jobs[name].bag} are both called {name}; rename one, or name the folder that holds both"
                )
            jobs[name] = Job(name, bag.absolute(), out=out / "recordings" / name, **common)
    return list(jobs.values())


def run_job(job: Job) -> Outcome:
    """Evaluate one recording in this process, or give what is kept of it. Never raises for what the recording holds."""
    try:
        key = job.key()
        if (kept := _kept(job.out / KEPT, key)) is not None:
            return Outcome(job.name, str(job.bag), kept=True, result=kept)
        result = _evaluate(job)
        # Written last, so that an interrupted evaluation does not look complete.
        write_text(job.out / KEPT, json.dumps({"key": key, "result": result.to_json()}))
        return Outcome(job.name, str(job.bag), result=result)
    except Exception as error:  # noqa: BLE001 - one recording must not stop the others, whatever it is made of
        line = (str(error).strip().splitlines() or [""])[0]
        return Outcome(
            job.name, str(job.bag), failed=line if isinstance(error, ValueError) else f"{type(error).__name__}: {line}"
        )


def _kept(path: Path, key: str) -> RecordingResult | None:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return RecordingResult.model_validate(kept["result"]) if kept.get("key") == key else None
    except (OSError, ValueError):
        return None


def _evaluate(job: Job) -> RecordingResult:
    bundle = load_bundle(job.model)
    manifest = bundle.manifest
    faults = load_faults(job.faults, stream_kinds(manifest)) if job.faults else ()
    started = time.perf_counter()
    with open_bag(job.bag) as bag:
        if bag.end_ns <= bag.start_ns:
            raise BagError(f"{job.bag}: holds no message; leave it out")
        pipeline = Pipeline(manifest, make_backend("onnxruntime", bundle))
        run = evaluate(
            bag,
            pipeline,
            faults,
            label_file(job.bag),
            topics=bag.choose_topics(manifest, job.reading),
        )
        warnings = [*bag.problems, *([w] if run.truth and (w := run.truth.warning(manifest.labels)) else [])]
    write_comparison(job.out, [replace(run, title=job.name)], f"aecf evaluate: {job.name}")
    sums = metric_sums(Scored(run.log, run.truth), manifest)
    return RecordingResult(
        summary=run.summary,
        sums={name: part.to_json() for name, part in sums.items()},
        latency=latency_counts(run.log.column("latency_s")),
        duration_s=run.duration_s,
        busy_s=time.perf_counter() - started,
        warnings=warnings,
    )


def run_here(jobs: Sequence[Job], workers: int) -> Iterator[Outcome]:
    """Outcomes as they come, of ``workers`` processes; with one, in this process.

    Where a process dies (killed for memory, or by what a recording made a library do), those that were not done are
    run again one by one, so
    that the one that does it is named.
    """
    if workers == 1:
        yield from map(run_job, jobs)
        return
    left = {job.name: job for job in jobs}
    try:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for future in as_completed([pool.submit(run_job, job) for job in jobs]):
                outcome = future.result()
                del left[outcome.name]
                yield outcome
    except BrokenProcessPool:
        for job in left.values():
            yield _alone(job)


def _alone(job: Job) -> Outcome:
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(run_job, job).result()
    except BrokenProcessPool:
        return Outcome(
            job.name, str(job.bag), failed=f"{job.bag}: the process that evaluated it died; it may need more memory"
        )


def run_on_ray(
    jobs: Sequence[Job], address: str | None, started: Callable[[int], None] = lambda cpus: None
) -> Iterator[Outcome]:
    """Outcomes as they come, over Ray, one CPU each; every machine must see the same paths.

    Args:
        address: of a cluster; ``None`` starts one on this machine and stops it afterwards.
        started: told how many CPUs there are.

    Raises:
        ClusterError: Ray is not installed, or the cluster cannot be reached.
    """
    with cluster(address) as ray:
        started(cpus(ray))
        task = ray.remote(num_cpus=1, max_retries=1)(run_job)
        waiting = {task.remote(job): job for job in jobs}
        while waiting:
            done, _ = ray.wait(list(waiting), num_returns=1)
            job = waiting.pop(done[0])
            try:
                yield ray.get(done[0])
            except ray.exceptions.RayError as error:
                yield Outcome(
                    job.name, str(job.bag), failed=f"{job.bag}: {type(error).__name__} on the cluster; see its logs"
                )


def outcome_line(outcome: Outcome) -> str:
    """Outcome of a recording in a few words."""
    return f"failed: {outcome.failed}" if outcome.failed else "kept" if outcome.kept else "evaluated"
