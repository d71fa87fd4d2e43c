"""What the content of a stream says about the sensor: repeating, dark, blurred, clipped, silent, humming.

A watch measures, cheaply and as messages come; the measurement says what it repeats and what there is to complain about
at given thresholds; ``StreamMonitor`` decides how long that must last. Memory is fixed.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter, deque
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from aecf_ros.core.types import NANOSECONDS
from aecf_ros.health.running_average import SlowAverage
from aecf_ros.health.thresholds import StreamThresholds
from aecf_ros.modalities.audio.noise_floor import NoiseFloor
from aecf_ros.modalities.image.scene_change import SOFT, SoftScenes
from aecf_ros.modalities.image.sharpness import edge_steepness

DIGEST_BYTES = 65_536
REMEMBERED_CHUNKS = 256
SAME_PICTURE = "the same picture"
NOISE_RISE_DB = 3.0
"""The floor of speech in one room stays within 2.5 dB."""
MUTED_FALL_DB = 18.0
"""A fan that stops is 10 dB; a microphone that is turned down below what the converter needs is more."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """Something wrong with the content. ``averaged`` says that the measurement itself spans half a second."""

    kind: str
    text: str
    averaged: bool = False


class Content(Protocol):
    """What was measured of one message. ``repeats`` names what it repeats, empty if it is new."""

    repeats: str

    def complaints(self, thresholds: StreamThresholds) -> list[Complaint]:
        """What is wrong with it."""
        ...


def digest(data: np.ndarray, whole: bool) -> int:
    """CRC-32 of flat uint8 data: of all of it, or of at most 64 KB evenly spread, which noise changes as well."""
    step = 1 if whole else -(-data.size // DIGEST_BYTES) | 1
    return zlib.crc32(np.ascontiguousarray(data[::step]), data.size)


@dataclass(frozen=True, slots=True)
class ImageContent:
    """Measurements of one picture at encoder size; levels are shares of full scale.

    Ratios are to the stream's own average, ``None`` while there is too little to go by; that of sharpness also while the picture became soft with
    another scene and has not outlasted it. ``highlight`` is the luminance that 2 % of the pixels exceed.
    """

    repeats: str
    highlight: float
    overexposed: float
    sharpness_ratio: float | None
    noise: float
    noise_ratio: float | None

    def complaints(self, thresholds: StreamThresholds) -> list[Complaint]:
        """Dark, overexposed, blurred, noisy."""
        found = []
        if self.highlight < thresholds.dark_below:
            found.append(Complaint("dark", f"dark: the brightest parts reach {self.highlight:.0%} of full scale"))
        elif thresholds.overexposed_above and self.overexposed > thresholds.overexposed_above:
            found.append(Complaint("overexposed", f"overexposed: {self.overexposed:.0%} of the pixels at full scale"))
        elif self.sharpness_ratio is not None and self.sharpness_ratio < thresholds.blur_below:
            found.append(Complaint("blurred", f"blurred: {self.sharpness_ratio:.0%} of the usual sharpness"))
        if thresholds.noisy_above and self.noise > thresholds.noisy_above and (self.noise_ratio or 0.0) > 3.0:
            found.append(Complaint("noisy", f"noisy: {self.noise_ratio:.1f} times the usual noise"))
        return found


class ImageWatch:
    """Measures the frames of one camera: light on a grid over the picture, sharpness and noise in its middle.

    0.2 ms a frame at most. Not thread-safe.
    """

    _PATCH = 96

    def __init__(self) -> None:
        self._digest: int | None = None
        self._before: np.ndarray | None = None
        self._steepness: SlowAverage[float] = SlowAverage()
        self._soft_scenes = SoftScenes()
        self._noise: SlowAverage[float] = SlowAverage()

    def look(self, mark: int, image: np.ndarray, now_ns: int) -> ImageContent:
        """Measure one frame.

        Args:
            mark: the :func:`digest` of the message's bytes; of a JPEG or PNG, of all of them.
            image: the decoded picture at encoder size, uint8 ``(H, W, 3)`` RGB.
            now_ns: steady time.
        """
        repeats = SAME_PICTURE if mark == self._digest else ""
        self._digest = mark
        patch = _luminance(_middle(image, self._PATCH))  # (h, w) int16
        stride = math.ceil(max(image.shape[:2]) / self._PATCH)
        spread = patch if stride == 1 else _luminance(image[::stride, ::stride])
        levels = np.cumsum(np.bincount(spread.ravel(), minlength=256))
        total = levels[-1]
        highlight = int(np.searchsorted(levels, 0.98 * total)) / 255
        overexposed = 1.0 - float(levels[249]) / total
        grain = _spatial_noise(patch)
        steepness, usual = edge_steepness(patch, grain), self._steepness.value
        ratio = None if steepness is None or usual is None else steepness / max(usual, 1e-6)
        soft = ratio is not None and ratio < SOFT
        lens = ratio is not None and self._soft_scenes.blames_lens(patch, ratio)
        noise = min(grain, self._change(patch)) / 255
        usual_noise = self._noise.value
        if not repeats and 0.05 < highlight and overexposed < 0.5:
            if steepness is not None:
                self._steepness.add(steepness, now_ns, unusual=soft)
            self._noise.add(noise, now_ns, unusual=usual_noise is not None and noise > 2.0 * usual_noise)
        return ImageContent(
            repeats,
            highlight,
            overexposed,
            ratio if lens or not soft else None,
            noise,
            noise / max(usual_noise, 0.5 / 255) if usual_noise is not None else None,
        )

    def _change(self, patch: np.ndarray) -> float:
        """Noise between this picture and the one before, in grey levels; a still scene without noise has none."""
        before, self._before = self._before, patch
        if before is None or before.shape != patch.shape:
            return 0.0
        return _median(np.abs(patch - before)) / (0.6745 * math.sqrt(2))


def _luminance(image: np.ndarray) -> np.ndarray:
    wide = image.astype(np.uint16)
    return ((77 * wide[..., 0] + 150 * wide[..., 1] + 29 * wide[..., 2]) >> 8).astype(np.int16)


def _middle(image: np.ndarray, side: int) -> np.ndarray:
    top, left = max(0, image.shape[0] - side) // 2, max(0, image.shape[1] - side) // 2
    return image[top : top + side, left : left + side]


def _median(values: np.ndarray) -> float:
    """Median of whole numbers at least 0, interpolated within the step that holds it."""
    counts = np.bincount(values.ravel())
    sums = np.cumsum(counts)
    at = int(np.searchsorted(sums, 0.5 * sums[-1]))
    return max(at - 0.5 + (0.5 * sums[-1] - (sums[at] - counts[at])) / counts[at], 0.0)


def _spatial_noise(patch: np.ndarray) -> float:
    """Standard deviation of the noise, in grey levels: Immerkaer 1996, with the median, which edges leave alone."""
    if min(patch.shape) < 3:
        return 0.0
    rows = patch[:-2] - 2 * patch[1:-1] + patch[2:]
    return _median(np.abs(rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:])) / (0.6745 * 6)


@dataclass(frozen=True, slots=True)
class AudioContent:
    """Measurements of one chunk (or of the last 50 ms, where chunks are shorter); levels are shares of full scale.

    ``clipped_s`` is how much of the last second is clipped chunks: words are clipped, the pauses between them are not.
    ``hum`` is the share of the energy of the last half second at harmonics of ``hum_hz``, 0 where its pauses lack them. ``floor_dbfs``,
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
        found = []
        if thresholds.clipped_above and self.clipped > thresholds.clipped_above:
            text = f"clipped: {self.clipped:.0%} of the samples at the limit"
            found.append(Complaint("clipped", text, averaged=self.clipped_s >= 0.2))
        silent, muted = self.level_dbfs < thresholds.silent_below_dbfs, self.fall_db > MUTED_FALL_DB
        if thresholds.silent_below_dbfs and (silent or muted):
            text = f"{self.level_dbfs:.0f} dBFS" if silent else f"pauses are {self.fall_db:.0f} dB quieter than usual"
            found.append(Complaint("silent", f"near-silent: {text}", averaged=muted))
        if thresholds.dc_above and abs(self.dc) > thresholds.dc_above:
            found.append(Complaint("dc", f"constant offset of {self.dc:+.0%} of full scale"))
        if thresholds.hum_above and self.hum > thresholds.hum_above:
            found.append(
                Complaint("hum", f"hum: {self.hum:.0%} of the energy at multiples of {self.hum_hz} Hz", averaged=True)
            )
        if (
            thresholds.noise_above_dbfs
            and self.floor_rise_db > NOISE_RISE_DB
            and self.floor_dbfs > thresholds.noise_above_dbfs
        ):
            found.append(
                Complaint(
                    "noisy",
                    f"noisy: never below {self.floor_dbfs:.0f} dBFS, {self.floor_rise_db:.0f} dB above the usual",
                    averaged=True,
                )
            )
        return found


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

        The mains hums on while nobody speaks: a voice that holds such a pitch stops before the quietest block has heard nothing else.
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
    """Of the spectrum of a window: taper, scale to mean squares, and for each mains the bins of its lines and of the first two.

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
