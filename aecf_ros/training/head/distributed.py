"""Several processes on one training, as torchrun starts them: on one machine, or on several that share the run folder.

Each computes the features of its share of the units, and the gradients of its share of every batch; one writes the bundle.
Training runs on the CPU, so they talk by gloo.
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

_PATIENCE = timedelta(days=7)
"""An encoder may be trained by one process for that long while the others wait."""


@dataclass(frozen=True)
class Ranks:
    """This process among ``size``. Every method but :meth:`share` and :meth:`rows` must be called by all of them, in one order."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all have come here."""
        if self.size > 1:
            dist.barrier()

    def share(self, units: Sequence[Unit]) -> list[Unit]:
        """This process's units, such that each process has about as many moments: the largest first, each to who has least."""
        loads, mine = [0] * self.size, []
        for unit in sorted(units, key=lambda of: (-len(of.labels), of.digest)):
            least = loads.index(min(loads))
            loads[least] += len(unit.labels)
            if least == self.rank:
                mine.append(unit)
        return mine

    def rows(self, count: int) -> slice:
        """This process's rows of a batch."""
        return slice(self.rank, count, self.size)

    def average_gradients(self, module: nn.Module) -> None:
        """Make every process's gradients their mean. A parameter that no process has a gradient of keeps none."""
        if self.size == 1:
            return
        parameters = [p for p in module.parameters() if p.requires_grad]
        flags = torch.tensor([float(p.grad is not None) for p in parameters])
        flat = torch.cat(
            [flags, *((torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in parameters)]
        )
        dist.all_reduce(flat)
        had, values = flat[: len(parameters)], flat[len(parameters) :] / self.size
        for of, p, mean in zip(had.tolist(), parameters, values.split([p.numel() for p in parameters]), strict=True):
            p.grad = mean.reshape(p.shape).clone() if of else None

    def mean(self, value: float) -> float:
        """Of every process's value."""
        if self.size == 1:
            return value
        total: Tensor = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(total)
        return total.item() / self.size

    def key(self) -> tuple[str, ...]:
        """What the number of processes adds to the hash that a checkpoint is found by: dropout draws differ."""
        return () if self.size == 1 else (f"{self.size} processes",)


ALONE = Ranks()


@contextmanager
def joined() -> Iterator[Ranks]:
    """The processes that torchrun started, for as long as the block lasts; without torchrun this one alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    dist.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield Ranks(dist.get_rank(), size)
    finally:
        dist.destroy_process_group()
