"""Decoding images to uint8 RGB. Every fault is one :class:`DecodeError` line.

OpenCV is used for codecs and resizing only. Sizes are checked before anything is allocated, so a message that claims
2^31
pixels costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from aecf_ros.core.types import Frame, RawImage
from aecf_ros.modalities.image.headers import claimed_size, has_whole_chunks
from aecf_ros.modalities.messages import DecodeError, as_bytes

MAX_PIXELS = 64_000_000


@dataclass(frozen=True, slots=True)
class _Layout:
    """How an encoding lies in memory: bytes of a pixel in a row, rows for each image row, and what makes it RGB.

    ``convert`` takes uint8 ``(H * rows, W, pixel_bytes)`` and whether the machine that wrote it was big-endian, and
    gives
    uint8 ``(H, W, 3)``. Subsampled chroma needs a width and height that ``multiple`` divides.
    """

    pixel_bytes: int
    convert: Callable[[np.ndarray, bool], np.ndarray]
    rows: float = 1.0
    multiple: int = 1


def _by(code: int) -> Callable[[np.ndarray, bool], np.ndarray]:
    """Conversion by an OpenCV color code."""

    def convert(image: np.ndarray, big_endian: bool) -> np.ndarray:
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(image), code))

    return convert


def _by_16_bit(code: int | None, channels: int) -> Callable[[np.ndarray, bool], np.ndarray]:
    """Conversion of 16-bit samples by their high byte, then by an OpenCV color code."""

    def convert(image: np.ndarray, big_endian: bool) -> np.ndarray:
        high = np.ascontiguousarray(image.reshape(*image.shape[:2], channels, 2)[..., 0 if big_endian else 1])
        return high if code is None else cv2.cvtColor(high, code)

    return convert


_BAYER = {
    "rggb": cv2.COLOR_BayerRGGB2RGB,
    "bggr": cv2.COLOR_BayerBGGR2RGB,
    "gbrg": cv2.COLOR_BayerGBRG2RGB,
    "grbg": cv2.COLOR_BayerGRBG2RGB,
}
_UYVY, _YUYV = _Layout(2, _by(cv2.COLOR_YUV2RGB_UYVY), multiple=2), _Layout(2, _by(cv2.COLOR_YUV2RGB_YUY2), multiple=2)
_RAW: dict[str, _Layout] = {
    "rgb8": _Layout(3, lambda image, big_endian: image),
    "bgr8": _Layout(3, _by(cv2.COLOR_BGR2RGB)),
    "8UC3": _Layout(3, _by(cv2.COLOR_BGR2RGB)),
    "rgba8": _Layout(4, _by(cv2.COLOR_RGBA2RGB)),
    "bgra8": _Layout(4, _by(cv2.COLOR_BGRA2RGB)),
    "8UC4": _Layout(4, _by(cv2.COLOR_BGRA2RGB)),
    "mono8": _Layout(1, _by(cv2.COLOR_GRAY2RGB)),
    "8UC1": _Layout(1, _by(cv2.COLOR_GRAY2RGB)),
    "mono16": _Layout(2, _by_16_bit(cv2.COLOR_GRAY2RGB, 1)),
    "16UC1": _Layout(2, _by_16_bit(cv2.COLOR_GRAY2RGB, 1)),
    "rgb16": _Layout(6, _by_16_bit(None, 3)),
    "bgr16": _Layout(6, _by_16_bit(cv2.COLOR_BGR2RGB, 3)),
    "uyvy": _UYVY,
    "yuv422": _UYVY,
    "yuyv": _YUYV,
    "yuv422_yuy2": _YUYV,
    "nv12": _Layout(1, _by(cv2.COLOR_YUV2RGB_NV12), rows=1.5, multiple=2),
    "nv21": _Layout(1, _by(cv2.COLOR_YUV2RGB_NV21), rows=1.5, multiple=2),
    **{f"bayer_{order}8": _Layout(1, _by(code), multiple=2) for order, code in _BAYER.items()},
    **{f"bayer_{order}16": _Layout(2, _by_16_bit(code, 1), multiple=2) for order, code in _BAYER.items()},
}
"""The encodings of ``sensor_msgs/image_encodings.hpp`` that cameras publish."""

COMPRESSED = ("jpeg", "jpg", "png")
_SIGNATURES = {b"\xff\xd8": "jpeg", b"\x89P": "png"}
_END_MARKERS = {"jpeg": b"\xff\xd9", "png": b"IEND\xaeB`\x82"}


def decode_image(raw: RawImage) -> Frame:
    """Decode one image.

    Returns:
        A frame whose ``image`` is uint8 ``(H, W, 3)`` RGB; it may share memory with ``raw.data`` for ``rgb8``.

    Raises:
        DecodeError: empty data, unknown encoding, a size or step that does not fit the data, or a broken file.
    """
    data = as_bytes(raw.data)
    if data.size == 0:
        raise DecodeError("image data is empty; check the camera driver")
    image = _decode_compressed(raw.encoding, data) if is_compressed(raw.encoding) else _decode_raw(raw, data)
    return Frame(raw.stamp_ns, raw.received_ns, image)


def is_compressed(encoding: str) -> bool:
    """Whether an encoding names a compressed format."""
    if encoding in _RAW:
        return False
    # CompressedImage.format is "jpeg", or as image_transport writes it "rgb8; jpeg compressed bgr8".
    words = encoding.lower().replace(";", " ").split()
    return any(word in COMPRESSED for word in words)


def _decode_raw(raw: RawImage, data: np.ndarray) -> np.ndarray:
    if raw.encoding not in _RAW:
        raise DecodeError(
            f"encoding {raw.encoding[:40]!r} is not supported; republish as rgb8, bgr8, mono8 or compressed jpeg"
        )
    layout = _RAW[raw.encoding]
    if raw.height <= 0 or raw.width <= 0 or raw.height * raw.width > MAX_PIXELS:
        raise DecodeError(f"image size {raw.width}x{raw.height} is out of bounds; check the camera driver")
    if raw.height % layout.multiple or raw.width % layout.multiple:
        raise DecodeError(
            f"image size {raw.width}x{raw.height} is odd, which {raw.encoding} cannot be; check the camera driver"
        )
    row = raw.width * layout.pixel_bytes
    if raw.step < row:
        raise DecodeError(
            f"step {raw.step} is shorter than a row of {raw.width} {raw.encoding} pixels ({row} "
            f"bytes); check the camera driver"
        )
    rows = int(raw.height * layout.rows)
    due = raw.step * (rows - 1) + row
    if data.size < due:
        raise DecodeError(
            f"{data.size} bytes of data where {rows} rows of step {raw.step} need {due}; check the camera driver"
        )
    pixels = np.ndarray((rows, raw.width, layout.pixel_bytes), np.uint8, data, 0, (raw.step, layout.pixel_bytes, 1))
    pixels.flags.writeable = False
    return np.ascontiguousarray(layout.convert(pixels, raw.big_endian))


def _decode_compressed(encoding: str, data: np.ndarray) -> np.ndarray:
    format_name = _SIGNATURES.get(data[:2].tobytes())
    if format_name is None:
        raise DecodeError(
            f"data of a {encoding[:40]!r} image starts with neither a JPEG nor a PNG signature; check the camera driver"
        )
    try:
        height, width, header_end = claimed_size(format_name, data)
    except ValueError as error:
        raise DecodeError(f"{format_name} of {data.size} bytes {error}; check the link to the camera") from None
    if height * width > MAX_PIXELS:
        raise DecodeError(f"{format_name} claims {width}x{height} pixels; check the camera driver")
    end = _END_MARKERS[format_name]
    # Looked for behind the header, because a thumbnail inside it ends the same way; drivers may pad behind the marker.
    if data[-len(end) :].tobytes() != end and end not in data[header_end:].tobytes():
        raise DecodeError(
            f"{format_name} of {data.size} bytes is truncated (no end marker); check the link to the camera"
        )
    if format_name == "png" and not has_whole_chunks(data):
        raise DecodeError(f"png of {data.size} bytes claims a chunk beyond its end; check the link to the camera")
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise DecodeError(f"{format_name} of {data.size} bytes does not decode; check the link to the camera")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize uint8 ``(H, W, 3)`` to uint8 ``(height, width, 3)``.

    A whole multiple is averaged over areas. Anything else larger is halved, by averages, while at least twice as
    large, and then bilinear: at a
    broken ratio averaging over areas takes ten times as long. The one definition of resizing: training data and the
    pipeline both call it.
    """
    if image.shape[:2] == (height, width):
        return image
    if image.shape[0] % height == 0 and image.shape[1] % width == 0:
        return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
    while (
        halved := tuple(
            n // 2 if n >= 2 * target else n for n, target in zip(image.shape[:2], (height, width), strict=True)
        )
    ) != image.shape[:2]:
        image = cv2.resize(image, halved[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR))
