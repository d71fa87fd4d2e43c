"""Ray, where it is installed: a cluster, or one that is started on this machine for as long as it is used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class ClusterError(ValueError):
    """Ray is not there, or cannot be reached; one line with what to do."""


@contextmanager
def cluster(address: str | None) -> Iterator[Any]:
    """The module ``ray``, connected; a connection that was there before is used and left.

    Args:
        address: of a cluster; ``None`` starts one on this machine and stops it afterwards.

    Raises:
        ClusterError: Ray is not installed, or the cluster cannot be reached.
    """
    try:
        import ray
    except ModuleNotFoundError:
        raise ClusterError("--ray needs the package 'ray'; pip install aecf_ros[fleet], or leave --ray out") from None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers of each use
    mine = not ray.is_initialized()
    try:
        if mine:
            ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        line = str(error).splitlines()[0]
        raise ClusterError(
            f"--ray {address or 'local'}: {line}; start a cluster with `ray start --head`, or leave the address out"
        ) from None
    try:
        yield ray
    finally:
        if mine:
            ray.shutdown()


def cpus(ray: Any) -> int:
    """How many CPUs there are."""
    return int(ray.cluster_resources().get("CPU", 1))
