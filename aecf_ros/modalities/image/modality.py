"""Cameras as a kind of sensor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from aecf_ros.core.types import RawImage
from aecf_ros.modalities.base import Modality, Raw
from aecf_ros.modalities.image.cdr import read_serialized_compressed_image, read_serialized_image
from aecf_ros.modalities.image.decode import decode_image, resize_image
from aecf_ros.modalities.image.evidence import ImageEvidence
from aecf_ros.modalities.image.faults import CONTENT_FAULTS, MALFORMED, edit_image
from aecf_ros.modalities.image.messages import read_any_image
from aecf_ros.modalities.image.parameters import PARAMETERS, THRESHOLDS
from aecf_ros.modalities.image.spec import ImageEntry, ImageSpec
from aecf_ros.modalities.messages import DecodeError


class Image(Modality):
    """Pictures: uint8 ``(height, width, 3)`` RGB."""

    name: ClassVar = "image"
    sensor: ClassVar = "camera"
    entry: ClassVar = ImageEntry
    spec: ClassVar = ImageSpec
    message_types: ClassVar = {"raw": "sensor_msgs/msg/Image", "compressed": "sensor_msgs/msg/CompressedImage"}
    thresholds: ClassVar = THRESHOLDS
    parameters: ClassVar = PARAMETERS
    evidence: ClassVar = ImageEvidence
    serialized: ClassVar = {"raw": read_serialized_image, "compressed": read_serialized_compressed_image}
    topic_suffix: ClassVar = "/image"
    queue_depth: ClassVar = 1
    """Under overload an old frame is worth less than a new one."""
    type_parameter: ClassVar = "transport"
    content_faults: ClassVar = CONTENT_FAULTS
    malformed: ClassVar = MALFORMED
    column_names: ClassVar = ("image",)
    file_suffixes: ClassVar = (".jpg", ".jpeg", ".png")

    def read(self, message: Any, info: Any | None, received_ns: int) -> RawImage:
        return read_any_image(message, received_ns)

    def probe(self, raw: Raw) -> dict[str, Any]:
        assert isinstance(raw, RawImage)
        height, width = decode_image(raw).image.shape[:2]
        return {"height": height, "width": width}

    def edit(self, message: Any, info: Any | None, change: Callable[[np.ndarray], np.ndarray]) -> Any:
        return edit_image(message, change)

    def read_file(self, file: Path, spec: ImageSpec) -> np.ndarray:
        return resize_image(_decode_file(file), spec.height, spec.width)

    def probe_file(self, file: Path) -> dict[str, Any] | None:
        try:
            height, width = _decode_file(file).shape[:2]
        except DecodeError:
            return None
        return {"height": height, "width": width}

    def sizes_of_input(self, shape: tuple[int, ...], notes: Any) -> dict[str, Any] | None:
        return super().sizes_of_input(shape[:2], notes) if shape[2:] == (3,) else None

    @property
    def corruptions(self) -> ModuleType:
        from aecf_ros.modalities.image import corruptions

        return corruptions


def _decode_file(file: Path) -> np.ndarray:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DecodeError(f"cannot be read ({error.strerror})") from None
    encoding = "png" if data[:1] == b"\x89" else "jpeg"
    return decode_image(RawImage(0, 0, encoding, 0, 0, 0, data)).image


IMAGE = Image()
