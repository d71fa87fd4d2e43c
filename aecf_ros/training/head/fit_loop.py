"""The training loop of encoders and heads: deterministic, and resumable at every epoch from a checkpoint of arrays."""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from aecf_ros.core.files import replacing
from aecf_ros.training.config import OptimizerConfig
from aecf_ros.training.head.distributed import SINGLE_PROCESS, ProcessGroup

ProgressCallback = Callable[[float, str], None]
"""Called with (steps done, a note), for a progress bar. Steps are epochs, or modalities."""
WARM_UP = 0.1
"""Share of the steps in which the learning rate rises."""


def fingerprint(*parts: Any) -> str:
    """16 hexadecimal digits that change when any part does; parts are JSON values or bytes."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def module_digest(module: nn.Module) -> bytes:
    """SHA-256 of a module's parameters and buffers, those that are not in its state (constants) included."""
    digest = hashlib.sha256()
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.digest()


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a ``.npz`` file in one step: a killed process leaves the old file or the new one."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **cast(Any, arrays))


def load_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """Read a ``.npz`` file without unpickling; ``None`` where there is none, or it cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (FileNotFoundError, ValueError, OSError, zipfile.BadZipFile):
        return None


@dataclass
class History:
    """The mean loss of each epoch and, with early stopping, the NLL of the held-out pairs, in nats."""

    losses: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class EarlyStopping:
    """Stop ``patience`` epochs after the lowest ``nll``, and keep the weights of that epoch."""

    patience: int
    nll: Callable[[], float]

    def is_over(self, history: History) -> bool:
        """Whether the last ``patience`` epochs have not lowered the NLL."""
        nll = history.held_out
        return bool(nll) and len(nll) - 1 - int(np.argmin(nll)) >= self.patience


@dataclass(frozen=True)
class Batches:
    """The batches of an epoch.

    Attributes:
        count: in each epoch.
        losses: (epoch, generator) -> the loss of each batch, in order. The generator is seeded by the epoch; the
            optimizer steps after each loss.
    """

    count: int
    losses: Callable[[int, torch.Generator], Iterator[Tensor]]


@dataclass(frozen=True)
class FitContext:
    """How a module is fitted in a run.

    Attributes:
        folder: of checkpoints; all ``processes`` must be able to read it.
        seed: of everything that is drawn.
        progress: see :data:`ProgressCallback`.
        mixed_precision: compute losses under bfloat16 autocast.
        processes: that fit the module together.
    """

    folder: Path
    seed: int = 0
    progress: ProgressCallback = lambda done, note: None
    mixed_precision: bool = False
    processes: ProcessGroup = SINGLE_PROCESS

    def key(self) -> tuple[str, ...]:
        """What precision and processes add to the fingerprint of a checkpoint."""
        return (("bfloat16",) if self.mixed_precision else ()) + self.processes.key()


def _weights(module: nn.Module, prefix: str) -> dict[str, np.ndarray]:
    return {f"{prefix}/{key}": value.detach().cpu().numpy().copy() for key, value in module.state_dict().items()}


def _load_weights(module: nn.Module, arrays: dict[str, np.ndarray], prefix: str) -> None:
    weights = {
        key.removeprefix(f"{prefix}/"): torch.from_numpy(value)
        for key, value in arrays.items()
        if key.startswith(f"{prefix}/")
    }
    module.load_state_dict(weights)


def _pack(
    module: nn.Module, optimizer: torch.optim.Optimizer, history: History, best: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    arrays = _weights(module, "module")
    for index, state in optimizer.state_dict()["state"].items():
        arrays |= {f"optimizer/{index}/{key}": value.detach().cpu().numpy() for key, value in state.items()}
    return arrays | best | {name: np.asarray(values, np.float64) for name, values in vars(history).items()}


def _unpack(
    arrays: dict[str, np.ndarray], module: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[History, dict[str, np.ndarray]]:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in arrays.items():
        kind, _, rest = key.partition("/")
        if kind == "optimizer":
            index, _, name = rest.partition("/")
            state.setdefault(int(index), {})[name] = torch.from_numpy(value)
    _load_weights(module, arrays, "module")
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    best = {key: value for key, value in arrays.items() if key.startswith("best/")}
    return History(arrays["losses"].tolist(), arrays["held_out"].tolist() if "held_out" in arrays else []), best


def fit(
    module: nn.Module,
    batches: Batches,
    config: OptimizerConfig,
    checkpoint: str,
    context: FitContext,
    stopping: EarlyStopping | None = None,
) -> History:
    """Train ``module`` in place and leave it in evaluation mode.

    A checkpoint is written after each epoch, and a fit resumes from it: because every epoch seeds its own generators,
    an interrupted fit ends with the same weights as an uninterrupted one.

    Args:
        module: its random layers use the global generator of torch, which this seeds.
        batches: of each epoch. With several processes the losses are of this process's share of each batch, scaled so
            that their mean over the processes is the loss of the batch.
        config: optimizer, schedule and epochs.
        checkpoint: name of the file, without suffix; unique to everything that determines the result.
        stopping: checked after each epoch; the module ends with the weights of the lowest NLL.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    optimizer = torch.optim.AdamW(module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    path = context.folder / f"{checkpoint}.npz"
    stored = load_arrays(path)
    history, best = _unpack(stored, module, optimizer) if stored is not None else (History(), {})
    if history.losses:
        context.progress(len(history.losses), f"loss {history.losses[-1]:.3f}")
    for epoch in range(len(history.losses), config.epochs):
        if stopping is not None and stopping.is_over(history):
            break
        loss = context.processes.mean(_fit_epoch(module, optimizer, batches, config, epoch, context))
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss of epoch {epoch + 1} is {loss}; lower optimizer.learning_rate")
        history.losses.append(loss)
        if stopping is not None:
            module.eval()
            history.held_out.append(stopping.nll())
            if np.argmin(history.held_out) == epoch:
                best = _weights(module, "best")
        if context.processes.is_first:
            save_arrays(path, _pack(module, optimizer, history, best))
    if best:
        _load_weights(module, best, "best")
    module.eval()
    return history


def _fit_epoch(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    config: OptimizerConfig,
    epoch: int,
    context: FitContext,
) -> float:
    """Train for one epoch; the mean loss of this process."""
    seed = context.seed * 1009 + epoch
    torch.manual_seed(seed + (context.processes.rank << 32))
    generator = torch.Generator().manual_seed(seed)
    module.train()
    total = batches.count * config.epochs
    losses: list[float] = []
    for batch, loss in enumerate(_under_autocast(batches.losses(epoch, generator), context.mixed_precision)):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * one_cycle((epoch * batches.count + batch) / total)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        context.processes.average_gradients(module)
        optimizer.step()
        losses.append(loss.item())
        context.progress(epoch + (batch + 1) / batches.count, f"loss {sum(losses) / len(losses):.3f}")
    return float(np.mean(losses))


def _under_autocast(losses: Iterator[Tensor], mixed: bool) -> Iterator[Tensor]:
    """The same losses, each computed under bfloat16 autocast where ``mixed``; steps on them are not."""
    while True:
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = next(losses, None)
        if loss is None:
            return
        yield loss


def one_cycle(progress: float) -> float:
    """Learning rate as a share of its peak: linear warm-up, then half a cosine.

    >>> one_cycle(0.05), one_cycle(0.1), round(one_cycle(1.0), 6)
    (0.5, 1.0, 0.0)
    """
    if progress < WARM_UP:
        return max(progress, 1e-3) / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))
