"""Detect drift: live data that no longer looks like the training data.

Two measurements of each modality are compared with those of the calibration data, which the bundle holds: the distance
of its embeddings to training, and its confidence alone when it recognizes something. Confidence shows more, because a
classifier puts any embedding near some class. At most one prediction a second counts, and the number of samples is
reduced by their autocorrelation. Drift is called if a binomial test shows that the share of samples beyond a percentile
is above the tolerated share.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aecf_ros.core.bundle import DriftReference
from aecf_ros.core.types import NANOSECONDS

SAMPLE_NS = NANOSECONDS
"""At most one prediction a second counts."""
RECOGNIZED = 0.5
"""Confidence of a modality alone from which it counts: an empty scene or silence is not drift."""
FAR, UNSURE = 0.95, 0.25
"""Quantiles of the calibration data: distances above the first and confidences below the second count."""
TOLERATED_FAR, TOLERATED_UNSURE = 0.2, 0.35
"""Shares that are not drift. Audio is less sure around each change: with a word every two seconds a third of the time
lies below the quartile."""
CALL_BELOW, END_ABOVE = 1e-6, 1e-3
"""p-values below which drift is called and above which it ends. A test each second makes 10^5 a day, few of them
independent."""
MIN_WINDOW_SHARE = 0.5
"""Share of the window that must have samples: a lens that is wiped after ten seconds is not drift."""
EMBEDDINGS, CONFIDENCE = "embeddings", "confidence"


@dataclass(frozen=True, slots=True)
class Drift:
    """One comparison over the window: the ``share`` of ``samples``, one a second, beyond the percentile.

    ``what`` is ``embeddings`` or ``confidence`` of the modality.
    """

    modality: str
    what: str
    samples: int
    share: float
    called: bool

    def line(self) -> str:
        """Warning for a person, if drift is called."""
        beyond = (
            f"beyond the {FAR * 100:.0f}th"
            if self.what == EMBEDDINGS
            else f"of what it recognizes below the {UNSURE * 100:.0f}th"
        )
        return (
            f"{self.modality} {self.what} unlike training: {self.share:.0%} {beyond} percentile over {self.samples} s; "
            "refit with `aecf calibrate` or retrain"
        )


class DriftMonitor:
    """Compares predictions with a reference over a sliding window. Not thread-safe.

    Memory is bounded: two flags for each second and modality.

    Args:
        reference: distribution of the calibration data, from the bundle; ``None`` switches monitoring off.
        names: modalities in the order of the presence mask.
        window_s: length of the window; 0 switches monitoring off.
    """

    def __init__(self, reference: DriftReference | None, names: Sequence[str], window_s: float) -> None:
        self._names = tuple(names)
        self._reference = reference
        if reference is not None:
            self._far = [_quantile(reference, reference.distances[name], FAR) for name in names]
            self._unsure = [_quantile(reference, reference.confidence[name], UNSURE) for name in names]
        self.window_s = window_s
        self.clear()

    def clear(self) -> None:
        """Forget all samples, as after a jump in time."""
        monitored = self._names if self._reference is not None else ()
        self._series = [(_Series(TOLERATED_FAR), _Series(TOLERATED_UNSURE)) for _ in monitored]
        self._next_ns: int | None = None

    def wants_sample(self, now_ns: int) -> bool:
        """Whether a prediction made now would count: at most one a second does."""
        return bool(self._series) and self.window_s > 0 and (self._next_ns is None or now_ns >= self._next_ns)

    def add(self, now_ns: int, used: Sequence[bool], distances: np.ndarray, alone: np.ndarray) -> None:
        """Add one prediction, if one is wanted and any modality was used.

        Args:
            now_ns: steady time, not before that of the last call.
            used: which modalities were used.
            distances: float ``(M,)``, from the head; those of unused modalities are ignored.
            alone: float ``(M,)``, the confidence of each modality alone.
        """
        if not (any(used) and self.wants_sample(now_ns)):
            return
        self._next_ns = now_ns + SAMPLE_NS
        for m, (embeddings, confidence) in enumerate(self._series):
            if used[m]:
                embeddings.add(now_ns, not distances[m] <= self._far[m], self.window_s)  # NaN counts as far
                if alone[m] >= RECOGNIZED:
                    confidence.add(now_ns, bool(alone[m] < self._unsure[m]), self.window_s)

    def findings(self, now_ns: int) -> tuple[Drift, ...]:
        """Every comparison with samples in the window that ends now, in the order of the modalities."""
        if not self.window_s:
            return ()
        comparisons = []
        for name, pair in zip(self._names, self._series, strict=False):  # no series without a reference
            for what, series in zip((EMBEDDINGS, CONFIDENCE), pair, strict=True):
                series.judge(now_ns, self.window_s)
                if series.count:
                    comparisons.append(Drift(name, what, series.count, series.share, series.called))
        return tuple(comparisons)


def warning(findings: Sequence[Drift]) -> str:
    """Warnings of the drift that is called, joined; empty if there is none."""
    return "; ".join(drift.line() for drift in findings if drift.called)


def values(findings: Sequence[Drift]) -> Mapping[str, str]:
    """Diagnostics values: the share of each comparison in percent, and the number of samples."""
    return {f"drift {d.modality} {d.what} (% of {d.samples} samples)": f"{100 * d.share:.0f}" for d in findings}


class _Series:
    """Whether each sample lay beyond the percentile, and the test of their share."""

    def __init__(self, tolerated: float) -> None:
        self._tolerated = tolerated
        self._samples: deque[tuple[int, bool]] = deque()
        self._changed = False
        self.called = False

    @property
    def count(self) -> int:
        return len(self._samples)

    @property
    def share(self) -> float:
        return sum(beyond for _, beyond in self._samples) / len(self._samples)

    def add(self, now_ns: int, beyond: bool, window_s: float) -> None:
        self._samples.append((now_ns, beyond))
        self._changed = True
        self._forget(now_ns, window_s)

    def _forget(self, now_ns: int, window_s: float) -> None:
        while self._samples and now_ns - self._samples[0][0] >= window_s * NANOSECONDS:
            self._samples.popleft()
            self._changed = True

    def judge(self, now_ns: int, window_s: float) -> None:
        """Drop samples older than the window, and test the others if any changed."""
        self._forget(now_ns, window_s)
        if not self._changed:
            return
        self._changed = False
        if self.count < MIN_WINDOW_SHARE * window_s * NANOSECONDS / SAMPLE_NS:
            self.called = False
            return
        flags = np.array([beyond for _, beyond in self._samples], np.float64)
        p_value = upper_tail(self.share, independent(flags), self._tolerated)
        self.called = p_value < (END_ABOVE if self.called else CALL_BELOW)


def independent(flags: np.ndarray) -> int:
    """Effective number of independent samples among float ``(N,)``, from their lag-1 autocorrelation.

    That of a first-order autoregressive process (Bayley and Hammersley 1946).

    >>> independent(np.array([0.0, 1.0] * 30)), independent(np.repeat([0.0, 1.0], 30))
    (60, 2)
    """
    deviation = flags - flags.mean()
    total = float(deviation @ deviation)
    rho = max(0.0, float(deviation[1:] @ deviation[:-1]) / total) if total else 0.0
    return max(1, round(len(flags) * (1 - rho) / (1 + rho)))


def upper_tail(share: float, samples: int, tolerated: float) -> float:
    """Binomial tail: probability of a share of at least ``share`` in ``samples``, each with probability ``tolerated``.

    >>> round(upper_tail(0.5, 10, 0.5), 4)
    0.623
    """
    least = math.floor(share * samples + 1e-9)
    return sum(
        math.exp(
            math.lgamma(samples + 1)
            - math.lgamma(k + 1)
            - math.lgamma(samples - k + 1)
            + k * math.log(tolerated)
            + (samples - k) * math.log1p(-tolerated)
        )
        for k in range(least, samples + 1)
    )


def _quantile(reference: DriftReference, values_at_levels: Sequence[float], level: float) -> float:
    return float(np.interp(level, reference.levels, values_at_levels))
