"""Thresholds of the health of a stream, as one validated record."""

from __future__ import annotations

from dataclasses import dataclass, fields

from aecf_ros.core.types import NANOSECONDS


@dataclass(frozen=True, slots=True)
class StreamThresholds:
    """Limits of one stream, of which image streams and audio streams each use their part.

    The defaults hold for cameras of 5 to 60 Hz and chunks of 10 to 500 ms, because silence is also given some periods
    of the stream as it was learned. 0 switches a check off, apart from the silences and the counts of samples.
    """

    stale_after_s: float = 0.35
    """Silence that makes the stream STALE; five learned periods where that is longer."""
    dropped_after_s: float = 1.0
    """Silence that makes it DROPPED; ten learned periods where that is longer."""
    recover_samples: int = 3
    """Good samples in a row that end a fault."""
    reject_after: int = 3
    """Undecodable messages in a row that make it REJECTED: one broken frame in a hundred costs no camera."""
    late_after_s: float = 0.5
    """Age of the newest data at arrival that is LATE, three samples in a row."""
    too_old_after_s: float = 1.0
    """Age of the newest data at arrival above which it is LATE and not used: the scene may have changed."""
    future_tolerance_s: float = 0.2
    """How far in the future a stamp may be; clocks that NTP synchronizes differ by much less."""
    frozen_after_s: float = 0.5
    """How long content may repeat; no noisy sensor repeats a frame even once."""
    degraded_after_s: float = 0.4
    """How long a fault of the content must last: a hand before the lens or a slammed door does not count."""
    min_rate_ratio: float = 0.7
    """Arrival rate, as a share of the learned one, below which the stream is slow."""
    max_lost: float = 0.25
    """Packet loss, by the stamps, that is reported within about 40 messages; half of it within hundreds."""
    max_jitter: float = 0.6
    """Mean change of transit time from one message to the next (RFC 3550), in periods; 20 ms are always allowed."""
    dark_below: float = 0.12
    """A picture whose brightest 2 % do not reach this share of full scale is dark; a dim room with a lamp is not."""
    overexposed_above: float = 0.6
    """Share of pixels at full scale (250 of 255 or more)."""
    blur_below: float = 0.55
    """Steepness of the edges as a share of the stream's own average over the last half minute."""
    noisy_above: float = 0.012
    """Image noise at encoder size, as a share of full scale, if it is also three times its own average."""
    clipped_above: float = 0.02
    """Share of samples at the limit; speech recorded with headroom has none."""
    silent_below_dbfs: float = -75.0
    """Level of near-silence; the noise floor of a working microphone is 10 to 40 dB above. Pauses 18 dB quieter than
    usual count as near-silent too; 0 switches off both."""
    dc_above: float = 0.05
    """Constant offset, as a share of full scale."""
    hum_above: float = 0.5
    """Share of the energy at harmonics of 50 or 60 Hz."""
    noise_above_dbfs: float = -40.0
    """Level of steady noise over the last 0.8 s in most bands, if it is also 3 dB above the usual level."""

    def __post_init__(self) -> None:
        if not 0 < self.stale_after_s <= self.dropped_after_s:
            raise ValueError(
                f"stale_after_s {self.stale_after_s} and dropped_after_s {self.dropped_after_s}: "
                "need 0 < stale_after_s <= dropped_after_s"
            )
        if self.recover_samples < 1 or self.reject_after < 1:
            raise ValueError(
                f"recover_samples {self.recover_samples} and reject_after {self.reject_after} must be at least 1"
            )
        for name in (
            "late_after_s",
            "too_old_after_s",
            "future_tolerance_s",
            "frozen_after_s",
            "degraded_after_s",
            "max_jitter",
        ):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 0")
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)} must be from 0 to 1")
        for name in ("silent_below_dbfs", "noise_above_dbfs"):
            if not getattr(self, name) <= 0:
                raise ValueError(f"{name} {getattr(self, name)} must be at most 0, which is full scale")

    @property
    def stale_after_ns(self) -> int:
        """``stale_after_s`` in whole nanoseconds, so that the state changes exactly when it was announced."""
        return round(self.stale_after_s * NANOSECONDS)

    @property
    def dropped_after_ns(self) -> int:
        """``dropped_after_s`` in whole nanoseconds."""
        return round(self.dropped_after_s * NANOSECONDS)


_SHARES = (
    "min_rate_ratio",
    "max_lost",
    "dark_below",
    "overexposed_above",
    "blur_below",
    "noisy_above",
    "clipped_above",
    "dc_above",
    "hum_above",
)

THRESHOLD_NAMES = tuple(f.name for f in fields(StreamThresholds))
