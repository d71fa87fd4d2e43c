"""Measured quality of the sounds that the encoder was given: what a robot can know beyond the embedding."""

import itertools

import numpy as np

from benchmarks.fusion.features import Features
from benchmarks.fusion.sources import SOUND_RATE_HZ

FRAME = SOUND_RATE_HZ // 50
BAND_EDGES_HZ = (0, 100, 200, 400, 800, 1600, 2400, 3200, SOUND_RATE_HZ // 2 + 1)
MEASURED = 24


class SoundQuality(Features):
    """The same parts and draws; instead of embeddings, MEASURED columns of the sounds and none of the images."""

    def _part(self, variant: str, part: str) -> dict[str, np.ndarray]:
        return {"sound": super()._part(variant, part)["sound"]}

    def sound(self, variant: str, part: str) -> np.ndarray:
        """float32 [N, MEASURED], row for row beside the embeddings of `fusion`, `calibration` or `test`."""
        return self._cached(f"{variant}-{part}-quality", lambda: self._part(variant, part))["sound"]

    def _embed(self, encoder, inputs: np.ndarray) -> np.ndarray:
        if inputs.ndim > 2:
            return np.zeros((len(inputs), 0), np.float32)
        return np.concatenate([measure(inputs[i : i + 1000]) for i in range(0, len(inputs), 1000)])


def measure(sounds: np.ndarray) -> np.ndarray:
    """float32 [n, MEASURED] from float32 [n, T]: level, peak and crest; levels of short frames and their
    spread; shares of energy by band, flatness, strongest line and centroid of the spectrum; silent and clipped samples;
    zero crossings. Levels in dB.
    """
    frames = len(sounds[0]) // FRAME
    power = (sounds[:, : frames * FRAME].reshape(len(sounds), frames, FRAME) ** 2).mean(2)
    level = _db(power, 1e-9)
    low, quiet, middle, loud, loudest = np.percentile(level, [5, 20, 50, 80, 100], axis=1)
    rms, peak = _db((sounds**2).mean(1), 1e-9), np.abs(sounds).max(1)
    spectrum = np.abs(np.fft.rfft(sounds * np.hanning(sounds.shape[1]))) ** 2
    hz = np.fft.rfftfreq(sounds.shape[1], 1 / SOUND_RATE_HZ)
    total = spectrum.sum(1) + 1e-12
    bands = [
        _db(spectrum[:, (hz >= low_hz) & (hz < high_hz)].sum(1) / total, 1e-6)
        for low_hz, high_hz in itertools.pairwise(BAND_EDGES_HZ)
    ]
    smooth = spectrum[:, 1:].reshape(len(sounds), -1, 20).mean(2) + 1e-12
    columns = [
        rms,
        peak,
        20 * np.log10(peak + 1e-6) - rms,
        *(low, quiet, middle, loud, loudest, loudest - low, level.std(1)),
        *bands,
        10 * (np.log10(smooth).mean(1) - np.log10(smooth.mean(1))),
        _db(spectrum.max(1) / total, 1e-6),
        np.log((spectrum * hz).sum(1) / total + 1),
        (np.abs(sounds) < 1e-5).mean(1),
        np.log((np.abs(sounds) >= 0.9999 * peak[:, None]).mean(1) + 1e-4),
        np.diff(np.signbit(sounds), axis=1).mean(1),
    ]
    return np.column_stack(columns).astype(np.float32)


def _db(power: np.ndarray, least: float) -> np.ndarray:
    return 10 * np.log10(power + least)
