"""The records between the rooms, and the reading of messages into them."""

import dataclasses
from types import SimpleNamespace as Message

import numpy as np
import pytest

from aecf_ros.core import types
from aecf_ros.core.types import AudioChunk, ModalityReport, Prediction, StreamState, subset_name
from aecf_ros.modalities.audio.messages import read_plain_audio, read_stamped_audio
from aecf_ros.modalities.image.messages import read_compressed_image, read_image
from aecf_ros.modalities.messages import UnknownFormatError, stamp_to_ns

HEADER = Message(stamp=Message(sec=5, nanosec=250_000_000), frame_id="lens")
INFO = Message(channels=2, sample_rate=8000, sample_format="S16LE", bitrate=0, coding_format="wave")


def test_every_record_is_frozen() -> None:
    records = [r for r in vars(types).values() if dataclasses.is_dataclass(r)]
    assert len(records) >= 6
    assert all(r.__dataclass_params__.frozen for r in records)


def test_the_numbers_of_the_states_are_those_of_the_message() -> None:
    assert [s.name for s in StreamState] == [
        "WAITING",
        "OK",
        "LATE",
        "DEGRADED",
        "STALE",
        "DROPPED",
        "FROZEN",
        "REJECTED",
        "CLOCK_FAULT",
    ]
    assert [int(s) for s in StreamState] == list(range(9))


def test_subsets_are_named_in_the_order_of_the_modalities() -> None:
    names = ["camera", "audio", "lidar"]
    assert subset_name(names, [True, False, True]) == "camera+lidar"
    assert subset_name(names, [False, False, False]) == "none"
    with pytest.raises(ValueError, match="shorter|longer"):
        subset_name(names, [True])


def test_a_chunk_ends_when_its_last_sample_has_sounded() -> None:
    assert AudioChunk(1_000, 0, 16000, np.zeros(16000, np.float32)).end_ns == 1_000_001_000


def test_a_prediction_names_the_modalities_that_fed_it() -> None:
    reports = tuple(
        ModalityReport(n, StreamState.OK, used, 0.5, None, "", 0) for n, used in (("camera", False), ("audio", True))
    )
    prediction = Prediction(0, "m", "a", 0, 1.0, np.ones(1), ("a",), 0.9, 0, 0, False, "", reports)
    assert prediction.subset == "audio"


def test_stamps_before_the_epoch_count_backward() -> None:
    assert stamp_to_ns(Message(sec=-1, nanosec=999_999_999)) == -1


def test_an_image_message() -> None:
    raw = read_image(
        Message(header=HEADER, encoding="rgb8", height=2, width=3, step=9, is_bigendian=1, data=b"x" * 18), 77
    )
    assert (
        raw.stamp_ns,
        raw.received_ns,
        raw.encoding,
        raw.height,
        raw.width,
        raw.step,
        raw.big_endian,
        raw.frame_id,
    ) == (5_250_000_000, 77, "rgb8", 2, 3, 9, True, "lens")


def test_a_compressed_image_message() -> None:
    raw = read_compressed_image(Message(header=HEADER, format="jpeg", data=b"x"), 77)
    assert (raw.stamp_ns, raw.encoding, raw.height, raw.width, raw.step) == (5_250_000_000, "jpeg", 0, 0, 0)


def test_a_stamped_audio_message() -> None:
    raw = read_stamped_audio(Message(header=HEADER, audio=Message(data=b"abcd")), INFO, 77)
    assert (raw.stamp_ns, raw.rate_hz, raw.channels, raw.sample_format, raw.coding, raw.data) == (
        5_250_000_000,
        8000,
        2,
        "S16LE",
        "wave",
        b"abcd",
    )


def test_audio_without_a_header_ended_when_it_arrived() -> None:
    raw = read_plain_audio(Message(data=bytes(4 * 800)), INFO, 10_000_000_000)  # 800 stereo samples: 0.1 s
    assert raw.stamp_ns == 9_900_000_000


@pytest.mark.parametrize("change", [{"sample_rate": 0}, {"channels": 0}, {"sample_format": "S24LE"}])
def test_audio_without_a_header_is_read_even_where_its_info_makes_no_sense(change: dict) -> None:
    assert (
        read_plain_audio(Message(data=bytes(10)), Message(**(vars(INFO) | change)), 0).stamp_ns <= 0
    )  # decoding then refuses it


@pytest.mark.parametrize("read", [read_stamped_audio, read_plain_audio])
def test_audio_before_its_info(read: object) -> None:
    with pytest.raises(UnknownFormatError, match="AudioInfo"):
        read(Message(header=HEADER, audio=Message(data=b""), data=b""), None, 0)
