"""The noise that sound never falls below, in bands: speech leaves every band now and then, noise does not.

Minimum statistics (Martin, "Noise power spectral density estimation based on optimal smoothing and minimum
statistics", 2001): a
hiss, a vowel and a burst each fill some bands for some time, so the least that a band has held over 0.8 s is noise.
"""

from __future__ import annotations

import math
from collections import deque
from itertools import pairwise

import numpy as np

from aecf_ros.health.running_average import RunningAverage

BLOCK_S = 0.05
MEMORY_S = 0.8
"""Longer than a syllable, and short enough that noise is named within a second."""
_EDGES_HZ = (
    100,
    200,
    300,
    450,
    650,
    900,
    1250,
    1700,
    2300,
    3000,
    3700,
    4400,
    5100,
    5800,
    6500,
    7200,
    9500,
    12_500,
    16_500,
)
"""Narrow where voices and notes are, and as many above: what has pitch leaves most of the bands empty."""
_HIGHEST = 0.45
_WHITE = 6.0
"""Of noise the least lower quartile of 16 blocks is a sixth of the mean."""
_LEAST_DB = -90.0
_RISEN_SHARE = 0.6
_UNUSUAL_DB, _UNUSUAL_QUIET_DB = 2.0, 6.0
_QUIET_RANK, _NEWEST = 2, 2


class NoiseFloor:
    """Follows the noise floor of sound of one rate. Memory is fixed. Not thread-safe.

    Of the last 0.8 s: ``floor_dbfs`` is the level that white noise of the median band's density has; ``rise_db`` how
    far
    six tenths of the bands are above their own usual floor; ``quietest`` the least mean square of a 50 ms block;
    ``fall_db`` how far the third
    quietest block, since a gap of 0.1 s is none, is below the usual quietest, 0 where the newest are not. Before
    there was so much sound they are
    -90 dBFS, 0 dB, 0 and 0 dB, and rise and fall are 0 until 2 s more are known.
    """

    def __init__(self, rate_hz: int) -> None:
        self._size = max(1, round(BLOCK_S * rate_hz))
        hz = np.fft.rfftfreq(self._size, 1 / rate_hz)
        edges = [f for f in _EDGES_HZ if f <= _HIGHEST * rate_hz]
        starts = np.unique(np.searchsorted(hz, edges))
        spans = list(pairwise(starts)) if len(starts) >= 4 else []
        widest = max((end - first for first, end in spans), default=0)
        self._bins = np.array(
            [[*range(first, end)] + [len(hz)] * (widest - (end - first)) for first, end in spans], np.int64
        )  # (bands, widest)
        self._quarter = np.array(
            [i * widest + (end - first) // 4 for i, (first, end) in enumerate(spans)], np.int64
        )  # in (bands, widest) laid flat
        self._taper = np.hanning(self._size)
        self._mean = np.full(self._size, 1 / self._size, np.float32)
        self._scale = 2.0 / max(self._size * float(np.dot(self._taper, self._taper)), 1e-9)
        self._rest = np.zeros(0, np.float32)
        blocks = self._count = round(MEMORY_S / BLOCK_S)
        self._bands = np.full((blocks, len(spans)), np.inf)  # a ring; full when the powers are
        self._newest = 0
        self._powers: deque[float] = deque(maxlen=blocks)
        self._usual: RunningAverage[np.ndarray] = RunningAverage(settle_s=2.0)
        self._usual_quiet: RunningAverage[float] = RunningAverage(settle_s=2.0)
        self.floor_dbfs, self.rise_db, self.quietest, self.fall_db = _LEAST_DB, 0.0, 0.0, 0.0

    def hear(self, samples: np.ndarray, now_ns: int, learn: bool) -> None:
        """Take the next samples, float32 ``(n,)``, at steady time ``now_ns``; ``learn`` says that they may count as
        usual.
        """
        sound = np.concatenate([self._rest, samples])
        count = len(sound) // self._size
        self._rest = sound[count * self._size :]
        if not count:
            return
        blocks = sound[: count * self._size].reshape(count, self._size)[-self._count :]
        blocks = blocks - (blocks @ self._mean)[:, None]
        self._powers.extend((np.einsum("ij,ij->i", blocks, blocks) / self._size).tolist())
        if len(self._bins):
            spectrum = np.fft.rfft(blocks * self._taper, axis=1)
            for band in self._lower_quartiles((spectrum.real**2 + spectrum.imag**2) * self._scale):
                self._bands[self._newest] = band
                self._newest = (self._newest + 1) % len(self._bands)
        if len(self._powers) == self._count:
            self._judge(now_ns, learn)

    def _lower_quartiles(self, power: np.ndarray) -> np.ndarray:
        """Of ``(blocks, bins)`` that of each band, ``(blocks, bands)``: between the harmonics of a voice there is
        nothing.
        """
        padded = np.empty((len(power), power.shape[1] + 1))
        padded[:, :-1], padded[:, -1] = power, np.inf
        ranked = padded.take(self._bins, axis=1)  # (blocks, bands, widest)
        ranked.sort(axis=2)
        return ranked.reshape(len(power), -1).take(self._quarter, axis=1)

    def _judge(self, now_ns: int, learn: bool) -> None:
        ranked = sorted(self._powers)
        self.quietest = ranked[0]
        quiet_db, usual_quiet_db = _decibels(self.quietest), self._usual_quiet.value
        newest_db = max(_decibels(power) for power in list(self._powers)[-_NEWEST:])
        self.fall_db = 0.0
        if usual_quiet_db is not None and newest_db < usual_quiet_db - _UNUSUAL_QUIET_DB:
            self.fall_db = usual_quiet_db - _decibels(ranked[_QUIET_RANK])
        if learn:
            unusual = usual_quiet_db is not None and abs(quiet_db - usual_quiet_db) > _UNUSUAL_QUIET_DB
            self._usual_quiet.add(quiet_db, now_ns, unusual)
        if not len(self._bins):
            return
        least = self._bands.min(axis=0)  # (bands,)
        self.floor_dbfs = _decibels(_WHITE * 0.5 * self._size * _quantile(least, 0.5))
        floor_db = np.maximum(10 * np.log10(np.maximum(least, 1e-20)), _LEAST_DB)
        usual_db = self._usual.value
        self.rise_db = 0.0 if usual_db is None else _quantile(floor_db - usual_db, 1 - _RISEN_SHARE)
        if learn:
            self._usual.add(floor_db, now_ns, unusual=abs(self.rise_db) > _UNUSUAL_DB)


def _quantile(values: np.ndarray, share: float) -> float:
    """As `np.quantile` with linear interpolation, which takes 50 us more."""
    ranked: list[float] = sorted(values.tolist())
    at = share * (len(ranked) - 1)
    below = int(at)
    above = min(below + 1, len(ranked) - 1)
    return ranked[below] + (at - below) * (ranked[above] - ranked[below])


def _decibels(power: float) -> float:
    return max(10 * math.log10(max(power, 1e-20)), _LEAST_DB)
