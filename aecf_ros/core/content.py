"""What the content of a stream says about the sensor: repeating, dark, blurred, clipped, silent, humming.

A watch measures, cheaply and as messages come; the measurement says what it repeats and what there is to complain about
at given thresholds; ``StreamMonitor`` decides how long that must last. Memory is fixed.
"""
from __future__ import annotations

import math
import zlib
from collections import Counter, deque
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from aecf_ros.core.thresholds import StreamThresholds
from aecf_ros.core.types import NANOSECONDS

DIGEST_BYTES = 65_536
REMEMBERED_CHUNKS = 256


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


class SlowAverage:
    """A stream's own normal: the mean of the first seconds, then an average over the last ``memory_s``."""

    def __init__(self, settle_s: float = 3.0, memory_s: float = 30.0) -> None:
        self._settle_s, self._memory_s = settle_s, memory_s
        self._value, self._age_s = 0.0, 0.0
        self._last_ns: int | None = None

    @property
    def value(self) -> float | None:
        """The average, ``None`` while there is too little to go by."""
        return self._value if self._age_s >= self._settle_s else None

    def add(self, value: float, now_ns: int, unusual: bool) -> None:
        """Add a measurement at steady time ``now_ns``; one that is ``unusual`` counts for a twentieth."""
        step_s = 0.0 if self._last_ns is None else min((now_ns - self._last_ns) / NANOSECONDS, 0.5)
        self._last_ns = now_ns
        share = step_s / min(self._age_s + step_s, self._memory_s) if step_s > 0 else float(self._age_s == 0)
        self._value += share * (0.05 if unusual else 1.0) * (value - self._value)
        self._age_s += step_s


@dataclass(frozen=True, slots=True)
class ImageContent:
    """Measurements of one picture at encoder size; levels are shares of full scale.

    Ratios are to the stream's own average, ``None`` while there is too little to go by. ``highlight`` is the luminance that 2 % of the pixels exceed.
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
        self._sharpness = SlowAverage(), SlowAverage()
        self._noise = SlowAverage()

    def look(self, data: np.ndarray, compressed: bool, image: np.ndarray, now_ns: int) -> ImageContent:
        """Measure one frame.

        Args:
            data: the message's bytes, flat uint8.
            compressed: whether they are a JPEG or PNG; then all of them are compared with the frame before.
            image: the decoded picture at encoder size, uint8 ``(H, W, 3)`` RGB.
            now_ns: steady time.
        """
        mark = digest(data, compressed)
        repeats = "the same picture" if mark == self._digest else ""
        self._digest = mark
        patch = _luminance(_middle(image, self._PATCH))  # (h, w) int16
        stride = math.ceil(max(image.shape[:2]) / self._PATCH)
        spread = patch if stride == 1 else _luminance(image[::stride, ::stride])
        levels = np.cumsum(np.bincount(spread.ravel(), minlength=256))
        total = levels[-1]
        highlight = int(np.searchsorted(levels, 0.98 * total)) / 255
        overexposed = 1.0 - float(levels[249]) / total
        sharpness = _sharpness(patch)
        ratio = max((s / max(usual.value, 1e-6) for s, usual in zip(sharpness, self._sharpness, strict=True)
                     if usual.value is not None), default=None)
        noise = min(_spatial_noise(patch), self._change(patch)) / 255
        usual_noise = self._noise.value
        if not repeats and 0.05 < highlight and overexposed < 0.5:
            for s, usual in zip(sharpness, self._sharpness, strict=True):
                usual.add(s, now_ns, unusual=ratio is not None and ratio < 0.6)
            self._noise.add(noise, now_ns, unusual=usual_noise is not None and noise > 2.0 * usual_noise)
        return ImageContent(
            repeats, highlight, overexposed, ratio, noise,
            noise / max(usual_noise, 0.5 / 255) if usual_noise is not None else None)

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
    return image[top:top + side, left:left + side]


def _quantiles(values: np.ndarray, shares: tuple[float, ...]) -> list[int]:
    """Quantiles of whole numbers at least 0."""
    sums = np.cumsum(np.bincount(values.ravel()))
    return [int(at) for at in np.searchsorted(sums, np.multiply(shares, sums[-1]))]


def _median(values: np.ndarray) -> float:
    """Median of whole numbers at least 0, interpolated within the step that holds it."""
    counts = np.bincount(values.ravel())
    sums = np.cumsum(counts)
    at = int(np.searchsorted(sums, 0.5 * sums[-1]))
    return max(at - 0.5 + (0.5 * sums[-1] - (sums[at] - counts[at])) / counts[at], 0.0)


def _sharpness(patch: np.ndarray) -> tuple[float, float]:
    """How sharp a picture is, whatever its contrast: all over, and where it is sharpest.

    Mean absolute Laplacian over the standard deviation of luminance falls where a scene has fewer edges; its largest
    values over the range of luminance hold with a single edge, but vary more. Blur lowers both.
    """
    if min(patch.shape) < 3:
        return 0.0, 0.0
    laplacian = 4 * patch[1:-1, 1:-1] - patch[:-2, 1:-1] - patch[2:, 1:-1] - patch[1:-1, :-2] - patch[1:-1, 2:]
    strength = np.abs(laplacian)
    low, high = _quantiles(patch, (0.005, 0.995))
    return float(strength.mean()) / max(float(patch.std()), 1.0), _quantiles(strength, (0.995,))[0] / max(high - low, 1)


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
    ``hum`` is the share of the energy of the last half second at harmonics of ``hum_hz``, ``floor_dbfs`` the level of
    its quietest 50 ms, ``floor_rise_db`` how far that is above the stream's own average where it is broadband noise,
    else 0.
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

    def complaints(self, thresholds: StreamThresholds) -> list[Complaint]:
        """Clipped, near-silent, DC, hum, noisy."""
        found = []
        if thresholds.clipped_above and self.clipped > thresholds.clipped_above:
            text = f"clipped: {self.clipped:.0%} of the samples at the limit"
            found.append(Complaint("clipped", text, averaged=self.clipped_s >= 0.2))
        if thresholds.silent_below_dbfs and self.level_dbfs < thresholds.silent_below_dbfs:
            found.append(Complaint("silent", f"near-silent: {self.level_dbfs:.0f} dBFS"))
        if thresholds.dc_above and abs(self.dc) > thresholds.dc_above:
            found.append(Complaint("dc", f"constant offset of {self.dc:+.0%} of full scale"))
        if thresholds.hum_above and self.hum > thresholds.hum_above:
            found.append(Complaint("hum", f"hum: {self.hum:.0%} of the energy at multiples of {self.hum_hz} Hz"))
        if thresholds.noise_above_dbfs and self.floor_rise_db > 12 and self.floor_dbfs > thresholds.noise_above_dbfs:
            found.append(Complaint("noisy", f"noisy: never below {self.floor_dbfs:.0f} dBFS, "
                                            f"{self.floor_rise_db:.0f} dB above the usual", averaged=True))
        return found


class AudioWatch:
    """Measures the chunks of one microphone; spectra at most ten times a second. Not thread-safe."""

    _WINDOW_S, _EVERY_S, _SHORT_S = 0.5, 0.1, 0.05
    _HUM_MIN_DBFS = -50.0

    def __init__(self) -> None:
        self._seen: Counter[int] = Counter()
        self._order: deque[int] = deque()
        self._rate_hz = 0
        self._window = np.zeros(0, np.float32)
        self._heard = 0
        self._since_spectrum = 0
        self._spectrum = (0.0, 50, -math.inf, 0.0)
        self._floor = SlowAverage(settle_s=2.0)
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
        if self._heard >= len(self._window) and self._since_spectrum >= self._EVERY_S * rate_hz:
            self._since_spectrum = 0
            self._spectrum = (*self._find_hum(), *self._find_floor(now_ns))
        newest = max(len(samples), round(self._SHORT_S * rate_hz))
        recent = self._window[-min(newest, self._heard, len(self._window)):]
        mean = float(recent.mean())
        power = float(np.dot(recent, recent)) / len(recent)
        clipped = _clipped(recent)
        return AudioContent(repeats, _dbfs(power - mean * mean), clipped,
                            self._clipped_s(clipped, len(samples) / rate_hz, now_ns), mean, *self._spectrum)

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
            return "the same value in every sample"
        return "sound that was heard before" if looped else ""

    def _append(self, samples: np.ndarray, rate_hz: int) -> None:
        if rate_hz != self._rate_hz:
            self._rate_hz, self._heard, self._since_spectrum = rate_hz, 0, 0
            self._window = np.zeros(max(1, round(self._WINDOW_S * rate_hz)), np.float32)
        size = len(self._window)
        count = min(len(samples), size)
        self._window[:size - count] = self._window[count:]
        self._window[size - count:] = samples[len(samples) - count:]
        self._heard = min(size, self._heard + count)
        self._since_spectrum += len(samples)

    def _find_hum(self) -> tuple[float, int]:
        """(share of energy at harmonics of the mains, 50 or 60) over the window; 0 where there is next to no sound."""
        factor = max(1, self._rate_hz // 2000)
        usable = len(self._window) // factor * factor
        slow = self._window[:usable].reshape(-1, factor).mean(axis=1)
        energy = float(np.var(self._window))
        if _dbfs(energy) < self._HUM_MIN_DBFS or len(slow) < 64:
            return 0.0, 50
        taper = np.hanning(len(slow))
        power = np.abs(np.fft.rfft((slow - slow.mean()) * taper)) ** 2
        power *= 2.0 / (len(slow) * float(np.dot(taper, taper)))  # mean square of each band
        hz = np.fft.rfftfreq(len(slow), factor / self._rate_hz)
        shares = {}
        for mains in (50, 60):
            near = np.abs(hz - mains * np.round(hz / mains)) <= 4.0
            lines = power[near & (hz > 30) & (hz < 6.5 * mains)].sum()
            # A voice has its energy above 80 Hz and may well sing a multiple; the mains has it at the first two lines.
            first = power[near & (hz > 30) & (hz < 2.5 * mains)].sum()
            shares[mains] = float(lines) / energy if first > 0.5 * lines else 0.0
        mains = max(shares, key=shares.__getitem__)
        return min(shares[mains], 1.0), mains

    def _find_floor(self, now_ns: int) -> tuple[float, float]:
        """(level of the quietest block in dBFS, its rise over the average in dB if it is broadband, else 0)."""
        size = max(1, round(self._SHORT_S * self._rate_hz))
        blocks = self._window[:len(self._window) // size * size].reshape(-1, size)
        blocks = blocks - blocks.mean(axis=1, keepdims=True)
        quietest = blocks[int(np.einsum("ij,ij->i", blocks, blocks).argmin())]
        floor_dbfs = max(_dbfs(float(np.dot(quietest, quietest)) / size), -120.0)
        usual_dbfs = self._floor.value
        rise_db = 0.0 if usual_dbfs is None else floor_dbfs - usual_dbfs
        self._floor.add(floor_dbfs, now_ns, unusual=rise_db > 6)
        return floor_dbfs, rise_db if rise_db > 6 and _flatness(quietest) > 0.5 else 0.0


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


def _flatness(samples: np.ndarray) -> float:
    """Geometric over arithmetic mean of 24 bands from 3 % to 90 % of the bandwidth: 1 for noise, 0 for tones."""
    power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2
    inner = power[max(2, round(0.03 * len(power))):round(0.9 * len(power))]
    if len(inner) < 24:
        return 0.0
    bands = inner[:len(inner) // 24 * 24].reshape(24, -1).mean(axis=1) + 1e-20
    return float(np.exp(np.log(bands).mean()) / bands.mean())
