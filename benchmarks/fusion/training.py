"""One budget for every head: epochs, batch, optimizer, learning rate. Pairs are drawn anew every epoch where the
variant allows it.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import aecf_ros.fusion
from benchmarks.fusion.features import Pairs, Pool

EPOCH_SIZE = 15000  # pairs in an epoch, also where the pool holds two versions of each image


@dataclass(frozen=True)
class Budget:
    """What every trained row gets."""

    epochs: int = 10
    batch: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2


@dataclass(frozen=True)
class Samples:
    """Standardized features, ready for a head. embeddings: 2 x float32 [N, D]; label, recording: int64 [N]; groups:
    int64 [N, 2].
    """

    embeddings: list[Tensor]
    label: Tensor
    groups: Tensor
    recording: np.ndarray

    def __len__(self) -> int:
        return len(self.label)


class Scaler:
    """Standardizes features with the mean and deviation of the training pool."""

    def __init__(self, pool: Pool | Pairs):
        self.moments = [(x.mean(0), x.std(0) + 1e-6) for x in (pool.image, pool.sound)]

    def __call__(self, pairs: Pairs) -> Samples:
        arrays = [
            (x - mean) / deviation
            for x, (mean, deviation) in zip((pairs.image, pairs.sound), self.moments, strict=True)
        ]
        return Samples(
            embeddings=[torch.from_numpy(a.astype(np.float32)) for a in arrays],
            label=torch.from_numpy(pairs.label.astype(np.int64)),
            groups=torch.from_numpy(pairs.groups.astype(np.int64)),
            recording=pairs.recording,
        )


class Training:
    """The training side of one variant: its pool, standardized, and epochs of pairs.

    quality: how many of the last columns of the sound are measured, not embedded.
    """

    def __init__(self, pool: Pool | Pairs, quality: int = 0):
        self.pool, self.scale, self.quality = pool, Scaler(pool), (0, quality)
        first = self.draw(np.random.default_rng(0))
        self.dims = [x.shape[1] for x in first.embeddings]
        self.classes = int(first.label.max()) + 1
        self.epoch_size = min(len(first), EPOCH_SIZE)

    def draw(self, rng: np.random.Generator) -> Samples:
        """One epoch's pairs."""
        return self.scale(self.pool if isinstance(self.pool, Pairs) else self.pool.draw(rng))

    def digest(self, budget: Budget) -> str:
        """A hash of what a trained model of this pool depends on: features, budget and code."""
        arrays = (self.pool.image, self.pool.sound)
        files = [Path(__file__), *sorted(Path(aecf_ros.fusion.__file__).parent.rglob("*.py"))]
        parts = [
            *(np.ascontiguousarray(a).tobytes() for a in arrays),
            *(f.read_bytes() for f in files),
            repr(budget).encode(),
        ]
        return hashlib.sha256(b"".join(parts)).hexdigest()[:12]

    def sides(self) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Every image, then every sound, unpaired: (embeddings [N, D], label [N], kind [N], cluster [N]) of each."""
        pool = self.pool
        if isinstance(pool, Pairs):
            image = (pool.image, pool.label, pool.groups[:, 0], pool.image_row)
            sound = (pool.sound, pool.label, pool.groups[:, 1], pool.recording)
        else:
            image = (pool.image, pool.image_label, pool.image_kind, pool.image_row)
            sound = (pool.sound, pool.sound_label, pool.sound_kind, pool.recording)
        sides = []
        for (embedding, *columns), (mean, deviation) in zip((image, sound), self.scale.moments, strict=True):
            standard = torch.from_numpy(((embedding - mean) / deviation).astype(np.float32))
            sides.append((standard, *(torch.from_numpy(c.astype(np.int64)) for c in columns)))
        return sides

    def batches(self, budget: Budget, seed: int) -> Iterator[tuple[list[Tensor], Tensor, float]]:
        """(embeddings, label, progress in [0, 1]) of every step."""
        rng = np.random.default_rng(1000 + seed)
        for epoch in range(budget.epochs):
            samples = self.draw(rng)
            order = torch.from_numpy(rng.permutation(len(samples)))
            for start in range(0, self.epoch_size - budget.batch + 1, budget.batch):
                rows = order[start : start + budget.batch]
                yield (
                    [e[rows] for e in samples.embeddings],
                    samples.label[rows],
                    (epoch + start / self.epoch_size) / budget.epochs,
                )

    def fit(self, model: nn.Module, loss_of: Callable, budget: Budget, seed: int) -> nn.Module:
        """Minimize loss_of(embeddings, present, label, progress, generator); returns the model in evaluation mode."""
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        optimizer = torch.optim.AdamW(model.parameters(), lr=budget.learning_rate, weight_decay=budget.weight_decay)
        total = budget.epochs * (self.epoch_size // budget.batch)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, budget.learning_rate, total_steps=total, pct_start=0.2
        )
        model.train()
        present = torch.ones(budget.batch, 2, dtype=torch.bool)
        for embeddings, label, progress in self.batches(budget, seed):
            loss = loss_of(embeddings, present, label, progress, generator)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        return model.eval()
