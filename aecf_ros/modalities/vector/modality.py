"""Vectors that another program computes, as a kind of sensor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from aecf_ros.modalities.base import Modality, Raw
from aecf_ros.modalities.messages import DecodeError
from aecf_ros.modalities.vector.evidence import VectorEvidence
from aecf_ros.modalities.vector.faults import CONTENT_FAULTS, MALFORMED, edit_vector
from aecf_ros.modalities.vector.messages import RawVector, decode_vector, read_vector
from aecf_ros.modalities.vector.parameters import PARAMETERS, THRESHOLDS
from aecf_ros.modalities.vector.spec import VectorEntry, VectorSpec


class Vector(Modality):
    """Vectors: float32 ``(dim,)``."""

    name: ClassVar = "vector"
    sensor: ClassVar = "vector"
    entry: ClassVar = VectorEntry
    spec: ClassVar = VectorSpec
    thresholds: ClassVar = THRESHOLDS
    message_types: ClassVar = {"stamped": "aecf_msgs/msg/EmbeddingStamped"}
    definitions: ClassVar = ({"aecf_msgs/msg/EmbeddingStamped": "std_msgs/Header header\nfloat32[] values"},)
    parameters: ClassVar = PARAMETERS
    evidence: ClassVar = VectorEvidence
    content_faults: ClassVar = CONTENT_FAULTS
    malformed: ClassVar = MALFORMED
    column_names: ClassVar = ("embedding", "vector")
    file_suffixes: ClassVar = (".npy",)
    takes_numbers: ClassVar = True

    def read(self, message: Any, info: Any | None, received_ns: int) -> RawVector:
        return read_vector(message, received_ns)

    def probe(self, raw: Raw) -> dict[str, Any]:
        assert isinstance(raw, RawVector)
        return {"dim": len(raw.values)}

    def edit(self, message: Any, info: Any | None, change: Callable[[np.ndarray], np.ndarray]) -> Any:
        return edit_vector(message, change)

    def read_file(self, file: Path, spec: VectorSpec) -> np.ndarray:
        values = _load(file)
        return decode_vector(values.squeeze() if values.size > 1 else values.ravel(), spec.dim)

    def read_numbers(self, numbers: np.ndarray, spec: VectorSpec) -> np.ndarray:
        return decode_vector(numbers, spec.dim)

    def probe_file(self, file: Path) -> dict[str, Any] | None:
        try:
            return {"dim": _load(file).size}
        except DecodeError:
            return None

    @property
    def corruptions(self) -> ModuleType:
        from aecf_ros.modalities.vector import corruptions

        return corruptions


def _load(file: Path) -> np.ndarray:
    try:
        values = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        values = None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        raise DecodeError("not a NumPy array of numbers; save one with numpy.save")
    return values


VECTOR = Vector()
