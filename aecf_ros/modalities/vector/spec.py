"""A vector that another program computes, in manifests and datasets."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from aecf_ros.core.bundle import ManifestEntry, ModalityRecord
from aecf_ros.modalities.base import ModalitySpec


class _VectorRecord(ModalityRecord):
    kind: Literal["vector"]
    dim: int = Field(gt=0)

    SIZES: ClassVar[tuple[str, ...]] = ("dim",)
    input_name: ClassVar[str] = "vector"
    input_dtype: ClassVar[np.dtype] = np.dtype(np.float32)
    stored_dtype: ClassVar[np.dtype] = np.dtype(np.float32)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return (self.dim,)

    @property
    def size_text(self) -> str:
        return f"{self.dim} numbers"


class VectorSpec(_VectorRecord, ModalitySpec):
    """One stream of vectors of a dataset: samples are float32 ``(dim,)``."""


class VectorEntry(_VectorRecord, ManifestEntry):
    """A stream of vectors: the encoder takes float32 ``[batch, dim]`` and standardizes it."""

    dim: int = Field(gt=0, le=65_536)
