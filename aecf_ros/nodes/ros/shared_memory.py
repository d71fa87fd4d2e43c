"""The shared-memory files of Fast DDS: which a process uses, and which stay when it is gone."""

from __future__ import annotations

from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")


def files_of(pid: int) -> set[Path]:
    """Fast DDS files in shared memory that a running process has mapped; none where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    paths = {Path(line.split(maxsplit=5)[5]) for line in lines if str(SHARED_MEMORY) in line}
    return {path for path in paths if "fast" in path.name}


def orphans(paths: set[Path]) -> set[Path]:
    """Those of ``paths`` that still exist though no running process has them mapped: leaked.

    Some files serve every participant on the host, so that one process ending rightly leaves them to the others.
    """
    left = {path for path in paths if path.exists()}
    if left:
        left -= set().union(*(files_of(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()))
    return {path for path in left if path.exists()}
