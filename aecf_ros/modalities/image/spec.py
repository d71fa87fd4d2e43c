"""A camera in manifests and datasets."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from aecf_ros.core.bundle import ManifestEntry, ModalityRecord
from aecf_ros.modalities.base import ModalitySpec


class _ImageRecord(ModalityRecord):
    kind: Literal["image"]
    height: int = Field(gt=0)
    width: int = Field(gt=0)

    SIZES: ClassVar[tuple[str, ...]] = ("height", "width")
    input_name: ClassVar[str] = "image"
    input_dtype: ClassVar[np.dtype] = np.dtype(np.uint8)
    stored_dtype: ClassVar[np.dtype] = np.dtype(np.uint8)
    paces_predictions: ClassVar[bool] = True

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return (self.height, self.width, 3)

    @property
    def size_text(self) -> str:
        return f"{self.height}x{self.width} pixels"


class ImageSpec(_ImageRecord, ModalitySpec):
    """One camera of a dataset: samples are uint8 ``(height, width, 3)`` RGB."""


class ImageEntry(_ImageRecord, ManifestEntry):
    """A camera: the encoder takes uint8 ``[batch, height, width, 3]`` RGB."""

    height: int = Field(gt=0, le=4096)
    width: int = Field(gt=0, le=4096)
