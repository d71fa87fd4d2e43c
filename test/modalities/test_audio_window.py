"""The audio window: sound laid down by its stamps. Rate 1000 Hz, so that a sample is a millisecond."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aecf_ros.core.types import NANOSECONDS, AudioChunk
from aecf_ros.modalities.audio.window import STAMP_TOLERANCE_S, AudioWindow

RATE_HZ = 1000
START_NS = 1_700_000_000 * NANOSECONDS


def chunk(at_ms: int, samples: np.ndarray | int, value: float = 1.0, rate_hz: int = RATE_HZ) -> AudioChunk:
    sound = np.full(samples, value, np.float32) if isinstance(samples, int) else samples.astype(np.float32)
    return AudioChunk(START_NS + at_ms * 1_000_000, 0, rate_hz, sound)


def test_an_empty_window_is_silence_without_an_end() -> None:
    window = AudioWindow(RATE_HZ, 500)
    assert window.end_ns is None
    np.testing.assert_array_equal(window.read(), np.zeros(500, np.float32))


def test_the_first_chunk_stands_at_the_end_and_zeros_before_it() -> None:
    window = AudioWindow(RATE_HZ, 500)
    window.append(chunk(0, 100))
    np.testing.assert_array_equal(window.read(), np.r_[np.zeros(400), np.ones(100)])
    assert window.end_ns == START_NS + 100_000_000


def test_jitter_of_three_milliseconds_neither_adds_nor_drops_a_sample() -> None:
    window, rng = AudioWindow(RATE_HZ, 500), np.random.default_rng(0)
    for i in range(100):
        window.append(chunk(i * 100 + int(rng.integers(-3, 4)), np.arange(i * 100, (i + 1) * 100)))
    np.testing.assert_array_equal(window.read(), np.arange(9500, 10_000))


def test_a_gap_becomes_zeros_of_its_length() -> None:
    window = AudioWindow(RATE_HZ, 500)
    window.append(chunk(0, 100))
    window.append(chunk(200, 100, value=2))
    np.testing.assert_array_equal(window.read()[200:], np.r_[np.ones(100), np.zeros(100), np.full(100, 2)])


def test_an_overlap_is_heard_once() -> None:
    window = AudioWindow(RATE_HZ, 500)
    window.append(chunk(0, np.arange(100)))
    window.append(chunk(60, np.arange(60, 160)))
    np.testing.assert_array_equal(window.read()[-160:], np.arange(160))
    assert window.end_ns == START_NS + 160_000_000


def test_a_chunk_heard_before_changes_nothing() -> None:
    window = AudioWindow(RATE_HZ, 500)
    window.append(chunk(0, np.arange(300)))
    before, end_ns = window.read(), window.end_ns
    window.append(chunk(100, 100, value=9))
    np.testing.assert_array_equal(window.read(), before)
    assert window.end_ns == end_ns


@pytest.mark.parametrize("jump_ms", [-100_000, -601, 601, 100_000])
def test_a_jump_of_more_than_a_window_starts_anew(jump_ms: int) -> None:
    window = AudioWindow(RATE_HZ, 500)
    window.append(chunk(0, 100))
    window.append(chunk(100 + jump_ms, 100, value=2))
    np.testing.assert_array_equal(window.read(), np.r_[np.zeros(400), np.full(100, 2)])
    assert window.end_ns == START_NS + (200 + jump_ms) * 1_000_000


def test_a_chunk_longer_than_the_window_leaves_its_newest_part() -> None:
    window = AudioWindow(RATE_HZ, 500)
    window.append(chunk(0, np.arange(1234)))
    np.testing.assert_array_equal(window.read(), np.arange(734, 1234))


def test_an_empty_chunk_leaves_the_sound() -> None:
    window = AudioWindow(RATE_HZ, 500)
    window.append(chunk(0, 100))
    window.append(chunk(100, 0))
    np.testing.assert_array_equal(window.read()[-100:], np.ones(100))


def test_another_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="resample"):
        AudioWindow(RATE_HZ, 500).append(chunk(0, 10, rate_hz=8000))


def test_what_is_read_is_a_copy() -> None:
    window = AudioWindow(RATE_HZ, 5)
    window.read()[:] = 7
    np.testing.assert_array_equal(window.read(), np.zeros(5))


def test_clear_forgets() -> None:
    window = AudioWindow(RATE_HZ, 5)
    window.append(chunk(0, 5))
    window.clear()
    assert window.end_ns is None and not window.read().any()


def reference(chunks: list[AudioChunk], size: int) -> np.ndarray:
    """All the sound since the last jump in one growing list, by the rules of the window's docstring."""
    sound: list[float] = []
    end_ns: int | None = None
    tolerance = STAMP_TOLERANCE_S * RATE_HZ
    for c in chunks:
        samples = list(c.samples)
        offset = 0 if end_ns is None else round((c.stamp_ns - end_ns) / 1_000_000)
        if abs(offset) > size:
            sound = []
        elif offset > tolerance:
            sound += [0.0] * offset
        elif offset < -tolerance:
            if len(samples) <= -offset:
                continue
            samples = samples[-offset:]
        sound += samples
        end_ns = c.end_ns
    tail = sound[-size:]
    return np.array([0.0] * (size - len(tail)) + tail, np.float32)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(-700, 700), st.integers(0, 700)), max_size=15), st.integers(1, 600))
def test_any_sequence_of_chunks_gives_what_the_reference_gives(steps: list[tuple[int, int]], size: int) -> None:
    chunks, at_ms, value = [], 0, 1
    for jump_ms, length in steps:
        at_ms += jump_ms
        chunks.append(chunk(at_ms, np.arange(value, value + length)))
        at_ms, value = at_ms + length, value + length
    window = AudioWindow(RATE_HZ, size)
    for c in chunks:
        window.append(c)
    np.testing.assert_array_equal(window.read(), reference(chunks, size))
