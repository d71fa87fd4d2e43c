"""A node as its own process, with its output and its shared memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from aecf_ros.nodes.ros.process import stop_process  # noqa: E402
from aecf_ros.nodes.ros.shared_memory import SHARED_MEMORY, files_of  # noqa: E402

from .conftest import ROOT, WAIT_S, private_environment


class NodeProcess:
    """``python -m MODULE`` with parameters ``name:=value``; its output is kept."""

    def __init__(self, module: str, log: Path, *parameters: str, environment: Mapping[str, str] = os.environ) -> None:
        self.log = log
        self._there_before = set(SHARED_MEMORY.iterdir())
        overrides = [part for p in parameters for part in ("-p", p)]
        with log.open("w") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, "--ros-args", *overrides],
                stdout=sink,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=environment,
            )

    def output(self) -> str:
        return self.log.read_text()

    def segments(self) -> set[Path]:
        """Files of Fast DDS in shared memory that this process has mapped and that were not there before it."""
        return files_of(self.process.pid) - self._there_before

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(WAIT_S)

    def end(self) -> None:
        """At the end of a test: politely first, so that nothing is left in shared memory."""
        stop_process(self.process, 10)


@contextmanager
def started_together(
    module: str, folder: Path, each: Iterable[tuple[str, ...]], environment: Mapping[str, str] = {}
) -> Iterator[dict[tuple[str, ...], NodeProcess]]:
    """One node for each set of parameters, all at once: they are to end by themselves, which takes no longer
    together than alone.
    """
    nodes = {
        parameters: NodeProcess(
            module, folder / f"{i}.log", *parameters, environment={**private_environment(), **environment}
        )
        for i, parameters in enumerate(each)
    }
    try:
        yield nodes
    finally:
        for node in nodes.values():
            node.end()
