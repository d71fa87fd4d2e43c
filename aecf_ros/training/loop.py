"""The training loop: one for encoders and heads, deterministic, and resumable at every epoch from a checkpoint of
plain arrays."""

from __future__ import annotations

import hashlib
import json
import math
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aecf_ros.training.config import OptimizerConfig

EpochLosses = Callable[[int, torch.Generator], Iterator[Tensor]]
"""(epoch, generator) -> the loss of each batch, in order. The generator is seeded by the epoch; the loop steps after
each."""
Advance = Callable[[float, float], None]
"""Called after each batch with (epochs done, mean loss of the epoch so far)."""


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
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, **arrays)
    os.replace(partial, path)


def load_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """Read a ``.npz`` without unpickling; None where there is no readable one."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (FileNotFoundError, ValueError, OSError, zipfile.BadZipFile):
        return None


def _pack(module: nn.Module, optimizer: torch.optim.Optimizer, losses: list[float]) -> dict[str, np.ndarray]:
    arrays = {f"module/{key}": value.detach().cpu().numpy() for key, value in module.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        arrays |= {f"optimizer/{index}/{key}": value.detach().cpu().numpy() for key, value in state.items()}
    return arrays | {"losses": np.asarray(losses, np.float64)}


def _unpack(arrays: dict[str, np.ndarray], module: nn.Module, optimizer: torch.optim.Optimizer) -> list[float]:
    state: dict[int, dict[str, Tensor]] = {}
    weights = {}
    for key, value in arrays.items():
        kind, _, rest = key.partition("/")
        if kind == "module":
            weights[rest] = torch.from_numpy(value)
        elif kind == "optimizer":
            index, _, name = rest.partition("/")
            state.setdefault(int(index), {})[name] = torch.from_numpy(value)
    module.load_state_dict(weights)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return arrays["losses"].tolist()


def fit(
    module: nn.Module,
    losses: EpochLosses,
    batches: int,
    config: OptimizerConfig,
    checkpoint: Path,
    seed: int,
    advance: Advance,
) -> list[float]:
    """Train ``module`` in place and leave it in evaluation mode.

    A checkpoint is written after each epoch and taken up where it stands: a run that was killed and started again
    ends with the same
    weights as one that was not, because every epoch seeds its own generators.

    Args:
        module: what to train; its random layers use torch's global generator, which this seeds.
        losses: see :data:`EpochLosses`.
        batches: batches in each epoch.
        config: optimizer, schedule and epochs.
        checkpoint: ``.npz`` file; its name must be unique to everything that determines the result.
        seed: seed of the run.
        advance: told after each batch, for a progress bar.

    Returns:
        Mean loss of each epoch.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    optimizer = torch.optim.AdamW(module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    stored = load_arrays(checkpoint)
    history = _unpack(stored, module, optimizer) if stored is not None else []
    total = batches * config.epochs
    if history:
        advance(len(history), history[-1])
    for epoch in range(len(history), config.epochs):
        torch.manual_seed(seed * 1009 + epoch)
        generator = torch.Generator().manual_seed(seed * 1009 + epoch)
        module.train()
        seen = []
        for batch, loss in enumerate(losses(epoch, generator)):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * one_cycle((epoch * batches + batch) / total)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            seen.append(loss.item())
            advance(epoch + (batch + 1) / batches, sum(seen) / len(seen))
        history.append(float(np.mean(seen)))
        if not math.isfinite(history[-1]):
            raise FloatingPointError(f"the loss of epoch {epoch + 1} is {history[-1]}; lower optimizer.learning_rate")
        save_arrays(checkpoint, _pack(module, optimizer, history))
    module.eval()
    return history


def one_cycle(progress: float, warm_up: float = 0.1) -> float:
    """Learning rate as a share of its peak: linear warm-up, then half a cosine.

    >>> one_cycle(0.05), one_cycle(0.1), round(one_cycle(1.0), 6)
    (0.5, 1.0, 0.0)
    """
    if progress < warm_up:
        return max(progress, 1e-3) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up)))
