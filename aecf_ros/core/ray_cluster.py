"""Connect to a Ray cluster, or start one on this machine while it is used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class ClusterError(ValueError):
    """Ray is not installed or cannot be reached; one line with what to do."""


@contextmanager
def cluster(address: str | None) -> Iterator[Any]:
    """The module ``ray``, connected. An existing connection is used and left open.

    Args:
        address: of a cluster; ``None`` starts one on this machine and stops it afterwards.

    Raises:
        ClusterError: Ray is not installed, or the cluster cannot be reached.
    """
    try:
        import ray
    except ModuleNotFoundError:
        raise ClusterError("--ray needs the package 'ray'; pip install aecf_ros[fleet], or leave --ray out") from None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry
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
    """Number of CPUs of the cluster."""
    return int(ray.cluster_resources().get("CPU", 1))
