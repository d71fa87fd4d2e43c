"""The training loop: one for encoders and heads, deterministic, and resumable at every epoch from a checkpoint of
plain arrays."""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aecf_ros.core.files import replacing
from aecf_ros.training.head.distributed import ALONE, Ranks
from aecf_ros.training.run.config import OptimizerConfig

EpochLosses = Callable[[int, torch.Generator], Iterator[Tensor]]
"""(epoch, generator) -> the loss of each batch, in order. The generator is seeded by the epoch; the loop steps after
each."""
Advance = Callable[[float, float], None]
"""Called after each batch with (epochs done, mean loss of the epoch so far)."""
WARM_UP = 0.1
"""Share of a run in which the learning rate rises."""


def fingerprint(*parts: Any) -> str:
    """16 hexadecimal digits that change when any part does; parts are JSON values or bytes."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def module_digest(module: nn.Module) -> bytes:
    """SHA-256 of a module's parameters and buffers, those left out of its state included (constants of the
    preprocessing)."""
    digest = hashlib.sha256()
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.digest()


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a ``.npz`` in one step, so that a kill leaves the old file or the new one."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def load_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """Read a ``.npz`` without unpickling; None where there is no readable one."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (FileNotFoundError, ValueError, OSError, zipfile.BadZipFile):
        return None


@dataclass
class History:
    """Of each epoch the mean loss, and where there is early stopping the NLL of what is held out, in nats."""

    losses: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Stopping:
    """When to stop: ``patience`` epochs after the least value of ``nll``, whose weights are kept."""

    patience: int
    nll: Callable[[], float]

    def is_over(self, history: History) -> bool:
        """Whether the last epochs brought no new least."""
        return (
            len(history.held_out) - 1 - int(np.argmin(history.held_out)) >= self.patience if history.held_out else False
        )


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
    return arrays | best | {name: np.asarray(of, np.float64) for name, of in vars(history).items()}


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
    losses: EpochLosses,
    batches: int,
    config: OptimizerConfig,
    checkpoint: Path,
    seed: int,
    advance: Advance,
    *,
    stopping: Stopping | None = None,
    mixed: bool = False,
    ranks: Ranks = ALONE,
) -> History:
    """Train ``module`` in place and leave it in evaluation mode.

    A checkpoint is written after each epoch and taken up where it stands: a run that was killed and started again ends with
    the same weights as one that was not, because every epoch seeds its own generators.

    Args:
        module: what to train; its random layers use torch's global generator, which this seeds.
        losses: see :data:`EpochLosses`.
        batches: batches in each epoch.
        config: optimizer, schedule and epochs.
        checkpoint: ``.npz`` file; its name must be unique to everything that determines the result.
        seed: seed of the run.
        advance: told after each batch, for a progress bar.
        stopping: asked after each epoch; the weights of the least value are those that the module ends with.
        mixed: compute losses under bfloat16 autocast.
        ranks: the processes that train together; ``losses`` are then of this one's share of each batch, scaled so that their mean
            over the processes is the loss of the batch. The first writes the checkpoints, which all must be able to read.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    optimizer = torch.optim.AdamW(module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    stored = load_arrays(checkpoint)
    history, best = _unpack(stored, module, optimizer) if stored is not None else (History(), {})
    total = batches * config.epochs
    if history.losses:
        advance(len(history.losses), history.losses[-1])
    for epoch in range(len(history.losses), config.epochs):
        if stopping is not None and stopping.is_over(history):
            break
        torch.manual_seed(seed * 1009 + epoch + (ranks.rank << 32))
        generator = torch.Generator().manual_seed(seed * 1009 + epoch)
        module.train()
        seen = []
        for batch, loss in enumerate(_under_autocast(losses(epoch, generator), mixed)):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * one_cycle((epoch * batches + batch) / total)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            ranks.average_gradients(module)
            optimizer.step()
            seen.append(loss.item())
            advance(epoch + (batch + 1) / batches, sum(seen) / len(seen))
        history.losses.append(ranks.mean(float(np.mean(seen))))
        if not math.isfinite(history.losses[-1]):
            raise FloatingPointError(
                f"the loss of epoch {epoch + 1} is {history.losses[-1]}; lower optimizer.learning_rate"
            )
        if stopping is not None:
            module.eval()
            history.held_out.append(stopping.nll())
            if np.argmin(history.held_out) == epoch:
                best = _weights(module, "best")
        if ranks.first:
            save_arrays(checkpoint, _pack(module, optimizer, history, best))
    if best:
        _load_weights(module, best, "best")
    module.eval()
    return history


def _under_autocast(losses: Iterator[Tensor], mixed: bool) -> Iterator[Tensor]:
    """The same losses, each computed under bfloat16 autocast where ``mixed``; what is done with them is not."""
    while True:
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = next(losses, None)
        if loss is None:
            return
        yield loss


def precision_key(mixed: bool) -> tuple[str, ...]:
    """What mixed precision adds to the hash that a checkpoint is found by."""
    return ("bfloat16",) if mixed else ()


def one_cycle(progress: float) -> float:
    """Learning rate as a share of its peak: linear warm-up, then half a cosine.

    >>> one_cycle(0.05), one_cycle(0.1), round(one_cycle(1.0), 6)
    (0.5, 1.0, 0.0)
    """
    if progress < WARM_UP:
        return max(progress, 1e-3) / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))
