"""Images are read from their bytes as a library reads them."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.typesys import Stores, get_typestore

from aecf_ros.modalities.image.cdr import read_serialized_image
from aecf_ros.modalities.image.messages import read_image

STORE = get_typestore(Stores.ROS2_HUMBLE)
IMAGE = "sensor_msgs/msg/Image"


def serialized(  # noqa: PLR0913 (one for each field of the message)
    stamp: tuple[int, int],
    frame_id: str,
    encoding: str,
    size: tuple[int, int, int],
    big_endian: int,
    pixels: bytes,
    little: bool = True,
) -> bytes:
    header, time, image = (STORE.types[name] for name in ("std_msgs/msg/Header", "builtin_interfaces/msg/Time", IMAGE))
    message = image(
        header(time(*stamp), frame_id), *size[:2], encoding, big_endian, size[2], np.frombuffer(pixels, np.uint8)
    )
    return bytes(STORE.serialize_cdr(message, IMAGE, little_endian=little))


@settings(max_examples=200, deadline=None)
@given(
    st.tuples(st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**32 - 1)),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=9),
    st.text("abcdefgh8", max_size=9),
    st.tuples(*[st.integers(0, 2**32 - 1)] * 3),
    st.integers(0, 1),
    st.binary(max_size=40),
    st.booleans(),
)
def test_every_field_is_what_the_library_reads(  # noqa: PLR0913 (one for each field of the message)
    stamp, frame_id, encoding, size, big_endian, pixels, little
) -> None:
    data = serialized(stamp, frame_id, encoding, size, big_endian, pixels, little)
    ours, theirs = read_serialized_image(data, 5), read_image(STORE.deserialize_cdr(data, IMAGE), 5)
    for field in theirs.__slots__:
        if field == "data":
            assert bytes(ours.data) == theirs.data.tobytes() == pixels
        else:
            assert getattr(ours, field) == getattr(theirs, field), field


def test_pixels_are_not_copied() -> None:
    data = serialized((1, 2), "camera", "rgb8", (2, 2, 6), 0, bytes(12))
    assert read_serialized_image(data, 0).data.obj is data


@pytest.mark.parametrize("kept", [0, 3, 11, 20, 31, 40, 51])
def test_bytes_that_end_early_are_refused(kept: int) -> None:
    data = serialized((1, 2), "camera", "rgb8", (2, 2, 6), 0, bytes(12))
    assert kept < len(data)
    with pytest.raises((ValueError, IndexError, struct.error)):
        read_serialized_image(data[:kept], 0)


def test_bytes_that_go_on_are_refused() -> None:
    with pytest.raises(ValueError, match="12 bytes of pixels"):
        read_serialized_image(serialized((1, 2), "camera", "rgb8", (2, 2, 6), 0, bytes(12)) + bytes(4), 0)
