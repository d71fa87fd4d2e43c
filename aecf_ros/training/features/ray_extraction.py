"""Feature extraction over Ray: each CPU of a cluster computes files of the cache, which this process then reads.

Every machine must see the same folders: data, encoders, run folder.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Any

import torch

from aecf_ros.core.ray_cluster import ClusterError, cluster, cpus
from aecf_ros.training.features.cache import Advance, Extraction, extract


class _Worker:
    """One CPU: opens the encoders once."""

    def __init__(self, extraction: Extraction) -> None:
        torch.set_num_threads(1)
        self._extraction = extraction

    def ready(self) -> None:
        """Return once the worker has started."""

    def compute(self, name: str) -> None:
        """Write the files of a unit that the cache lacks."""
        extract(self._extraction, select=lambda units: [unit for unit in units if unit.name == name])


def extract_on_ray(extraction: Extraction, address: str | None, progress: Advance = lambda *_: None) -> None:
    """Compute what the cache lacks: to the byte the files of :func:`aecf_ros.training.features.cache.extract`.

    A unit whose worker died is left out with a warning; whoever reads the features then computes it.

    Args:
        address: of a cluster; ``None`` starts one on this machine.

    Raises:
        ClusterError: Ray is not installed, the cluster cannot be reached, or its workers cannot start. Errors of an
            encoder or a unit are passed on.
    """
    corpus = extraction.corpus
    modalities = len(corpus.names) if corpus.paired else 1
    samples = {
        unit.name: len(unit.labels) * (1 + count) * modalities
        for part, count in extraction.copies.items()
        for unit in corpus.parts[part]
    }
    names = sorted(samples, key=samples.__getitem__, reverse=True)  # the longest first, so that none is left to the end
    total, done, started = sum(samples.values()), 0, time.monotonic()
    progress(0, total, 0.0)
    with cluster(address) as ray:
        shared = ray.put(replace(extraction, cache=extraction.cache.absolute()))
        idle = [_actor(ray, shared) for _ in range(min(cpus(ray), len(names)))]
        try:
            ray.get([worker.ready.remote() for worker in idle])
        except ray.exceptions.RayError as error:
            why = str(error).splitlines()[-1]
            raise ClusterError(
                f"--ray: a worker cannot start ({why}); "
                "install this package in this version, at the same paths, on every machine"
            ) from None
        busy: dict[Any, tuple[Any, str]] = {}
        while names and idle or busy:
            while names and idle:
                worker, name = idle.pop(), names.pop(0)
                busy[worker.compute.remote(name)] = worker, name
            (ready,), _ = ray.wait(list(busy), num_returns=1)
            worker, name = busy.pop(ready)
            try:
                ray.get(ready)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayError as error:
                logging.getLogger(__name__).warning(
                    "%s: %s on the cluster; it is computed here", name, type(error).__name__
                )
                worker = _actor(ray, shared)
            idle.append(worker)
            done += samples[name]
            progress(done, total, done / max(time.monotonic() - started, 1e-9))


def _actor(ray: Any, extraction: Any) -> Any:
    """A worker on one CPU."""
    return ray.remote(num_cpus=1)(_Worker).remote(extraction)
