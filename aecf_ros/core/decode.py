"""From wire bytes to arrays: images to uint8 RGB, PCM to float32 mono. Every fault is one :class:`DecodeError` line.

OpenCV is used for codecs and resizing only. Sizes are checked before anything is allocated, so a message that claims 2^31
pixels costs nothing.
"""
from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from aecf_ros.core.types import AudioChunk, Frame, RawAudio, RawImage

MAX_PIXELS = 64_000_000
MAX_AUDIO_S = 10.0


class DecodeError(ValueError):
    """A message that cannot be decoded; says what was found and what to do, and carries no stream name."""


def _as_bytes(data: object) -> np.ndarray:
    """A flat uint8 view of any buffer, without a copy."""
    return np.frombuffer(memoryview(data).cast("B"), np.uint8)  # type: ignore[arg-type]


def _mono_to_rgb(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image[:, :, 0], cv2.COLOR_GRAY2RGB)


_RAW: dict[str, tuple[int, Callable[[np.ndarray], np.ndarray]]] = {
    "rgb8": (3, lambda image: image),
    "bgr8": (3, lambda image: cv2.cvtColor(image, cv2.COLOR_BGR2RGB)),
    "rgba8": (4, lambda image: cv2.cvtColor(image, cv2.COLOR_RGBA2RGB)),
    "bgra8": (4, lambda image: cv2.cvtColor(image, cv2.COLOR_BGRA2RGB)),
    "mono8": (1, _mono_to_rgb),
    "8UC1": (1, _mono_to_rgb),
    "8UC3": (3, lambda image: cv2.cvtColor(image, cv2.COLOR_BGR2RGB)),
}
"""Raw encoding -> (bytes per pixel, conversion of uint8 (H, W, bytes) to uint8 (H, W, 3) RGB)."""

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
    data = _as_bytes(raw.data)
    if data.size == 0:
        raise DecodeError("image data is empty; check the camera driver")
    if _is_compressed(raw.encoding):
        image = _decode_compressed(raw.encoding, data)
    else:
        image = _decode_raw(raw, data)
    return Frame(raw.stamp_ns, raw.received_ns, image)


def _is_compressed(encoding: str) -> bool:
    # CompressedImage.format is "jpeg", or as image_transport writes it "rgb8; jpeg compressed bgr8".
    words = encoding.lower().replace(";", " ").split()
    return any(word in COMPRESSED for word in words)


def _decode_raw(raw: RawImage, data: np.ndarray) -> np.ndarray:
    if raw.encoding not in _RAW:
        raise DecodeError(f"encoding '{raw.encoding[:40]}' is not supported; republish as rgb8, bgr8, mono8 or compressed jpeg")
    pixel_bytes, convert = _RAW[raw.encoding]
    if raw.height <= 0 or raw.width <= 0 or raw.height * raw.width > MAX_PIXELS:
        raise DecodeError(f"image size {raw.width}x{raw.height} is out of bounds; check the camera driver")
    row = raw.width * pixel_bytes
    if raw.step < row:
        raise DecodeError(f"step {raw.step} is shorter than a row of {raw.width} {raw.encoding} pixels ({row} bytes); check the camera driver")
    due = raw.step * (raw.height - 1) + row
    if data.size < due:
        raise DecodeError(f"{data.size} bytes of data where {raw.height} rows of step {raw.step} need {due}; check the camera driver")
    rows = np.lib.stride_tricks.as_strided(data, (raw.height, raw.width, pixel_bytes), (raw.step, pixel_bytes, 1), writeable=False)
    return np.ascontiguousarray(convert(rows))


def _decode_compressed(encoding: str, data: np.ndarray) -> np.ndarray:
    found = _SIGNATURES.get(data[:2].tobytes())
    if found is None:
        raise DecodeError(f"data of a '{encoding[:40]}' image starts with neither a JPEG nor a PNG signature; check the camera driver")
    height, width, header_end = _size_in_header(found, data)
    if height * width > MAX_PIXELS:
        raise DecodeError(f"{found} claims {width}x{height} pixels; check the camera driver")
    end = _END_MARKERS[found]
    # Looked for behind the header, because a thumbnail inside it ends the same way; drivers may pad behind the marker.
    if data[-len(end):].tobytes() != end and end not in data[header_end:].tobytes():
        raise DecodeError(f"{found} of {data.size} bytes is truncated (no end marker); check the link to the camera")
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise DecodeError(f"{found} of {data.size} bytes does not decode; check the link to the camera")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _size_in_header(kind: str, data: np.ndarray) -> tuple[int, int, int]:
    """(height, width, where the size ends) of what a JPEG or PNG claims, read without decoding; raises DecodeError where there is none."""
    header = memoryview(data)
    if kind == "png" and len(header) >= 24:
        return int.from_bytes(header[20:24], "big"), int.from_bytes(header[16:20], "big"), 24
    at = 2
    while kind == "jpeg" and at + 9 <= len(header) and header[at] == 0xFF:
        marker, length = header[at + 1], int.from_bytes(header[at + 2:at + 4], "big")
        if marker == 0xFF:  # padding in front of a marker
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(header[at + 5:at + 7], "big"), int.from_bytes(header[at + 7:at + 9], "big"), at + 9
        at += 2 + length
    raise DecodeError(f"{kind} of {data.size} bytes has no size in its header; check the link to the camera")


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize uint8 ``(H, W, 3)`` to uint8 ``(height, width, 3)``, area-averaged when shrinking and bilinear otherwise.

    The one definition of resizing: training data and the pipeline both call it.
    """
    if image.shape[:2] == (height, width):
        return image
    shrinks = image.shape[0] >= height and image.shape[1] >= width
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


_PCM: dict[str, tuple[np.dtype, float]] = {
    "U8": (np.dtype("u1"), 128.0),
    "S8": (np.dtype("i1"), 128.0),
    "S16LE": (np.dtype("<i2"), 32768.0),
    "S16BE": (np.dtype(">i2"), 32768.0),
    "S32LE": (np.dtype("<i4"), 2147483648.0),
    "S32BE": (np.dtype(">i4"), 2147483648.0),
    "F32LE": (np.dtype("<f4"), 1.0),
    "F32BE": (np.dtype(">f4"), 1.0),
}
"""Sample format (GStreamer's names, as ``AudioInfo.sample_format``) -> (dtype, full scale)."""

SAMPLE_BYTES = {name: dtype.itemsize for name, (dtype, _) in _PCM.items()}
"""Bytes of one sample of one channel, by sample format."""


def decode_audio(raw: RawAudio) -> AudioChunk:
    """Decode interleaved PCM to mono by averaging the channels.

    Returns:
        A chunk of float32 ``(samples,)`` in [-1, 1].

    Raises:
        DecodeError: coded audio, unknown format, zero rate or channels, empty or ragged data, NaN, or more than
            ``MAX_AUDIO_S`` seconds in one message.
    """
    if raw.coding not in ("wave", "pcm", "raw", ""):
        raise DecodeError(f"audio is coded as '{raw.coding[:20]}'; set the publisher's 'format' parameter to 'wave' (audio_capture: format:=wave)")
    if raw.sample_format not in _PCM:
        raise DecodeError(f"sample format '{raw.sample_format[:20]}' is not supported; publish one of {', '.join(_PCM)}")
    if not 1 <= raw.rate_hz <= 384_000:
        raise DecodeError(f"sample rate {raw.rate_hz} Hz is out of bounds; check audio_info of the publisher")
    if not 1 <= raw.channels <= 64:
        raise DecodeError(f"{raw.channels} channels is out of bounds; check audio_info of the publisher")
    dtype, full_scale = _PCM[raw.sample_format]
    data = _as_bytes(raw.data)
    block = dtype.itemsize * raw.channels
    if data.size == 0:
        raise DecodeError("audio data is empty; check the audio driver")
    if data.size % block:
        raise DecodeError(f"{data.size} bytes of {raw.sample_format} with {raw.channels} channel(s) is not a whole number of {block}-byte samples; "
                          "check audio_info against the publisher")
    if data.size // block > MAX_AUDIO_S * raw.rate_hz:
        raise DecodeError(f"one message holds {data.size // block / raw.rate_hz:.0f} s of audio, more than {MAX_AUDIO_S:.0f} s; publish smaller chunks")
    with np.errstate(all="ignore"):  # NaN and overflow are looked for below
        samples = data.view(dtype).astype(np.float32).reshape(-1, raw.channels).mean(axis=1, dtype=np.float32)
        if raw.sample_format == "U8":
            samples -= np.float32(full_scale)
        samples *= np.float32(1.0 / full_scale)
    if not np.isfinite(samples).all():
        raise DecodeError("audio holds NaN or infinite samples; check the audio driver")
    return AudioChunk(raw.stamp_ns, raw.received_ns, raw.rate_hz, np.clip(samples, -1.0, 1.0))
