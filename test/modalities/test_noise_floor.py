"""What is taken for noise, and what only sounds like it for a moment."""

import numpy as np
import pytest

from aecf_ros.core.types import NANOSECONDS
from aecf_ros.modalities.audio.content import MUTED_FALL_DB, NOISE_RISE_DB
from aecf_ros.modalities.audio.noise_floor import NoiseFloor

RATE_HZ = 16_000
RNG = np.random.default_rng(0)


def hiss(seconds: float, dbfs: float, low_hz: float = 0.0, high_hz: float = RATE_HZ) -> np.ndarray:
    """Noise between two frequencies."""
    spectrum = np.fft.rfft(RNG.standard_normal(round(seconds * RATE_HZ)))
    hz = np.fft.rfftfreq(round(seconds * RATE_HZ), 1 / RATE_HZ)
    sound = np.fft.irfft(spectrum * ((hz >= low_hz) & (hz < high_hz)), round(seconds * RATE_HZ))
    return sound * 10 ** (dbfs / 20) / np.sqrt(np.mean(sound**2))


def vowel(seconds: float, pitch_hz: float) -> np.ndarray:
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return 0.05 * sum(np.sin(2 * np.pi * k * pitch_hz * time_s) / k for k in range(1, 20))


def words(seconds: float) -> np.ndarray:
    """'six' again and again, with next to no pause: a hiss above 3 kHz, a vowel, a hiss, for ever."""
    one = np.concatenate(
        [hiss(0.25, -28, 3000), vowel(0.15, 130), hiss(0.2, -28, 3000), np.zeros(round(0.06 * RATE_HZ))]
    )
    return np.resize(one, round(seconds * RATE_HZ)) + hiss(seconds, -55)


def followed(sound: np.ndarray, chunk_s: float = 0.1) -> list[tuple[float, float, float]]:
    """(floor_dbfs, rise_db, fall_db) after each chunk."""
    floor, size = NoiseFloor(RATE_HZ), round(chunk_s * RATE_HZ)
    found = []
    for i in range(len(sound) // size):
        floor.hear(sound[i * size : (i + 1) * size].astype(np.float32), round(i * chunk_s * NANOSECONDS), learn=True)
        found.append((floor.floor_dbfs, floor.rise_db, floor.fall_db))
    return found


@pytest.mark.parametrize("chunk_s", [0.01, 0.1, 0.5])
def test_white_noise_has_its_level_and_its_rise_within_the_second(chunk_s: float) -> None:
    found = followed(hiss(12, -50) + np.concatenate([np.zeros(6 * RATE_HZ), hiss(6, -35)]), chunk_s)
    at = round(6 / chunk_s)
    levels = np.array([f for f, _, _ in found[:at]][round(1 / chunk_s) :])
    assert np.abs(levels + 52.5).max() < 2.5  # the least of 16 is some 2 dB below the mean
    assert all(rise > 12 for _, rise, _ in found[at + round(0.9 / chunk_s) :])
    assert all(rise < 1.5 for _, rise, _ in found[:at])


def test_hissing_words_without_pauses_are_not_noise() -> None:
    assert max(rise for _, rise, _ in followed(words(30))) < NOISE_RISE_DB


def test_a_second_of_sustained_vowel_in_a_quiet_room_is_not_noise() -> None:
    sound = hiss(12, -60)
    sound[6 * RATE_HZ : 8 * RATE_HZ] += vowel(2, 140)
    assert max(rise for _, rise, _ in followed(sound)) < NOISE_RISE_DB


def test_a_microphone_turned_down_by_30_db_is_quieter_than_its_pauses_ever_were_and_back_at_once() -> None:
    sound = words(20)
    sound[8 * RATE_HZ : 12 * RATE_HZ] *= 10 ** (-30 / 20)
    falls = [fall for _, _, fall in followed(sound)]
    assert max(falls[:80]) < MUTED_FALL_DB and max(falls[80:90]) > MUTED_FALL_DB and max(falls[122:]) < MUTED_FALL_DB


def test_a_dropout_of_a_tenth_of_a_second_is_not_a_muted_microphone() -> None:
    sound = words(20)
    for at_s in (8, 11, 14):
        sound[at_s * RATE_HZ : at_s * RATE_HZ + RATE_HZ // 10] = 0
    assert max(fall for _, _, fall in followed(sound)) < MUTED_FALL_DB


@pytest.mark.parametrize("rate_hz", [1, 100, 1000, 8000, 48_000])
def test_sound_of_any_rate_is_followed(rate_hz: int) -> None:
    floor = NoiseFloor(rate_hz)
    for i in range(40):
        floor.hear(RNG.normal(0, 0.01, max(1, rate_hz // 10)).astype(np.float32), i * NANOSECONDS // 10, learn=True)
    assert np.isfinite([floor.floor_dbfs, floor.rise_db, floor.quietest, floor.fall_db]).all()
