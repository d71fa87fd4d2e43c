"""Training in several processes that torchrun starts, on one machine or on several that share the run folder.

Each process computes the features of its share of the units and the gradients of its share of every batch; the first
writes the bundle. Training runs on the CPU, so the backend is gloo.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from aecf_ros.core.labeled_samples import Unit

_TIMEOUT = timedelta(days=7)
"""The other processes wait for so long while the first trains an encoder."""


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a training, and which of them this is.

    All processes must call the methods in the same order, except :meth:`share`, :meth:`rows` and :meth:`key`.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def wait(self) -> None:
        """Block until all processes have called this."""
        if self.size > 1:
            dist.barrier()

    def share(self, units: Sequence[Unit]) -> list[Unit]:
        """The units of this process. The largest units are assigned first, to the process with the fewest moments."""
        loads = [0] * self.size
        mine: list[Unit] = []
        for unit in sorted(units, key=lambda unit: (-len(unit.labels), unit.digest)):
            least = loads.index(min(loads))
            loads[least] += len(unit.labels)
            if least == self.rank:
                mine.append(unit)
        return mine

    def rows(self, count: int) -> slice:
        """The rows of this process in a batch of ``count``."""
        return slice(self.rank, count, self.size)

    def average_gradients(self, module: nn.Module) -> None:
        """Average the gradients over the processes, in place. A parameter without any gradient keeps none."""
        if self.size == 1:
            return
        parameters = [p for p in module.parameters() if p.requires_grad]
        flags = torch.tensor([float(p.grad is not None) for p in parameters])
        flat = torch.cat(
            [flags, *((torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in parameters)]
        )
        dist.all_reduce(flat)
        had, values = flat[: len(parameters)], flat[len(parameters) :] / self.size
        for has_gradient, p, mean in zip(
            had.tolist(), parameters, values.split([p.numel() for p in parameters]), strict=True
        ):
            p.grad = mean.reshape(p.shape).clone() if has_gradient else None

    def mean(self, value: float) -> float:
        """The mean of ``value`` over the processes."""
        if self.size == 1:
            return value
        total: Tensor = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(total)
        return total.item() / self.size

    def key(self) -> tuple[str, ...]:
        """What the number of processes adds to the fingerprint of a checkpoint, because dropout draws other numbers."""
        return () if self.size == 1 else (f"{self.size} processes",)


SINGLE_PROCESS = ProcessGroup()


@contextmanager
def process_group() -> Iterator[ProcessGroup]:
    """Join the processes that torchrun started while the block lasts; without torchrun, :data:`SINGLE_PROCESS`."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield SINGLE_PROCESS
        return
    dist.init_process_group("gloo", timeout=_TIMEOUT)
    try:
        yield ProcessGroup(dist.get_rank(), size)
    finally:
        dist.destroy_process_group()
