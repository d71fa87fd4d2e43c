"""Edit messages on their way: stamps, payloads, pictures and sound of anything shaped like the ROS messages that carry a stream.

The functions look at field names only, as ``core.messages`` does, so the same code serves rclpy's messages and rosbags'. Nothing
is changed in place: what comes back is a copy that shares what was not edited.
"""

from __future__ import annotations

import copy
from array import array
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from aecf_ros.core.types import NANOSECONDS, RawAudio, RawImage
from aecf_ros.modalities.audio.messages import PORTAUDIO_FIELDS, read_audio
from aecf_ros.modalities.audio.pcm import SAMPLE_BYTES, octets_of, samples_of
from aecf_ros.modalities.image.decode import decode_image
from aecf_ros.modalities.image.messages import read_compressed_image, read_image
from aecf_ros.modalities.messages import FormatUnknown, as_bytes, stamp_to_ns
from aecf_ros.modalities.vector.messages import RawVector, is_vector, read_vector

JPEG_QUALITY = 95
"""Of a frame that was decoded, changed and encoded again: high, so that the fault and not the codec is what is seen."""


def is_image(message: Any) -> bool:
    """Whether it is a ``sensor_msgs/Image`` or ``CompressedImage``."""
    return hasattr(message, "encoding") or (hasattr(message, "format") and not hasattr(message, "sample_rate"))


def _stamped(message: Any) -> Any:
    """What holds the stamp: the header, or the message itself; ``None`` where there is no stamp."""
    if hasattr(message, "header"):
        return message.header
    return message if hasattr(message, "timestamp") else None


def stamp_ns(message: Any) -> int | None:
    """The stamp in ns, ``None`` of a message without one."""
    holder = _stamped(message)
    return None if holder is None else stamp_to_ns(holder.stamp if hasattr(holder, "stamp") else holder.timestamp)


def with_stamp(message: Any, ns: int) -> Any:
    """A copy with another stamp, which a ROS time must be able to hold; a message without one is given back as it is."""
    if _stamped(message) is None:
        return message
    message = copy.copy(message)
    if hasattr(message, "header"):
        message.header = copy.copy(message.header)
    holder = _stamped(message)
    field = "stamp" if hasattr(holder, "stamp") else "timestamp"
    stamp = copy.copy(getattr(holder, field))
    stamp.sec, stamp.nanosec = ns // NANOSECONDS, ns % NANOSECONDS
    setattr(holder, field, stamp)
    return message


def _like(old: Any, data: np.ndarray) -> Any:
    """Flat data in the container that ``old`` is: NumPy for rosbags, ``array`` for rclpy."""
    if isinstance(old, np.ndarray):
        return data
    return array(old.typecode if isinstance(old, array) else data.dtype.char, data.tobytes())


def _with(message: Any, **fields: Any) -> Any:
    message = copy.copy(message)
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def _with_data(message: Any, data: np.ndarray) -> Any:
    """A copy with another flat uint8 payload; for ``AudioStamped`` the payload of the format it is in."""
    if hasattr(message, "data"):
        return _with(message, data=_like(message.data, data))
    audio = message.audio
    if hasattr(audio, "data"):
        return _with(message, audio=_with(audio, data=_like(audio.data, data)))
    _, field = PORTAUDIO_FIELDS[audio.info.format]
    old = getattr(audio.audio_data, field)
    typed = data.view(
        {"float32_data": "<f4", "int32_data": "<i4", "int16_data": "<i2", "int8_data": "i1", "uint8_data": "u1"}[field]
    )
    return _with(message, audio=_with(audio, audio_data=_with(audio.audio_data, **{field: _like(old, typed)})))


def edit_picture(message: Any, change: Callable[[np.ndarray], np.ndarray]) -> Any:
    """A copy with ``change`` done to the picture, uint8 ``(H, W, 3)`` RGB to the same shape.

    JPEG and PNG stay what they are; ``bgr8`` and ``mono8`` too; other raw encodings become ``rgb8``.

    Raises:
        DecodeError: the message has no picture that can be decoded.
    """
    compressed = not hasattr(message, "encoding")
    raw = read_compressed_image(message, 0) if compressed else read_image(message, 0)
    image = np.ascontiguousarray(change(decode_image(raw).image))
    if compressed:
        png = as_bytes(raw.data)[:1].tobytes() == b"\x89"
        options = [] if png else [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        return _with_data(
            message, cv2.imencode(".png" if png else ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1].ravel()
        )
    encoding = raw.encoding if raw.encoding in ("rgb8", "bgr8", "mono8") else "rgb8"
    pixels = {
        "rgb8": lambda: image,
        "bgr8": lambda: image[..., ::-1],
        "mono8": lambda: cv2.cvtColor(image, cv2.COLOR_RGB2GRAY),
    }[encoding]()
    flat = np.ascontiguousarray(pixels).ravel()
    return _with(_with_data(message, flat), encoding=encoding, step=flat.size // raw.height)


def edit_vector(message: Any, change: Callable[[np.ndarray], np.ndarray]) -> Any:
    """A copy with ``change`` done to the numbers, float32 ``(n,)`` to as many or fewer."""
    return _with(message, values=_like(message.values, change(np.array(message.values, np.float32)).astype(np.float32)))


def sound_of(message: Any, info: Any | None) -> RawAudio:
    """The record of any audio message; its times mean nothing.

    Raises:
        FormatUnknown: there is no info where one is needed, or it names a format that cannot be edited.
    """
    raw = read_audio(message, info, 0)
    if raw.sample_format not in SAMPLE_BYTES or raw.coding not in ("wave", "pcm", "raw", ""):
        raise FormatUnknown(f"sound as {raw.sample_format} {raw.coding} cannot be edited; record it as S16LE")
    return raw


def edit_sound(message: Any, info: Any | None, change: Callable[[np.ndarray], np.ndarray]) -> Any:
    """A copy with ``change`` done to the samples, float32 ``(n,)`` in [-1, 1] with channels interleaved, in the same format.

    Raises:
        FormatUnknown: nothing says how to read the sound.
    """
    raw = sound_of(message, info)
    return _with_data(message, octets_of(change(samples_of(raw)), raw.sample_format))


def with_nan(message: Any, info: Any | None, rng: np.random.Generator) -> tuple[Any, Any]:
    """The sound as F32LE with a tenth of its samples NaN, and the info that says so; a vector with a tenth of its numbers NaN."""
    if is_vector(message):
        return edit_vector(
            message,
            lambda numbers: np.where(
                (rng.random(len(numbers)) < 0.1) | (np.arange(len(numbers)) == 0), np.nan, numbers
            ),
        ), info
    raw = sound_of(message, info)
    samples = samples_of(raw)
    samples[rng.random(len(samples)) < 0.1] = np.nan
    samples[:1] = np.nan
    octets = samples.astype("<f4").view(np.uint8)
    if hasattr(message, "audio") and hasattr(message.audio, "audio_data"):
        inner = message.audio
        empty = type(inner.audio_data)(
            **{
                f: _like(getattr(inner.audio_data, f), samples if f == "float32_data" else np.zeros(0, d))
                for f, d in (
                    ("float32_data", "<f4"),
                    ("int32_data", "<i4"),
                    ("int16_data", "<i2"),
                    ("int8_data", "i1"),
                    ("uint8_data", "u1"),
                )
            }
        )
        return _with(message, audio=_with(inner, audio_data=empty, info=_with(inner.info, format=1))), info
    if hasattr(message, "sample_rate"):
        return _with(_with_data(message, octets), format="pcm-f32"), info
    return _with_data(message, octets), _with(info, sample_format="F32LE")


def with_wrong_encoding(message: Any, info: Any | None) -> tuple[Any, Any]:
    """The message, and the info beside it, naming an encoding that nobody decodes.

    Raises:
        FormatUnknown: the message carries no encoding and there is no info to change.
    """
    if is_image(message):
        return (
            _with(message, encoding="8UC7") if hasattr(message, "encoding") else _with(message, format="h264")
        ), info
    if hasattr(message, "sample_rate"):
        return _with(message, format="mp3"), info
    if hasattr(message, "audio") and hasattr(message.audio, "audio_data"):
        return _with(message, audio=_with(message.audio, info=_with(message.audio.info, format=0))), info
    if info is None:
        raise FormatUnknown("the sound has no info whose coding could be changed")
    return message, _with(info, coding_format="mp3")


def with_wrong_size(message: Any, info: Any | None) -> Any:
    """A picture that claims more rows than it has, sound that ends in the middle of a sample, or a vector that lacks its last number."""
    if is_vector(message):
        return edit_vector(message, lambda numbers: numbers[:-1])
    if not is_image(message):
        return with_payload_cut(message, info, 1.0)
    if hasattr(message, "encoding"):
        return _with(message, height=2 * message.height + 1)
    data = as_bytes(message.data).copy()
    at = _size_at(data)
    data[at : at + 4] = 0xFF  # 65535 x 65535 in a JPEG, 4 gigapixels high in a PNG: refused by the header alone
    return _with_data(message, data)


def _size_at(data: np.ndarray) -> int:
    """Where a PNG or JPEG says its height."""
    if data[:1].tobytes() == b"\x89":
        return 20
    at = 2
    while at + 9 < data.size and not (0xC0 <= data[at + 1] <= 0xCF and data[at + 1] not in (0xC4, 0xC8, 0xCC)):
        at += 2 + int(data[at + 2]) * 256 + int(data[at + 3])
    return at + 5


def with_payload_cut(message: Any, info: Any | None, keep: float) -> Any:
    """The first share ``keep`` of the payload; never a whole number of samples, so that sound shows it too."""
    if is_image(message):
        data = as_bytes(message.data)
        return _with_data(message, data[: int(keep * (data.size - 1))])
    inner = getattr(message, "audio", message)
    if hasattr(inner, "audio_data"):  # typed samples cannot be cut in two
        return _with_data(message, as_bytes(read_audio(message, info, 0).data)[:0])
    data = as_bytes(inner.data)
    raw = read_audio(message, info, 0) if info is not None or hasattr(message, "sample_rate") else None
    block = 2 if raw is None else SAMPLE_BYTES.get(raw.sample_format, 1) * max(1, raw.channels)
    return _with_data(message, data[:0] if block == 1 else data[: max(0, int(keep * data.size) // block * block - 1)])


def with_random_bytes(message: Any, share: float, rng: np.random.Generator) -> Any:
    """A share of the payload's bytes overwritten; typed samples are left alone."""
    inner = message if hasattr(message, "data") else message.audio
    if not hasattr(inner, "data"):
        return message
    data = as_bytes(inner.data).copy()
    hit = rng.random(data.size) < share
    data[hit] = rng.integers(0, 256, int(hit.sum()), dtype=np.uint8)
    return _with_data(message, data)


def raw_record(message: Any, info: Any | None, received_ns: int) -> RawImage | RawAudio | RawVector:
    """The record of any message that carries a stream.

    Raises:
        FormatUnknown: sound that nothing says how to read.
    """
    if hasattr(message, "encoding"):
        return read_image(message, received_ns)
    if is_image(message):
        return read_compressed_image(message, received_ns)
    return read_vector(message, received_ns) if is_vector(message) else read_audio(message, info, received_ns)


def headless(message: Any) -> bool:
    """Whether the message has no stamp of its own."""
    return _stamped(message) is None
