"""Sound: a word said again and again in a room, with noise; and everything that is not a digit.

All sound is float32 mono at RATE_HZ. Full scale is 1.0.
"""

from dataclasses import dataclass

import numpy as np
import scipy.fft
import soxr

from .sources import RATE_HZ, Words

WINDOW_S = 1.0
NOISES = ("white", "pink", "brown", "fan", "hum", "babble")


@dataclass(frozen=True)
class Acoustics:
    """A room and a microphone as one filter: `response` is complex64 (FILTER_SIZE // 2 + 1,), applied to up to
    FILTER_SIZE - TAIL samples.
    """

    response: np.ndarray


FILTER_SIZE = 32768
TAIL = 8000


def make_acoustics(rng: np.random.Generator, telephone: float = 0.35) -> Acoustics:
    """A random room (synthetic exponential impulse response, sometimes none) and microphone (coloration, band limits).

    telephone: how often everything above 3.4 to 3.9 kHz is cut, so that bandwidth does not tell the 8 kHz corpus from
    the others.
    """
    frequency = np.fft.rfftfreq(FILTER_SIZE, 1.0 / RATE_HZ).astype(np.float32)
    response = np.ones(len(frequency), np.complex64)
    if rng.random() < 0.7:
        decay_s = rng.uniform(0.05, 0.55)
        n = int(min(decay_s, TAIL / RATE_HZ) * RATE_HZ)
        late = rng.standard_normal(n, dtype=np.float32) * np.exp(
            -6.9 * np.arange(n, dtype=np.float32) / (decay_s * RATE_HZ)
        )
        late[: int(rng.uniform(0.001, 0.012) * RATE_HZ)] = 0.0
        late *= np.float32(10.0 ** (-rng.uniform(2.0, 18.0) / 20.0) / max(float(np.sqrt(np.square(late).sum())), 1e-6))
        late[0] = 1.0
        response *= scipy.fft.rfft(late, FILTER_SIZE)
    if rng.random() < 0.7:
        knots = np.log(np.array([40, 120, 300, 700, 1500, 3000, 5000, 8000.0]))
        gain_db = rng.normal(0.0, rng.uniform(1.0, 5.0), len(knots))
        response *= (10.0 ** (np.interp(np.log(np.maximum(frequency, 20.0)), knots, gain_db) / 20.0)).astype(np.float32)
    if rng.random() < telephone:
        corner = rng.uniform(3300, 3900)
        response *= 1.0 / (1.0 + (frequency / corner) ** 24)
    elif rng.random() < 0.2:
        response *= 1.0 / (1.0 + (frequency / rng.uniform(4000, 7500)) ** 16)
    if rng.random() < 0.4:
        response *= 1.0 / (1.0 + (rng.uniform(60, 320) / np.maximum(frequency, 1.0)) ** 4)
    return Acoustics(response.astype(np.complex64))


def in_room(sound: np.ndarray, acoustics: Acoustics) -> np.ndarray:
    """`sound` float32 (n <= FILTER_SIZE - TAIL,) as the microphone hears it, with its reverberation: float32 (n +
    TAIL,).
    """
    if len(sound) > FILTER_SIZE - TAIL:
        raise ValueError(
            f"{len(sound)} samples are more than one filter block holds; give at most {FILTER_SIZE - TAIL}"
        )
    return scipy.fft.irfft(scipy.fft.rfft(sound, FILTER_SIZE) * acoustics.response, FILTER_SIZE)[: len(sound) + TAIL]


def rms(sound: np.ndarray) -> float:
    """Root mean square; 0 for no samples."""
    return float(np.sqrt(np.square(sound, dtype=np.float64).mean())) if len(sound) else 0.0


def colored_noise(rng: np.random.Generator, n: int, slope: float) -> np.ndarray:
    """n samples of noise whose power falls as 1 / f**slope (0 white, 1 pink, 2 brown), of unit RMS."""
    size = scipy.fft.next_fast_len(n, real=True)
    bins = size // 2 + 1
    spectrum = rng.standard_normal(2 * bins, dtype=np.float32).view(np.complex64)
    weight = np.maximum(np.arange(bins, dtype=np.float32), max(40.0 * size / RATE_HZ, 1.0)) ** np.float32(-0.5 * slope)
    weight[0] = 0.0
    sound = scipy.fft.irfft(spectrum * weight, size)[:n]
    return sound / np.float32(max(rms(sound), 1e-9))


def hum(rng: np.random.Generator, n: int, base_hz: float) -> np.ndarray:
    """n samples of a harmonic tone of unit RMS: mains hum, a motor."""
    time = np.arange(n, dtype=np.float32) / RATE_HZ
    count = int(min(rng.integers(2, 14), 7000 // base_hz))
    sound = np.zeros(n, np.float32)
    for k in range(1, count + 1):
        sound += np.float32(rng.random() / k ** rng.uniform(0.3, 1.5)) * np.sin(
            np.float32(2 * np.pi * base_hz * k) * time + np.float32(rng.uniform(0, 6.28))
        )
    return sound / np.float32(max(rms(sound), 1e-9))


def babble(rng: np.random.Generator, n: int, words: Words, choose: np.ndarray) -> np.ndarray:
    """n samples of three to seven voices at once, from the words `choose` (indices), of unit RMS."""
    sound = np.zeros(n, np.float32)
    for _ in range(int(rng.integers(3, 8))):
        at = -int(rng.integers(0, RATE_HZ // 2))
        gain = np.float32(rng.uniform(0.4, 1.0))
        while at < n:
            word = words.word(int(rng.choice(choose)))
            start, stop = max(at, 0), min(at + len(word), n)
            if stop > start:
                sound[start:stop] += gain * word[start - at : stop - at]
            at += len(word) + int(rng.uniform(0.0, 0.25) * RATE_HZ)
    return sound / np.float32(max(rms(sound), 1e-9))


def noise(rng: np.random.Generator, n: int, kind: str, talk: tuple[Words, np.ndarray] | None) -> np.ndarray:
    """n samples of one of NOISES at unit RMS. talk: the words of `babble` and which of them."""
    if kind == "babble" and talk is not None:
        return babble(rng, n, *talk)
    if kind == "hum":
        return 0.9 * hum(rng, n, rng.choice([50.0, 60.0, 100.0, 120.0])) + 0.3 * colored_noise(rng, n, 1.0)
    if kind == "fan":
        swing = 1.0 + 0.3 * np.sin(
            np.arange(n, dtype=np.float32) * np.float32(2 * np.pi * rng.uniform(1, 12) / RATE_HZ)
        )
        return 0.9 * colored_noise(rng, n, rng.uniform(0.8, 1.8)) * swing + np.float32(rng.uniform(0, 0.6)) * hum(
            rng, n, rng.uniform(60, 350)
        )
    return colored_noise(
        rng, n, {"white": rng.uniform(0, 0.3), "pink": rng.uniform(0.7, 1.3)}.get(kind, rng.uniform(1.6, 2.2))
    )


def at_speed(word: np.ndarray, factor: float) -> np.ndarray:
    """`word` played `factor` times as fast, pitch and all."""
    return soxr.resample(word, RATE_HZ * factor, RATE_HZ, quality="LQ") if abs(factor - 1.0) > 0.01 else word


def repeated(word: np.ndarray, n: int, first: int, interval: int, gains: np.ndarray) -> np.ndarray:
    """n samples in which `word` starts at first, first + interval, ...; what sticks out at either end is cut off."""
    sound = np.zeros(n, np.float32)
    for k, at in enumerate(range(first, n, interval)):
        start, stop = max(at, 0), min(at + len(word), n)
        if stop > start:
            sound[start:stop] += gains[k % len(gains)] * word[start - at : stop - at]
    return sound


def heard_share(length: int, first: int, interval: int, start: int, stop: int) -> tuple[float, float]:
    """How much of a word (a share of its length) lies in [start, stop): the best single repetition, and all of them
    together.
    """
    begins = np.arange(first, stop, interval)
    inside = np.clip(np.minimum(begins + length, stop) - np.maximum(begins, start), 0, None) / max(length, 1)
    return (float(inside.max()), float(inside.sum())) if len(inside) else (0.0, 0.0)


def _gain_db(rng: np.random.Generator) -> float:
    """Level of speech at the microphone, dB of full scale (RMS)."""
    return float(rng.uniform(-40.0, -12.0))


def finished(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Through the converter: now and then clipped, then rounded to int16."""
    if rng.random() < 0.04:
        sound = np.clip(sound * rng.uniform(3.0, 12.0), -0.5, 0.5) * rng.uniform(0.3, 1.8)
    return np.clip(np.round(sound * 32767.0), -32768, 32767).astype(np.int16)


def _noise_bed(rng: np.random.Generator, n: int, level: float, talk: tuple[Words, np.ndarray] | None) -> np.ndarray:
    """One or two kinds of noise together at RMS `level`."""
    kinds = rng.choice(
        NOISES, size=1 if rng.random() < 0.65 else 2, replace=False, p=[0.2, 0.25, 0.15, 0.16, 0.1, 0.14]
    )
    bed = np.zeros(n, np.float32)
    for kind in kinds:
        bed += np.float32(rng.uniform(0.3, 1.0)) * noise(rng, n, str(kind), talk)
    return bed * np.float32(level / max(rms(bed), 1e-9))


def digit_window(
    word: np.ndarray, rng: np.random.Generator, talk: tuple[Words, np.ndarray] | None, vary_speed: float = 0.1
) -> np.ndarray:
    """One window of a stream in which `word` is repeated: int16 (RATE_HZ * WINDOW_S,).

    Cut at any phase at which most of the word is heard; some begin with digital silence, as a buffer does after a loss.
    """
    n = round(RATE_HZ * WINDOW_S)
    word = at_speed(word, float(np.exp(rng.normal(0.0, vary_speed))))
    lead = RATE_HZ // 2
    interval = max(int(rng.uniform(0.62, 1.15) * RATE_HZ), len(word) + int(rng.uniform(0.02, 0.15) * RATE_HZ))
    silent = int(rng.uniform(0.05, 0.55) * n) if rng.random() < 0.12 else 0
    for _ in range(60):
        first = int(rng.integers(-interval, interval)) + lead - interval
        best, total = heard_share(len(word), first, interval, lead + silent, lead + n)
        if best >= 0.72 or (total >= 0.95 and best >= 0.5 and not silent):
            break
    else:
        silent, first = 0, lead + max((n - len(word)) // 2, 0)
    gains = np.exp(rng.normal(0.0, 0.12, 8)).astype(np.float32)
    level = 10.0 ** (_gain_db(rng) / 20.0)
    stream = repeated(word * np.float32(level / max(rms(word), 1e-6)), lead + n, first, interval, gains)
    sound = in_room(stream, make_acoustics(rng))[lead : lead + n]
    sound *= np.float32(level / max(rms(sound), 1e-9))
    snr_db = rng.uniform(5.0, 32.0) if rng.random() < 0.9 else rng.uniform(30.0, 60.0)
    sound = sound + _noise_bed(rng, n, level * 10.0 ** (-snr_db / 20.0), talk)
    if silent:
        sound[:silent] = 0.0
    elif rng.random() < 0.03:
        hole = int(rng.integers(0, n - n // 10))
        sound[hole : hole + n // 10] = 0.0
    return finished(sound, rng)


def nothing_window(words: Words, rng: np.random.Generator) -> np.ndarray:
    """One window in which no digit is said: int16 (RATE_HZ * WINDOW_S,). Noise, silence, other words, or a sliver of a
    digit.

    words: must hold words that are no digits (label -1), which talk, and digits, of which less than a fifth is heard.
    """
    n = round(RATE_HZ * WINDOW_S)
    others, digits = np.flatnonzero(words.labels < 0), np.flatnonzero(words.labels >= 0)
    talk = (words, others if len(others) else digits)
    way = rng.random()
    if way < 0.04:
        return np.zeros(n, np.int16)
    level = 10.0 ** (rng.uniform(-75.0, -15.0) / 20.0)
    sound = _noise_bed(rng, n, level, talk)
    if way < 0.45:
        pass
    elif way < 0.85 and len(others):
        word = at_speed(words.word(int(rng.choice(others))), float(np.exp(rng.normal(0.0, 0.1))))
        speech_level = max(level * 10.0 ** (rng.uniform(3.0, 30.0) / 20.0), 0.003)
        interval = max(int(rng.uniform(0.62, 1.15) * RATE_HZ), len(word) + 500)
        stream = repeated(
            word * np.float32(speech_level / max(rms(word), 1e-6)),
            n + RATE_HZ // 2,
            -int(rng.integers(interval)),
            interval,
            np.ones(1),
        )
        sound = sound + in_room(stream, make_acoustics(rng))[RATE_HZ // 2 : RATE_HZ // 2 + n]
    else:
        word = words.word(int(rng.choice(digits)))
        share = int(rng.uniform(0.03, 0.19) * len(word))
        sliver = np.zeros(n, np.float32)
        if rng.random() < 0.5:
            sliver[:share] = word[-share:]
        else:
            sliver[-share:] = word[:share]
        sound = sound + sliver * np.float32(
            max(level * 10.0 ** (rng.uniform(5.0, 25.0) / 20.0), 0.003) / max(rms(word), 1e-6)
        )
    sound = np.clip(sound, -1.0, 1.0)
    if rng.random() < 0.12:
        sound[: int(rng.uniform(0.1, 0.9) * n)] = 0.0
    return finished(sound, rng)
