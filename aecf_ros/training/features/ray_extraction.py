"""Feature extraction over Ray: each CPU of a cluster computes files of the cache, which this process then reads.

Every machine must see the same folders: data, encoders, run folder.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from aecf_ros.core.ray_cluster import ClusterError, cluster, cpus
from aecf_ros.training.data.corpus import Corpus
from aecf_ros.training.features.cache import Advance, extract
from aecf_ros.training.features.onnx_encoder import Encoder


class _Worker:
    """One CPU: opens the encoders once."""

    def __init__(self, given: tuple[Corpus, Mapping[str, Encoder], Mapping[str, int], int, Path]) -> None:
        torch.set_num_threads(1)
        self._given = given

    def ready(self) -> None:
        """Answers once it has started."""

    def compute(self, unit: str) -> str:
        """Write the files of a unit that are lacking; gives its name."""
        extract(*self._given, select=lambda units: [of for of in units if of.name == unit])
        return unit


def extract_on_ray(
    corpus: Corpus,
    encoders: Mapping[str, Encoder],
    copies: Mapping[str, int],
    seed: int,
    cache: Path,
    address: str | None,
    progress: Advance = lambda *_: None,
) -> None:
    """Compute what ``cache`` lacks; arguments as :func:`aecf_ros.training.features.cache.extract`, whose files these are to the byte.

    A unit whose worker died is left out with a warning: whoever reads the features computes it then.

    Args:
        address: of a cluster; ``None`` starts one on this machine.

    Raises:
        ClusterError: Ray is not there, the cluster cannot be reached, or its workers cannot start. What an encoder or a unit raises comes through.
    """
    each = len(corpus.names) if corpus.paired else 1
    files = {
        unit.name: len(unit.labels) * (1 + count) * each
        for part, count in copies.items()
        for unit in corpus.parts[part]
    }
    names = sorted(
        files, key=files.__getitem__, reverse=True
    )  # the longest first, so that none is waited for at the end
    total, done, since = sum(files.values()), 0, time.monotonic()
    progress(0, total, 0.0)
    with cluster(address) as ray:
        given = ray.put((corpus, dict(encoders), dict(copies), seed, cache.absolute()))
        idle = [_actor(ray, given) for _ in range(min(cpus(ray), len(names)))]
        try:
            ray.get([worker.ready.remote() for worker in idle])
        except ray.exceptions.RayError as error:
            why = str(error).splitlines()[-1]
            raise ClusterError(
                f"--ray: a worker cannot start ({why}); every machine needs this package in this version, and the same paths"
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
                worker = _actor(ray, given)
            idle.append(worker)
            done += files[name]
            progress(done, total, done / max(time.monotonic() - since, 1e-9))


def _actor(ray: Any, given: Any) -> Any:
    """A worker on one CPU."""
    return ray.remote(num_cpus=1)(_Worker).remote(given)
