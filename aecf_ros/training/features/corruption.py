"""Corrupted copies of training samples: kinds of corruption of each kind of sensor, at severity 1 to 5.

A head that is trained on clean samples alone learns that its sensors are always right. So each training sample gets
corrupted copies, each of one kind and severity, and reliability is fitted on kinds held out.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aecf_ros.modalities import corruptions as shared_corruptions
from aecf_ros.modalities.audio import corruptions as audio_corruptions
from aecf_ros.modalities.image import corruptions as image_corruptions
from aecf_ros.modalities.vector import corruptions as vector_corruptions

Corruption = Callable[[Tensor, Tensor, torch.Generator], Tensor]
"""(batch, severity, generator) -> batch; a pure function of the three."""
CLEAN = -1
"""Kind of a sample that is left as it was recorded."""
MILDEST, WORST = 1.0, 5.0


KINDS: Mapping[str, Mapping[str, Corruption]] = {
    "image": {f.__name__: f for f in image_corruptions.KINDS},
    "audio": {f.__name__: f for f in audio_corruptions.KINDS},
    "vector": {f.__name__: f for f in vector_corruptions.KINDS},
}
"""Kind of modality -> name -> corruption. A sample's kind is an index into these."""


def corruption_code(modality_kind: str) -> bytes:
    """The source code that corrupts samples of a kind of modality, for cache keys."""
    own = sorted({function.__module__ for function in KINDS[modality_kind].values()})
    modules = [sys.modules[name] for name in (*own, shared_corruptions.__name__, __name__)]
    return "".join(map(inspect.getsource, modules)).encode()


@dataclass(frozen=True)
class Corruptions:
    """How each sample is corrupted.

    Attributes:
        modality_kind: a key of :data:`KINDS`.
        kind: int64 ``(N,)``, index into :data:`KINDS` of that, or :data:`CLEAN`.
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
    kind = rng.permutation(np.arange(count) % len(KINDS[modality_kind]))
    return Corruptions(modality_kind, kind, rng.uniform(MILDEST, WORST, count).astype(np.float32))


def corrupt(samples: Tensor, corruptions: Corruptions, generator: torch.Generator) -> Tensor:
    """Corrupted samples, of the shape and type that an encoder takes.

    Args:
        samples: uint8 ``(B, H, W, 3)``, or sound or vectors float32 ``(B, N)``.
    """
    picture = corruptions.modality_kind == "image"
    x = samples.permute(0, 3, 1, 2).float() / 255.0 if picture else samples
    out = x.clone()
    for index, change in enumerate(KINDS[corruptions.modality_kind].values()):
        rows = torch.from_numpy(np.flatnonzero(corruptions.kind == index))
        if len(rows):
            out[rows] = change(x[rows], torch.from_numpy(corruptions.severity)[rows], generator)
    if corruptions.modality_kind == "vector":
        return out
    if not picture:
        return out.clamp(-1.0, 1.0)
    return (out.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
