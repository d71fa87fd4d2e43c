"""Wire bytes to arrays: right pixels, right samples, and one line for everything that is wrong."""

import tracemalloc

import cv2
import numpy as np
import pytest

from aecf_ros.core.types import AudioChunk, RawAudio, RawImage
from aecf_ros.modalities.audio.pcm import decode_audio
from aecf_ros.modalities.image.decode import decode_image, resize_image
from aecf_ros.modalities.messages import DecodeError

RED, GREEN = (255, 0, 0), (10, 200, 30)


def raw_image(encoding: str, data: bytes, height: int = 0, width: int = 0, step: int = 0) -> RawImage:
    return RawImage(stamp_ns=7, received_ns=9, encoding=encoding, height=height, width=width, step=step, data=data)


def raw_audio(
    data: bytes, sample_format: str = "S16LE", rate_hz: int = 16000, channels: int = 1, coding: str = "wave"
) -> RawAudio:
    return RawAudio(
        stamp_ns=7,
        received_ns=9,
        sample_format=sample_format,
        rate_hz=rate_hz,
        channels=channels,
        data=data,
        coding=coding,
    )


def picture(height: int = 48, width: int = 64) -> np.ndarray:
    """A smooth RGB picture that JPEG keeps."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 4, columns * 3, 255 - rows * 2], axis=2).astype(np.uint8)


def encoded(suffix: str, image: np.ndarray, *parameters: int) -> bytes:
    """A file of an RGB, gray or 16-bit image."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    return cv2.imencode(suffix, bgr, list(parameters))[1].tobytes()


def message_of(raw: RawImage | RawAudio) -> str:
    """The one line with which a message is refused."""
    with pytest.raises(DecodeError) as caught:
        (decode_image if isinstance(raw, RawImage) else decode_audio)(raw)
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("encoding", "pixels", "due"),
    [
        ("rgb8", [*RED, *GREEN], [RED, GREEN]),
        ("bgr8", [0, 0, 255, 30, 200, 10], [RED, GREEN]),
        ("8UC3", [0, 0, 255, 30, 200, 10], [RED, GREEN]),
        ("rgba8", [*RED, 0, *GREEN, 99], [RED, GREEN]),
        ("bgra8", [0, 0, 255, 0, 30, 200, 10, 99], [RED, GREEN]),
        ("mono8", [3, 250], [(3, 3, 3), (250, 250, 250)]),
        ("8UC1", [3, 250], [(3, 3, 3), (250, 250, 250)]),
    ],
)
def test_every_raw_encoding_becomes_these_rgb_pixels(
    encoding: str, pixels: list[int], due: list[tuple[int, int, int]]
) -> None:
    frame = decode_image(raw_image(encoding, bytes(pixels), 1, 2, len(pixels)))
    assert frame.image.dtype == np.uint8 and frame.image.flags.c_contiguous
    np.testing.assert_array_equal(frame.image, [due])
    assert (frame.stamp_ns, frame.received_ns) == (7, 9)


ORANGE = np.full((8, 8, 3), (200, 100, 50), np.uint8)


def mosaic(order: str) -> np.ndarray:
    """What a Bayer sensor with this color order sees of ORANGE: uint8 (8, 8)."""
    seen = np.zeros((8, 8), np.uint8)
    for i, color in enumerate(order):
        seen[i // 2 :: 2, i % 2 :: 2] = ORANGE[0, 0]["rgb".index(color)]
    return seen


def planes(swap: bool = False) -> np.ndarray:
    """ORANGE as a luma plane and interleaved chroma (NV12, or NV21 when swapped)."""
    i420 = cv2.cvtColor(ORANGE, cv2.COLOR_RGB2YUV_I420)
    chroma = [i420[8:10].ravel(), i420[10:].ravel()]
    return np.concatenate([i420[:8].ravel(), np.stack(chroma[::-1] if swap else chroma, -1).ravel()])


def packed(order: str) -> np.ndarray:
    """ORANGE with a chroma pair for every two pixels, in the order of the letters."""
    i420 = cv2.cvtColor(ORANGE, cv2.COLOR_RGB2YUV_I420)
    value = {"y": i420[0, 0], "u": i420[8, 0], "v": i420[10, 0]}
    return np.array([value[letter] for letter in order] * 32, np.uint8)


WIDER = {
    **{f"bayer_{order}8": (mosaic(order), 8) for order in ("rggb", "bggr", "gbrg", "grbg")},
    **{f"bayer_{order}16": (mosaic(order).astype("<u2") << 8, 16) for order in ("rggb", "bggr", "gbrg", "grbg")},
    "nv12": (planes(), 8),
    "nv21": (planes(swap=True), 8),
    "uyvy": (packed("uyvy"), 16),
    "yuv422": (packed("uyvy"), 16),
    "yuyv": (packed("yuyv"), 16),
    "yuv422_yuy2": (packed("yuyv"), 16),
    "rgb16": (ORANGE.astype("<u2") << 8, 48),
    "bgr16": (ORANGE[..., ::-1].astype("<u2") << 8, 48),
    "8UC4": (np.dstack([ORANGE[..., ::-1], ORANGE[..., :1]]), 32),
}


@pytest.mark.parametrize("encoding", WIDER)
def test_sensor_and_video_encodings_show_the_color_that_was_there(encoding: str) -> None:
    data, step = WIDER[encoding]
    image = decode_image(raw_image(encoding, np.ascontiguousarray(data), 8, 8, step)).image
    np.testing.assert_allclose(image[2:6, 2:6].astype(int), ORANGE[2:6, 2:6], atol=2)


def test_16_bit_samples_are_read_in_the_order_the_message_says() -> None:
    value = np.full((2, 2), 0x1234)
    for dtype, big_endian in (("<u2", False), (">u2", True)):
        raw = RawImage(7, 9, "mono16", 2, 2, 4, value.astype(dtype).tobytes(), big_endian)
        np.testing.assert_array_equal(decode_image(raw).image, 0x12)


@pytest.mark.parametrize("encoding", ["nv12", "yuv422", "bayer_rggb8"])
def test_an_odd_size_is_refused_where_chroma_is_shared(encoding: str) -> None:
    assert "7x8 is odd" in message_of(raw_image(encoding, bytes(500), 8, 7, 20))


def test_nv12_without_its_chroma_rows_is_refused() -> None:
    assert "64 bytes of data where 12 rows of step 8 need 96" in message_of(raw_image("nv12", bytes(64), 8, 8, 8))


@pytest.mark.parametrize(("sample_format", "order"), [("S24LE", "little"), ("S24BE", "big")])
def test_packed_24_bit_samples_keep_sign_and_scale(sample_format: str, order: str) -> None:
    values = [-8388608, -1, 0, 1, 8388607]
    data = b"".join(value.to_bytes(3, order, signed=True) for value in values)
    np.testing.assert_allclose(decode_audio(raw_audio(data, sample_format)).samples * 2.0**23, values)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8"])
def test_padding_at_the_end_of_rows_is_skipped(encoding: str) -> None:
    pixel_bytes = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}[encoding]
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, pixel_bytes), dtype=np.uint8)
    padded = np.full((5, 3 * pixel_bytes + 7), 171, np.uint8)
    padded[:, : 3 * pixel_bytes] = pixels.reshape(5, -1)
    tight = decode_image(raw_image(encoding, pixels.tobytes(), 5, 3, 3 * pixel_bytes))
    np.testing.assert_array_equal(
        decode_image(raw_image(encoding, padded.tobytes(), 5, 3, padded.shape[1])).image, tight.image
    )
    without_last_padding = padded.tobytes()[:-7]
    np.testing.assert_array_equal(
        decode_image(raw_image(encoding, without_last_padding, 5, 3, padded.shape[1])).image, tight.image
    )


@pytest.mark.parametrize(
    "wrap", [bytes, bytearray, memoryview, lambda b: np.frombuffer(b, np.uint8), lambda b: np.frombuffer(b, np.int8)]
)
def test_any_buffer_is_taken(wrap: type) -> None:
    np.testing.assert_array_equal(decode_image(raw_image("rgb8", wrap(bytes(RED)), 1, 1, 3)).image, [[RED]])


def test_an_rgb8_frame_without_padding_is_not_copied() -> None:
    data = np.zeros(12, np.uint8)
    assert np.shares_memory(decode_image(raw_image("rgb8", data, 2, 2, 6)).image, data)


@pytest.mark.parametrize("data", [b"", bytearray(), np.zeros(0, np.uint8)])
@pytest.mark.parametrize("encoding", ["rgb8", "jpeg", "no_such"])
def test_empty_image_data(data: bytes, encoding: str) -> None:
    assert "empty" in message_of(raw_image(encoding, data, 2, 2, 6))


def test_a_step_shorter_than_a_row() -> None:
    line = message_of(raw_image("rgb8", bytes(24), 2, 4, 11))
    assert "step 11" in line and "12 bytes" in line


def test_a_step_too_long_for_the_data() -> None:
    line = message_of(raw_image("rgb8", bytes(24), 2, 4, 16))
    assert "24 bytes" in line and "28" in line


def test_a_step_that_would_overflow_32_bits() -> None:
    assert "bytes" in message_of(raw_image("mono8", bytes(100), 3, 10, 2**32 - 1))


@pytest.mark.parametrize("encoding", ["bayer_rgbw8", "mono12", "32FC1", "", "x" * 5000, "日本"])
def test_an_unknown_encoding(encoding: str) -> None:
    line = message_of(raw_image(encoding, bytes(100), 2, 2, 6))
    assert f"'{encoding[:40]}'" in line and "rgb8" in line and len(line) < 200


@pytest.mark.parametrize(("height", "width"), [(0, 4), (4, 0), (2**31, 1), (1, 2**31), (2**16, 2**15), (2**31, 2**31)])
@pytest.mark.parametrize("encoding", ["rgb8", "mono8", "bgra8"])
def test_a_claim_of_two_billion_pixels_allocates_nothing(height: int, width: int, encoding: str) -> None:
    raw = raw_image(encoding, bytes(1000), height, width, 4 * width)
    tracemalloc.start()
    try:
        message_of(raw)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200_000


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_small_file_that_claims_billions_of_pixels_allocates_nothing(suffix: str) -> None:
    data = bytearray(encoded(suffix, picture()))
    if suffix == ".png":
        data[16:24] = (65535).to_bytes(4, "big") * 2
    else:
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = b"\xff\xff\xff\xff"
    tracemalloc.start()
    try:
        assert "65535x65535" in message_of(raw_image(suffix[1:].replace("jpg", "jpeg"), data))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200_000


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT"])
@pytest.mark.parametrize("most_significant", [0xFF, 0x7F, 0x01])
def test_a_png_whose_chunk_claims_gigabytes_never_reaches_the_decoder(
    kind: bytes, most_significant: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytearray(encoded(".png", picture()))
    data[data.index(kind) - 4] = most_significant  # of the length in front of its type
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("OpenCV takes the memory that a chunk claims"))
    assert "claims a chunk beyond its end" in message_of(raw_image("png", data))


@pytest.mark.parametrize("encoding", ["jpeg", "jpg", "JPEG", "rgb8; jpeg compressed bgr8", "bgr8; jpeg compressed "])
def test_jpeg_under_every_name_that_drivers_give_it(encoding: str) -> None:
    image = decode_image(raw_image(encoding, encoded(".jpg", picture(), cv2.IMWRITE_JPEG_QUALITY, 95))).image
    assert image.shape == (48, 64, 3) and image.flags.c_contiguous
    assert np.abs(image.astype(int) - picture()).mean() < 3  # RGB, not BGR


def test_a_progressive_jpeg() -> None:
    data = encoded(".jpg", picture(), cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_QUALITY, 95)
    assert b"\xff\xc2" in data
    assert np.abs(decode_image(raw_image("jpeg", data)).image.astype(int) - picture()).mean() < 3


@pytest.mark.parametrize("tail", [b"\0", bytes(100), bytes(100_000), b"\xff" * 50])
def test_a_jpeg_with_bytes_behind_its_end(tail: bytes) -> None:
    data = encoded(".jpg", picture())
    np.testing.assert_array_equal(
        decode_image(raw_image("jpeg", data + tail)).image, decode_image(raw_image("jpeg", data)).image
    )


def test_a_jpeg_with_fill_bytes_and_a_large_header() -> None:
    data = encoded(".jpg", picture())
    profile = b"\xff\xe2" + (65000).to_bytes(2, "big") + bytes(64998)
    inflated = data[:2] + b"\xff\xff" + profile + profile + data[2:]
    np.testing.assert_array_equal(
        decode_image(raw_image("jpeg", inflated)).image, decode_image(raw_image("jpeg", data)).image
    )


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.99])
@pytest.mark.parametrize("progressive", [0, 1])
def test_a_truncated_jpeg(kept: float, progressive: int) -> None:
    data = encoded(".jpg", picture(), cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    line = message_of(raw_image("jpeg", data[: int(len(data) * kept)]))
    assert "truncated" in line or "no size" in line


def test_a_truncated_jpeg_with_a_whole_thumbnail_in_its_header() -> None:
    data, thumbnail = encoded(".jpg", picture()), encoded(".jpg", picture(8, 8))
    exif = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    whole = data[:2] + exif + data[2:]
    assert decode_image(raw_image("jpeg", whole)).image.shape == (48, 64, 3)
    assert "truncated" in message_of(raw_image("jpeg", whole[:-200]))


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8",
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xff\xd8" + b"\xff\xe0\x00\x00" * 50,
        b"\x89PNG",
        b"\x89PNG\r\n\x1a\n" + bytes(30),
        b"<html>404</html>",
        b"\0",
    ],
)
def test_things_that_are_no_picture(data: bytes) -> None:
    message_of(raw_image("jpeg", data))


@pytest.mark.parametrize("kept", [30, 500, -1, -13])
def test_a_truncated_png(kept: int, capfd: pytest.CaptureFixture) -> None:
    assert "truncated" in message_of(raw_image("png", encoded(".png", picture())[:kept]))
    assert capfd.readouterr().err == ""  # the codec's own complaints would be a second line in the log


def test_a_png_is_lossless_and_rgb() -> None:
    np.testing.assert_array_equal(decode_image(raw_image("png", encoded(".png", picture()))).image, picture())


def test_a_gray_png_becomes_rgb() -> None:
    gray = picture()[:, :, 0]
    np.testing.assert_array_equal(
        decode_image(raw_image("png", encoded(".png", gray))).image, np.repeat(gray[:, :, None], 3, axis=2)
    )


def test_a_16_bit_png_keeps_its_high_bytes() -> None:
    gray = picture()[:, :, 1]
    image = decode_image(raw_image("png", encoded(".png", gray.astype(np.uint16) * 257))).image
    assert image.dtype == np.uint8
    np.testing.assert_allclose(image, np.repeat(gray[:, :, None], 3, axis=2), atol=1)


def test_a_gray_jpeg_becomes_rgb() -> None:
    image = decode_image(raw_image("jpeg", encoded(".jpg", picture()[:, :, 0]))).image
    assert image.shape == (48, 64, 3)
    np.testing.assert_array_equal(image[:, :, 0], image[:, :, 2])


def test_shrinking_averages_areas() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    image[0, 0] = 200
    np.testing.assert_array_equal(resize_image(image, 2, 2)[0, 0], [50, 50, 50])


@pytest.mark.parametrize("size", [(224, 224), (48, 64), (100, 640)])
def test_shrinking_by_a_broken_ratio_leaves_no_trace_of_a_fine_pattern(size: tuple[int, int]) -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    image[::2] = 200  # lines one pixel wide, which picking pixels would show as bright and dark bands
    assert np.ptp(resize_image(image, *size).astype(int)) <= 2


def test_resizing_to_the_same_size_returns_the_image() -> None:
    image = picture()
    assert resize_image(image, 48, 64) is image


@pytest.mark.parametrize("size", [(96, 128), (20, 100), (1, 1), (48, 65)])
def test_resizing_gives_the_size_asked_for_and_takes_read_only_frames(size: tuple[int, int]) -> None:
    frame = decode_image(raw_image("rgb8", picture().tobytes(), 48, 64, 192))
    assert not frame.image.flags.writeable
    assert resize_image(frame.image, *size).shape == (*size, 3)


@pytest.mark.parametrize(
    ("sample_format", "dtype", "scale", "middle"),
    [
        ("U8", "u1", 128, 128),
        ("S8", "i1", 128, 0),
        ("S16LE", "<i2", 32768, 0),
        ("S16BE", ">i2", 32768, 0),
        ("S32LE", "<i4", 2**31, 0),
        ("S32BE", ">i4", 2**31, 0),
        ("F32LE", "<f4", 1, 0),
        ("F32BE", ">f4", 1, 0),
    ],
)
def test_every_pcm_format_comes_back_as_it_was(sample_format: str, dtype: str, scale: int, middle: int) -> None:
    sound = np.array([-1.0, -0.5, 0.0, 0.25, 0.5])
    wire = (sound * scale + middle).astype(dtype)
    chunk = decode_audio(raw_audio(wire.tobytes(), sample_format, rate_hz=8000))
    assert isinstance(chunk, AudioChunk) and chunk.samples.dtype == np.float32
    np.testing.assert_allclose(chunk.samples, sound, atol=1e-7)
    assert (chunk.stamp_ns, chunk.received_ns, chunk.rate_hz) == (7, 9, 8000)
    assert chunk.end_ns == 7 + 625_000  # 5 samples at 8 kHz


def test_the_channels_are_averaged() -> None:
    stereo = np.array([[0.5, -0.5], [1.0, 0.5], [0.25, 0.25]], "<f4")
    np.testing.assert_allclose(decode_audio(raw_audio(stereo.tobytes(), "F32LE", channels=2)).samples, [0, 0.75, 0.25])


def test_loud_32_bit_stereo_does_not_overflow() -> None:
    loud = np.full((4, 2), 2**31 - 1, "<i4")
    np.testing.assert_allclose(decode_audio(raw_audio(loud.tobytes(), "S32LE", channels=2)).samples, 1.0)


def test_float_sound_above_full_scale_is_clipped() -> None:
    np.testing.assert_array_equal(decode_audio(raw_audio(np.array([3, -9], "<f4").tobytes(), "F32LE")).samples, [1, -1])


def test_odd_length_pcm() -> None:
    line = message_of(raw_audio(bytes(101)))
    assert "101 bytes" in line and "S16LE" in line


def test_stereo_that_ends_within_a_pair() -> None:
    assert "4-byte" in message_of(raw_audio(bytes(102), channels=2))


@pytest.mark.parametrize("sample_format", ["S20LE", "", "s16le", "x" * 3000])
def test_an_unknown_sample_format(sample_format: str) -> None:
    line = message_of(raw_audio(bytes(100), sample_format))
    assert "not supported" in line and "S16LE" in line and len(line) < 200


@pytest.mark.parametrize("rate_hz", [0, -1, 384_001, 2**32 - 1])
def test_a_sample_rate_out_of_bounds(rate_hz: int) -> None:
    assert f"sample rate {rate_hz} Hz" in message_of(raw_audio(bytes(100), rate_hz=rate_hz))


@pytest.mark.parametrize("channels", [0, 65, 255])
def test_channels_out_of_bounds(channels: int) -> None:
    assert f"{channels} channels" in message_of(raw_audio(bytes(100), channels=channels))


def test_empty_audio() -> None:
    assert "empty" in message_of(raw_audio(b""))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_in_sound(bad: float) -> None:
    sound = np.zeros(100, "<f4")
    sound[50] = bad
    assert "NaN" in message_of(raw_audio(sound.tobytes(), "F32LE"))


def test_opposite_infinities_in_two_channels_are_one_line_and_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    assert "NaN" in message_of(raw_audio(np.array([np.inf, -np.inf], "<f4").tobytes(), "F32LE", channels=2))
    assert not recwarn.list


@pytest.mark.parametrize("coding", ["mp3", "ogg", "x" * 500])
def test_coded_audio_says_how_to_switch_it_off(coding: str) -> None:
    line = message_of(raw_audio(bytes(100), coding=coding))
    assert f"'{coding[:20]}'" in line and "wave" in line


def test_more_than_ten_seconds_in_one_message() -> None:
    decode_audio(raw_audio(bytes(2 * 80_000), rate_hz=8000))
    assert "publish smaller chunks" in message_of(raw_audio(bytes(2 * 80_001), rate_hz=8000))
