"""Kinds of sound corruption, by severity 1 to 5. Every function: float32 [n, T], severity int [n], rng -> same."""

from collections.abc import Callable

import numpy as np

from benchmarks.fusion.sources import SOUND_RATE_HZ

Corruption = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]

SNR_DB = np.array([np.inf, 30.0, 22.5, 15.0, 7.5, 0.0])  # by severity


def white(sounds, severity, rng):
    """White noise, 30 to 0 dB."""
    return add_noise(sounds, _white(sounds.shape, rng), SNR_DB[severity])


def pink(sounds, severity, rng):
    """Noise with a power of 1/f, 30 to 0 dB."""
    return add_noise(sounds, pink_noise(sounds.shape, rng), SNR_DB[severity])


def babble(sounds, severity, rng):
    """Four other voices of the same batch, 30 to 0 dB."""
    return add_noise(sounds, babble_noise(sounds, rng), SNR_DB[severity])


def low_pass(sounds, severity, rng):
    """Nothing above 2000 to 250 Hz."""
    cutoff_hz = 4000.0 * 0.575**severity
    return _filtered(sounds, lambda f: (f[None, :] < cutoff_hz[:, None]).astype(np.float32))


def clipping(sounds, severity, rng):
    """Overdriven by 12 to 40 dB, then clipped at half scale."""
    gain = 10 ** ((5 + 7 * severity) / 20.0)
    return np.clip(sounds * gain[:, None], -0.5, 0.5).astype(np.float32)


def dropouts(sounds, severity, rng):
    """15 to 75 % of the 25 ms blocks silent."""
    block = SOUND_RATE_HZ // 40
    blocks = -(-sounds.shape[1] // block)
    keep = rng.random((len(sounds), blocks)) >= (0.15 * severity)[:, None]
    return sounds * np.repeat(keep, block, axis=1)[:, : sounds.shape[1]]


def reverberation(sounds, severity, rng):
    """An exponentially decaying tail of 0.1 to 0.5 s at equal loudness."""
    time_s = np.arange(sounds.shape[1]) / SOUND_RATE_HZ
    tail = _white(sounds.shape, rng) * np.exp(-6.9 * time_s / (0.1 * severity)[:, None])
    tail /= np.sqrt((tail**2).sum(1, keepdims=True))
    tail[:, 0] += 1.0 / severity
    size = 2 * sounds.shape[1]
    wet = np.fft.irfft(np.fft.rfft(sounds, size) * np.fft.rfft(tail, size), size)[:, : sounds.shape[1]]
    return _peak(wet)


def speed(sounds, severity, rng):
    """Played faster or slower by 12 to 60 %, pitch included."""
    rate = np.where(rng.random(len(sounds)) < 0.5, 1 + 0.12 * severity, 1 / (1 + 0.12 * severity))
    middle = sounds.shape[1] / 2
    out = np.empty_like(sounds)
    grid = np.arange(sounds.shape[1])
    for i, r in enumerate(rate):
        out[i] = np.interp((grid - middle) * r + middle, grid, sounds[i], left=0.0, right=0.0)
    return out


def mains_hum(sounds, severity, rng):
    """50 Hz and its harmonics, 25 to -5 dB."""
    time_s = np.arange(sounds.shape[1]) / SOUND_RATE_HZ
    phase = rng.random((len(sounds), 1)) * 2 * np.pi
    hum = sum(np.sign(np.sin(2 * np.pi * 50 * k * time_s + phase * k)) / k for k in (1, 2, 3, 5, 9, 15, 25))
    return add_noise(sounds, hum.astype(np.float32), SNR_DB[severity] - 5.0)


def wind(sounds, severity, rng):
    """Gusts of noise below 400 Hz with a rumbling tail, 25 to -5 dB."""
    noise = _filtered(_white(sounds.shape, rng), lambda f: 1.0 / (1.0 + (f[None, :] / 200.0) ** 2))
    gust = _filtered(_white(sounds.shape, rng), lambda f: (f[None, :] < 4.0).astype(np.float32))
    gust = np.abs(gust) / np.abs(gust).max(1, keepdims=True)
    return add_noise(sounds, noise * gust, SNR_DB[severity] - 5.0)


SEEN: dict[str, Corruption] = {
    "white": white,
    "pink": pink,
    "babble": babble,
    "low_pass": low_pass,
    "clipping": clipping,
    "dropouts": dropouts,
}
DEVELOPMENT: dict[str, Corruption] = {"reverberation": reverberation, "speed": speed}
UNSEEN: dict[str, Corruption] = {"mains_hum": mains_hum, "wind": wind}


def apply(sounds: np.ndarray, kinds: dict[str, Corruption], kind: np.ndarray, severity: np.ndarray, rng) -> np.ndarray:
    """Corrupt each sound by its own kind (index into `kinds`) and severity (0 leaves it alone): float32 [n, T]."""
    out = sounds.copy()
    for index, corrupt in enumerate(kinds.values()):
        rows = np.flatnonzero((kind == index) & (severity > 0))
        for block in np.array_split(rows, max(1, len(rows) // 2000)):
            if len(block):
                out[block] = corrupt(sounds[block], severity[block], rng)
    return out


def add_noise(sounds: np.ndarray, noise: np.ndarray, snr_db: np.ndarray) -> np.ndarray:
    """Sum at a signal-to-noise ratio [n], measured over the samples that hold sound."""
    active = np.abs(sounds) > 0.01
    signal = (sounds**2 * active).sum(1) / np.maximum(active.sum(1), 1)
    power = (noise**2).mean(1)
    gain = np.sqrt(signal / np.maximum(power, 1e-12) / 10 ** (snr_db / 10.0))
    return (sounds + noise * gain[:, None]).astype(np.float32)


def mixed_noise(sounds: np.ndarray, low_db: float, high_db: float, rng) -> np.ndarray:
    """White, pink or babble noise by the throw of a die, at an SNR uniform in [low_db, high_db]."""
    kind = rng.integers(0, 3, size=len(sounds))
    noise = np.empty_like(sounds)
    for index, make in enumerate((_white, pink_noise)):
        rows = kind == index
        noise[rows] = make((int(rows.sum()), sounds.shape[1]), rng)
    noise[kind == 2] = babble_noise(sounds, rng, int((kind == 2).sum()))
    return add_noise(sounds, noise, rng.uniform(low_db, high_db, size=len(sounds)))


def pink_noise(shape: tuple[int, int], rng) -> np.ndarray:
    """Noise with a power of 1/f: float32 [n, T]."""
    return _filtered(_white(shape, rng), lambda f: 1.0 / np.sqrt(np.maximum(f[None, :], 20.0)))


def babble_noise(sounds: np.ndarray, rng, count: int | None = None) -> np.ndarray:
    """The sum of four of the rows, each shifted in time, for each of `count` (or as many as there are): float32 [count,
    T].
    """
    count = len(sounds) if count is None else count
    total = np.zeros((count, sounds.shape[1]), dtype=np.float32)
    for _ in range(4):
        total += np.roll(sounds[rng.integers(0, len(sounds), size=count)], int(rng.integers(sounds.shape[1])), axis=1)
    return total


def _white(shape: tuple[int, int], rng) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


def _filtered(sounds: np.ndarray, response) -> np.ndarray:
    frequency_hz = np.fft.rfftfreq(sounds.shape[1], 1 / SOUND_RATE_HZ)
    return np.fft.irfft(np.fft.rfft(sounds) * response(frequency_hz), sounds.shape[1]).astype(np.float32)


def _peak(sounds: np.ndarray) -> np.ndarray:
    return (0.5 * sounds / np.maximum(np.abs(sounds).max(1, keepdims=True), 1e-6)).astype(np.float32)
