"""Reading images from the bytes that came over the wire, without a copy.

A library builds a message of objects for each part first, which between two frames takes four times as long.
"""

from __future__ import annotations

from struct import unpack_from

from aecf_ros.core.types import NANOSECONDS, RawImage


def read_serialized_image(data: bytes, received_ns: int) -> RawImage:
    """The record of a serialized ``sensor_msgs/Image`` (CDR, of either byte order); its pixels are a view of ``data``.

    Raises:
        ValueError: the data end early, or go on behind the pixels by more than padding.
        struct.error, IndexError, UnicodeDecodeError: ``data`` is no such message.
    """
    order = "<" if data[1] & 1 else ">"
    sec, nanosec = unpack_from(order + "iI", data, 4)
    frame_id, at = _text(data, 12, order)
    height, width = unpack_from(order + "II", data, at := _aligned(at))
    encoding, at = _text(data, at + 8, order)
    big_endian = bool(data[at])
    step, size = unpack_from(order + "II", data, at := _aligned(at + 1))
    rest = len(data) - at - 8 - size
    if not 0 <= rest < 4:
        raise ValueError(f"{size} bytes of pixels where {len(data) - at - 8} are left")
    return RawImage(
        sec * NANOSECONDS + nanosec,
        received_ns,
        encoding,
        height,
        width,
        step,
        memoryview(data)[at + 8 : at + 8 + size],
        big_endian,
        frame_id,
    )


def read_serialized_compressed_image(data: bytes, received_ns: int) -> RawImage:
    """The record of a serialized ``sensor_msgs/CompressedImage``; see :func:`read_serialized_image`."""
    order = "<" if data[1] & 1 else ">"
    sec, nanosec = unpack_from(order + "iI", data, 4)
    frame_id, at = _text(data, 12, order)
    encoding, at = _text(data, _aligned(at), order)
    (size,) = unpack_from(order + "I", data, at := _aligned(at))
    rest = len(data) - at - 4 - size
    if not 0 <= rest < 4:
        raise ValueError(f"{size} bytes of a file where {len(data) - at - 4} are left")
    payload = memoryview(data)[at + 4 : at + 4 + size]
    return RawImage(sec * NANOSECONDS + nanosec, received_ns, encoding, 0, 0, 0, payload, frame_id=frame_id)


def _text(data: bytes, at: int, order: str) -> tuple[str, int]:
    """A string at ``at``, and where it ends: its length with the zero behind it, then both."""
    (length,) = unpack_from(order + "I", data, at)
    return data[at + 4 : at + 3 + length].decode(), at + 4 + length


def _aligned(at: int) -> int:
    """The next multiple of four: counted from behind the four bytes at the beginning, which changes nothing."""
    return (at + 3) // 4 * 4
