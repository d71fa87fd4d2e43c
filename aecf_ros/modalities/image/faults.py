"""Faults of a camera: pictures that show less, and messages that cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import cv2
import numpy as np

from aecf_ros.modalities.faults import ContentFault, Malform, Option
from aecf_ros.modalities.image.decode import decode_image
from aecf_ros.modalities.image.messages import read_any_image
from aecf_ros.modalities.messages import as_bytes, copy_with, in_container_of, overwritten

JPEG_QUALITY = 95
"""Of a frame that was decoded, changed and encoded again: high, so that the fault and not the codec is what is seen."""


class Noise(ContentFault):
    """White noise of ``sigma_levels`` gray levels of 255."""

    OPTIONS: ClassVar = {"sigma_levels": Option((10, 20, 40, 70, 100), 0, 255)}

    def change(self, content: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        noise = rng.standard_normal(content.shape, np.float32) * np.float32(self.options["sigma_levels"])
        return np.asarray(np.clip(content + noise, 0, 255).astype(np.uint8))


class Blur(ContentFault):
    """The lens is out of focus: a Gaussian of ``sigma_percent`` of the width of the picture."""

    OPTIONS: ClassVar = {"sigma_percent": Option((0.4, 0.8, 1.5, 2.5, 4.0), 0, 50)}

    def change(self, content: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        sigma_px = self.options["sigma_percent"] / 100 * content.shape[1]
        return np.asarray(cv2.GaussianBlur(content, (0, 0), sigma_px)) if sigma_px > 0 else content


class Dark(ContentFault):
    """The light goes out: every pixel times ``gain``."""

    OPTIONS: ClassVar = {"gain": Option((0.5, 0.3, 0.15, 0.08, 0.03), 0, 1)}

    def change(self, content: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.asarray(np.round(content * np.float32(self.options["gain"])).astype(np.uint8))


class Clip(ContentFault):
    """The gain is ``gain_db`` too high: the picture is overexposed."""

    OPTIONS: ClassVar = {"gain_db": Option((6, 12, 18, 24, 36), 0, 120)}

    def change(self, content: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        brighter = content * np.float32(10 ** (self.options["gain_db"] / 20))
        return np.asarray(np.minimum(brighter, 255).astype(np.uint8))


CONTENT_FAULTS: Mapping[str, type[ContentFault]] = {"noise": Noise, "blur": Blur, "dark": Dark, "clip": Clip}


def edit_image(message: Any, change: Callable[[np.ndarray], np.ndarray]) -> Any:
    """A copy with ``change`` done to the picture, uint8 ``(H, W, 3)`` RGB to the same shape.

    JPEG and PNG stay what they are; ``bgr8`` and ``mono8`` too; other raw encodings become ``rgb8``.

    Raises:
        DecodeError: the message has no picture that can be decoded.
    """
    compressed = not hasattr(message, "encoding")
    raw = read_any_image(message, 0)
    image = np.ascontiguousarray(change(decode_image(raw).image))
    if compressed:
        png = as_bytes(raw.data)[:1].tobytes() == b"\x89"
        options = [] if png else [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        return _with_data(
            message, cv2.imencode(".png" if png else ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1].ravel()
        )
    encoding = raw.encoding if raw.encoding in ("rgb8", "bgr8", "mono8") else "rgb8"
    pixels = image
    if encoding == "bgr8":
        pixels = image[..., ::-1]
    elif encoding == "mono8":
        pixels = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    flat = np.ascontiguousarray(pixels).ravel()
    return copy_with(_with_data(message, flat), encoding=encoding, step=flat.size // raw.height)


def cut(message: Any, info: Any | None, rng: np.random.Generator) -> tuple[Any, Any]:
    """The payload breaks off somewhere, and a hundredth of the bytes in front of that are wrong."""
    data = as_bytes(message.data)
    kept = data[: int(rng.uniform(0.1, 0.9) * (data.size - 1))]
    return _with_data(message, overwritten(kept, 0.01, rng)), info


def wrong_encoding(message: Any, info: Any | None, rng: np.random.Generator) -> tuple[Any, Any]:
    """The encoding is one that nothing decodes: ``8UC7`` or ``h264``."""
    field = {"encoding": "8UC7"} if hasattr(message, "encoding") else {"format": "h264"}
    return copy_with(message, **field), info


def wrong_size(message: Any, info: Any | None, rng: np.random.Generator) -> tuple[Any, Any]:
    """The picture claims more rows than it has."""
    if hasattr(message, "encoding"):
        return copy_with(message, height=2 * message.height + 1), info
    data = as_bytes(message.data).copy()
    at = _size_at(data)
    data[at : at + 4] = 0xFF  # 65535 x 65535 in a JPEG, 4 gigapixels high in a PNG: refused by the header alone
    return _with_data(message, data), info


MALFORMED: Mapping[str, Malform] = {"corrupt": cut, "wrong_encoding": wrong_encoding, "wrong_size": wrong_size}


def _with_data(message: Any, data: np.ndarray) -> Any:
    return copy_with(message, data=in_container_of(message.data, data))


def _size_at(data: np.ndarray) -> int:
    """Where a PNG or JPEG says its height."""
    if data[:1].tobytes() == b"\x89":
        return 20
    at = 2
    while at + 9 < data.size and not (0xC0 <= data[at + 1] <= 0xCF and data[at + 1] not in (0xC4, 0xC8, 0xCC)):
        at += 2 + int(data[at + 2]) * 256 + int(data[at + 3])
    return at + 5
