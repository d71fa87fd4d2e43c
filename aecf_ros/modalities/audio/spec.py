"""A microphone in manifests and datasets."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from aecf_ros.core.bundle import ManifestEntry, ModalityRecord
from aecf_ros.modalities.base import ModalitySpec


class _AudioRecord(ModalityRecord):
    kind: Literal["audio"]
    rate_hz: int = Field(gt=0)
    window_s: float = Field(gt=0)

    SIZES: ClassVar[tuple[str, ...]] = ("rate_hz", "window_s")
    input_name: ClassVar[str] = "samples"
    input_dtype: ClassVar[np.dtype] = np.dtype(np.float32)
    stored_dtype: ClassVar[np.dtype] = np.dtype(np.int16)

    @property
    def window_samples(self) -> int:
        """Samples in the window."""
        return round(self.rate_hz * self.window_s)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return (self.window_samples,)

    @property
    def size_text(self) -> str:
        return f"{self.window_s:.4g} s at {self.rate_hz} Hz"

    @property
    def span_s(self) -> float:
        return self.window_s


class AudioSpec(_AudioRecord, ModalitySpec):
    """One microphone of a dataset: samples are int16 ``(rate_hz * window_s,)`` mono."""


class AudioEntry(_AudioRecord, ManifestEntry):
    """A microphone: the encoder takes float32 ``[batch, rate_hz * window_s]`` mono in [-1, 1]."""

    rate_hz: int = Field(gt=0, le=384_000)
    window_s: float = Field(gt=0, le=60)
