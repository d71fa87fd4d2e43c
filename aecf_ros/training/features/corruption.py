"""Corrupted copies of training samples: kinds of corruption of each kind of sensor, at severity 1 to 5.

A head that is trained on clean samples alone learns that its sensors are always right. So each training sample gets
corrupted copies, each of one kind and severity, and reliability is fitted on kinds held out.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aecf_ros.modalities import corruptions as shared_corruptions
from aecf_ros.modalities.registry import MODALITIES

Corruption = Callable[[Tensor, Tensor, torch.Generator], Tensor]
"""(batch, severity, generator) -> batch; a pure function of the three."""
CLEAN = -1
"""Kind of a sample that is left as it was recorded."""
MILDEST, WORST = 1.0, 5.0


def corruptions_of(modality_kind: str) -> dict[str, Corruption]:
    """The corruptions of a kind of modality, by name. A sample's kind of corruption is an index into them."""
    return {function.__name__: function for function in MODALITIES[modality_kind].corruptions.KINDS}


def corruption_code(modality_kind: str) -> bytes:
    """The source code that corrupts samples of a kind of modality, for cache keys."""
    own = sorted({function.__module__ for function in corruptions_of(modality_kind).values()})
    modules = [sys.modules[name] for name in (*own, shared_corruptions.__name__, __name__)]
    return "".join(map(inspect.getsource, modules)).encode()


@dataclass(frozen=True)
class Corruptions:
    """How each sample is corrupted.

    Attributes:
        modality_kind: of which modality.
        kind: int64 ``(N,)``, index into :func:`corruptions_of` that, or :data:`CLEAN`.
        severity: float32 ``(N,)`` in [1, 5].
    """

    modality_kind: str
    kind: np.ndarray
    severity: np.ndarray

    def rows(self, rows: slice | np.ndarray) -> Corruptions:
        """Those of some of the samples."""
        return Corruptions(self.modality_kind, self.kind[rows], self.severity[rows])


def draw_corruptions(modality_kind: str, count: int, seed: Sequence[int]) -> Corruptions:
    """Kinds in equal shares, severities uniform."""
    rng = np.random.default_rng(seed)
    kind = rng.permutation(np.arange(count) % len(corruptions_of(modality_kind)))
    return Corruptions(modality_kind, kind, rng.uniform(MILDEST, WORST, count).astype(np.float32))


def corrupt(samples: Tensor, corruptions: Corruptions, generator: torch.Generator) -> Tensor:
    """Corrupted samples, of the shape and type that an encoder takes.

    Args:
        samples: ``(B, *sample_shape)`` as encoders take them.
    """
    module = MODALITIES[corruptions.modality_kind].corruptions
    x: Tensor = module.to_float(samples)
    out = x.clone()
    for index, change in enumerate(module.KINDS):
        rows = torch.from_numpy(np.flatnonzero(corruptions.kind == index))
        if len(rows):
            out[rows] = change(x[rows], torch.from_numpy(corruptions.severity)[rows], generator)
    corrupted: Tensor = module.from_float(out)
    return corrupted
