"""What all backends share: the interface, the options, the errors and the record of the head's outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class BackendError(RuntimeError):
    """A backend or device that is not available; names what was asked for, what there is and what to do."""


@dataclass(frozen=True, slots=True)
class HeadOutput:
    """Output of the head for one prediction: M modalities, C classes, all NumPy without a batch axis."""

    probabilities: np.ndarray  # float32 (C,)
    confidence: float
    gate_weights: np.ndarray  # float32 (M,)
    gate_entropy: float
    agreement: float
    modality_probabilities: np.ndarray  # float32 (M, C)
    prediction_set: np.ndarray  # bool (C,)
    abstain_code: int
    distances: np.ndarray | None = None
    """float32 (M,): distance of each embedding to those of training; from 1 on it is out of distribution. ``None`` for
    heads that were exported before drift was monitored."""


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """How to run a bundle.

    Args:
        device: ``auto`` takes the best there is (TensorRT, CUDA, CPU in that order).
        threads: CPU threads of each graph. One is the fastest for small encoders on a CPU.
        half: encoders in half precision (torch backend; bfloat16 on a CPU). An ONNX graph has the precision it was
            exported in.
        cuda_graphs: replay each encoder as one CUDA graph (torch backend on CUDA).
    """

    device: str = "auto"
    threads: int = 1
    half: bool = False
    cuda_graphs: bool = False


class Backend(Protocol):
    """Runs one bundle. Call from one thread."""

    @property
    def device(self) -> str:
        """The device in use, for example ``cpu`` or ``cuda``."""
        ...

    @property
    def fault(self) -> str:
        """Why a device was given up since the start, empty if none was."""
        ...

    def encode(self, modality: str, sample: np.ndarray) -> np.ndarray:
        """Embed one sample of the bundle's input shape: float32 ``(embedding_dim,)``."""
        ...

    def fuse(self, embeddings: Mapping[str, np.ndarray], present: Sequence[bool]) -> HeadOutput:
        """Fuse the embeddings of the modalities that are present; the mapping may lack those of absent ones."""
        ...


Encoder = Callable[[np.ndarray], np.ndarray]
"""From one sample of the input shape to its embedding, float32 ``(embedding_dim,)``."""
