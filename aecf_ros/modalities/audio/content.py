"""What sound says about its microphone: repeating, clipped, silent, offset, humming or noisy."""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from aecf_ros.core.types import NANOSECONDS
from aecf_ros.health.content import Complaint
from aecf_ros.health.thresholds import StreamThresholds
from aecf_ros.modalities.audio.noise_floor import NoiseFloor
from aecf_ros.modalities.messages import DIGEST_BYTES, digest

REMEMBERED_CHUNKS = 256
NOISE_RISE_DB = 3.0
"""The floor of speech in one room stays within 2.5 dB."""
MUTED_FALL_DB = 18.0
"""A fan that stops is 10 dB; a microphone that is turned down below what the converter needs is more."""


@dataclass(frozen=True, slots=True)
class AudioContent:
    """Measurements of one chunk (or of the last 50 ms, where chunks are shorter); levels are shares of full scale.

    ``clipped_s`` is how much of the last second is clipped chunks: words are clipped, the pauses between them are not.
    ``hum`` is the share of the energy of the last half second at harmonics of ``hum_hz``, 0 where its pauses lack
    them. ``floor_dbfs``,
    ``floor_rise_db`` and ``fall_db`` are those of :class:`NoiseFloor`.
    """

    repeats: str
    level_dbfs: float
    clipped: float
    clipped_s: float
    dc: float
    hum: float
    hum_hz: int
    floor_dbfs: float
    floor_rise_db: float
    fall_db: float

    def complaints(self, thresholds: StreamThresholds) -> list[Complaint]:
        """Clipped, near-silent, DC, hum, noisy."""
        complaints = []
        if thresholds.clipped_above and self.clipped > thresholds.clipped_above:
            text = f"clipped: {self.clipped:.0%} of the samples at the limit"
            complaints.append(Complaint("clipped", text, averaged=self.clipped_s >= 0.2))
        silent, muted = self.level_dbfs < thresholds.silent_below_dbfs, self.fall_db > MUTED_FALL_DB
        if thresholds.silent_below_dbfs and (silent or muted):
            text = f"{self.level_dbfs:.0f} dBFS" if silent else f"pauses are {self.fall_db:.0f} dB quieter than usual"
            complaints.append(Complaint("silent", f"near-silent: {text}", averaged=muted))
        if thresholds.dc_above and abs(self.dc) > thresholds.dc_above:
            complaints.append(Complaint("dc", f"constant offset of {self.dc:+.0%} of full scale"))
        if thresholds.hum_above and self.hum > thresholds.hum_above:
            complaints.append(
                Complaint("hum", f"hum: {self.hum:.0%} of the energy at multiples of {self.hum_hz} Hz", averaged=True)
            )
        if (
            thresholds.noise_above_dbfs
            and self.floor_rise_db > NOISE_RISE_DB
            and self.floor_dbfs > thresholds.noise_above_dbfs
        ):
            complaints.append(
                Complaint(
                    "noisy",
                    f"noisy: never below {self.floor_dbfs:.0f} dBFS, {self.floor_rise_db:.0f} dB above the usual",
                    averaged=True,
                )
            )
        return complaints


class AudioWatch:
    """Measures the chunks of one microphone; spectra at most ten times a second. Not thread-safe."""

    _WINDOW_S, _EVERY_S, _SHORT_S = 0.5, 0.1, 0.05
    _HUM_MIN_DBFS = -50.0

    def __init__(self) -> None:
        self._seen: Counter[int] = Counter()
        self._order: deque[int] = deque()
        self._loops = 0
        self._rate_hz = 0
        self._window = np.zeros(0, np.float32)
        self._heard = 0
        self._since_spectrum = 0
        self._hum = (0.0, 50)
        self._floor = NoiseFloor(16_000)
        self._clips: deque[tuple[int, float]] = deque(maxlen=128)

    def listen(self, data: np.ndarray, samples: np.ndarray, rate_hz: int, now_ns: int) -> AudioContent:
        """Measure one chunk.

        Args:
            data: the message's bytes, flat uint8.
            samples: float32 ``(n,)`` mono in [-1, 1].
            rate_hz: rate of the samples.
            now_ns: steady time.
        """
        repeats = self._repetition(data, samples)
        self._append(samples, rate_hz)
        self._floor.hear(samples, now_ns, learn=not repeats)
        if self._heard >= len(self._window) and self._since_spectrum >= self._EVERY_S * rate_hz:
            self._since_spectrum = 0
            self._hum = self._find_hum()
        newest = max(len(samples), round(self._SHORT_S * rate_hz))
        recent = self._window[-min(newest, self._heard, len(self._window)) :]
        mean = float(recent.mean())
        power = float(np.dot(recent, recent)) / len(recent)
        clipped = _clipped(recent)
        return AudioContent(
            repeats,
            _dbfs(power - mean * mean),
            clipped,
            self._clipped_s(clipped, len(samples) / rate_hz, now_ns),
            mean,
            *self._hum,
            self._floor.floor_dbfs,
            self._floor.rise_db,
            self._floor.fall_db,
        )

    def _clipped_s(self, clipped: float, lasts_s: float, now_ns: int) -> float:
        if clipped > 0.01:
            self._clips.append((now_ns, lasts_s))
        while self._clips and now_ns - self._clips[0][0] > NANOSECONDS:
            self._clips.popleft()
        return sum(s for _, s in self._clips) if len(self._clips) > 1 else 0.0

    def _repetition(self, data: np.ndarray, samples: np.ndarray) -> str:
        mark = digest(data, whole=data.size <= DIGEST_BYTES)
        looped = self._seen[mark] > 0
        self._seen[mark] += 1
        self._order.append(mark)
        if len(self._order) > REMEMBERED_CHUNKS:
            oldest = self._order.popleft()
            self._seen[oldest] -= 1
            if not self._seen[oldest]:
                del self._seen[oldest]
        if float(samples.min()) == float(samples.max()):
            self._loops = 0
            return "the same value in every sample"
        # No microphone repeats a chunk, so that a single new one among the old ones does not end the loop.
        held = looped or self._loops >= 2
        self._loops = self._loops + 1 if looped else 0
        return "sound that was heard before" if held else ""

    def _append(self, samples: np.ndarray, rate_hz: int) -> None:
        if rate_hz != self._rate_hz:
            self._rate_hz, self._heard, self._since_spectrum = rate_hz, 0, 0
            self._window = np.zeros(max(1, round(self._WINDOW_S * rate_hz)), np.float32)
            self._floor = NoiseFloor(rate_hz)
        size = len(self._window)
        count = min(len(samples), size)
        self._window[: size - count] = self._window[count:]
        self._window[size - count :] = samples[len(samples) - count :]
        self._heard = min(size, self._heard + count)
        self._since_spectrum += len(samples)

    def _find_hum(self) -> tuple[float, int]:
        """(share of energy at harmonics of the mains, 50 or 60) over the window; 0 where there is next to no sound.

        The mains hums on while nobody speaks: a voice that holds such a pitch stops before the quietest block has
        heard nothing else.
        """
        factor = max(1, self._rate_hz // 2000)
        usable = len(self._window) // factor * factor
        slow = self._window[:usable].reshape(-1, factor).mean(axis=1)
        energy = float(np.var(self._window))
        if _dbfs(energy) < self._HUM_MIN_DBFS or len(slow) < 64:
            return 0.0, 50
        lines_of = _mains_lines(len(slow), factor / self._rate_hz)
        spectrum = np.fft.rfft((slow - slow.mean()) * lines_of.taper)
        power = (spectrum.real**2 + spectrum.imag**2) * lines_of.scale  # mean square of each band
        shares = {}
        for mains, (all_lines, first_lines) in lines_of.bands.items():
            lines, first = power[all_lines].sum(), power[first_lines].sum()
            steady = self._floor.quietest > 0.5 * lines
            shares[mains] = float(lines) / energy if steady and first > 0.5 * lines else 0.0
        mains = max(shares, key=shares.__getitem__)
        return min(shares[mains], 1.0), mains


@dataclass(frozen=True, slots=True)
class _MainsLines:
    """Of the spectrum of a window: taper, scale to mean squares, and for each mains the bins of its lines and of the
    first two.

    A voice has its energy above 80 Hz and may well sing a multiple; the mains has it at the first two lines.
    """

    taper: np.ndarray
    scale: float
    bands: dict[int, tuple[np.ndarray, np.ndarray]]


@lru_cache(maxsize=16)
def _mains_lines(size: int, step_s: float) -> _MainsLines:
    taper = np.hanning(size)
    hz = np.fft.rfftfreq(size, step_s)
    bands = {}
    for mains in (50, 60):
        near = (np.abs(hz - mains * np.round(hz / mains)) <= 4.0) & (hz > 30)
        bands[mains] = np.flatnonzero(near & (hz < 6.5 * mains)), np.flatnonzero(near & (hz < 2.5 * mains))
    return _MainsLines(taper, 2.0 / (size * float(np.dot(taper, taper))), bands)


def _dbfs(power: float) -> float:
    return 10 * math.log10(max(power, 1e-20))


_CLIPPED_MIN = 8


def _clipped(samples: np.ndarray) -> float:
    """Share of samples at the limit: at full scale, or at a plateau that both peaks of a loud sound share."""
    low, high = float(samples.min()), float(samples.max())
    peak = max(-low, high)
    if peak < 0.03:
        return 0.0
    if peak < 0.985 and abs(low + high) > 0.002 * peak:
        return 0.0
    at_limit = int(np.count_nonzero(np.abs(samples) >= 0.9999 * peak))
    return at_limit / len(samples) if at_limit >= _CLIPPED_MIN else 0.0
