"""Whether what is live still looks like what the model was trained on. Pure: the time is always an argument.

Two things of each modality are compared with the calibration part, which the bundle brings along: how far its embeddings lie from
training, and how sure it is alone of what it recognizes at all. The second sees more: an embedding that a classifier made lies near some
class whatever it is of. Of neighboring frames at most one in a second counts, and of those so many as their autocorrelation leaves
independent. Drift is called where a binomial test leaves no doubt that the share beyond a percentile is more than a tolerated one.
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
"""Confidence of a modality alone from which on it says something: an empty scene and silence are not unlike training."""
FAR, UNSURE = 0.95, 0.25
"""Quantiles of training beyond which a distance, and below which a confidence, counts."""
TOLERATED_FAR, TOLERATED_UNSURE = 0.2, 0.35
"""Shares that are not yet drift. A sound window is less sure around every change: a third of the time lies below the quartile where words change every two seconds."""
DOUBT, DOUBT_TO_END = 1e-6, 1e-3
"""Chance under the tolerated share below which drift is called, and above which it is over. A test each second makes 10^5 a day, few of them
independent of each other."""
LEAST_SHARE_OF_WINDOW = 0.5
"""Of the window that must have samples: a lens that is wiped after ten seconds is no drift."""
EMBEDDINGS, CONFIDENCE = "embeddings", "confidence"


@dataclass(frozen=True, slots=True)
class Drift:
    """One comparison over the window: ``share`` of ``samples``, one a second, of a modality's embeddings or confidence lies beyond the percentile."""

    modality: str
    what: str
    samples: int
    share: float
    called: bool

    def line(self) -> str:
        """What to tell a person where it is called."""
        beyond = (
            f"beyond the {FAR * 100:.0f}th"
            if self.what == EMBEDDINGS
            else f"of what it recognizes below the {UNSURE * 100:.0f}th"
        )
        return f"{self.modality} {self.what} unlike training: {self.share:.0%} {beyond} percentile over {self.samples} s; refit with `aecf calibrate` or retrain"


class DriftWatch:
    """Compares predictions with a reference over a sliding window. Memory is fixed: two numbers for each second and modality. Not thread-safe.

    Args:
        reference: what the bundle says of training; ``None`` watches nothing.
        names: modalities in the order of the presence mask.
        window_s: length of the window; 0 watches nothing.
    """

    def __init__(self, reference: DriftReference | None, names: Sequence[str], window_s: float) -> None:
        self._names = tuple(names)
        self._reference = reference
        if reference is not None:
            self._far = [_at(reference, reference.distances[name], FAR) for name in names]
            self._unsure = [_at(reference, reference.confidence[name], UNSURE) for name in names]
        self.window_s = window_s
        self.clear()

    def clear(self) -> None:
        """Forget everything, as after a jump of time."""
        watched = self._names if self._reference is not None else ()
        self._series = [(_Series(TOLERATED_FAR), _Series(TOLERATED_UNSURE)) for _ in watched]
        self._next_ns: int | None = None

    def due(self, now_ns: int) -> bool:
        """Whether a prediction made now would count: one a second does."""
        return bool(self._series) and self.window_s > 0 and (self._next_ns is None or now_ns >= self._next_ns)

    def take(self, now_ns: int, used: Sequence[bool], distances: np.ndarray, alone: np.ndarray) -> None:
        """Count one prediction, if one is due and anything fed it. What is found is judged by :meth:`findings`.

        Args:
            now_ns: steady time, not before that of the last call.
            used: which modalities fed it.
            distances: float ``(M,)``, as the head gives them; of those not used they may be anything.
            alone: float ``(M,)``, the confidence of each modality alone.
        """
        if not (any(used) and self.due(now_ns)):
            return
        self._next_ns = now_ns + SAMPLE_NS
        for m, (embeddings, confidence) in enumerate(self._series):
            if used[m]:
                embeddings.take(now_ns, not distances[m] <= self._far[m], self.window_s)  # NaN counts as far
                if alone[m] >= RECOGNIZED:
                    confidence.take(now_ns, bool(alone[m] < self._unsure[m]), self.window_s)

    def findings(self, now_ns: int) -> tuple[Drift, ...]:
        """Every comparison that has samples within the window that ends now, in the order of the modalities."""
        if not self.window_s:
            return ()
        found = []
        for name, pair in zip(self._names, self._series, strict=False):  # none without a reference
            for what, series in zip((EMBEDDINGS, CONFIDENCE), pair, strict=True):
                series.judge(now_ns, self.window_s)
                if series.count:
                    found.append(Drift(name, what, series.count, series.share, series.called))
        return tuple(found)


def warning(findings: Sequence[Drift]) -> str:
    """Lines of what is called, joined; empty where nothing is."""
    return "; ".join(drift.line() for drift in findings if drift.called)


def values(findings: Sequence[Drift]) -> Mapping[str, str]:
    """For diagnostics: the share of each comparison in percent, and of how many samples."""
    return {f"drift {d.modality} {d.what} (% of {d.samples} samples)": f"{100 * d.share:.0f}" for d in findings}


class _Series:
    """Whether each second's sample lay beyond."""

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

    def take(self, now_ns: int, beyond: bool, window_s: float) -> None:
        self._samples.append((now_ns, beyond))
        self._changed = True
        self._forget(now_ns, window_s)

    def _forget(self, now_ns: int, window_s: float) -> None:
        while self._samples and now_ns - self._samples[0][0] >= window_s * NANOSECONDS:
            self._samples.popleft()
            self._changed = True

    def judge(self, now_ns: int, window_s: float) -> None:
        """Drop what is older than the window, and test what is left, where anything changed."""
        self._forget(now_ns, window_s)
        if not self._changed:
            return
        self._changed = False
        if self.count < LEAST_SHARE_OF_WINDOW * window_s * NANOSECONDS / SAMPLE_NS:
            self.called = False
            return
        flags = np.array([beyond for _, beyond in self._samples], np.float64)
        chance = upper_tail(self.share, independent(flags), self._tolerated)
        self.called = chance < (DOUBT_TO_END if self.called else DOUBT)


def independent(flags: np.ndarray) -> int:
    """How many of float ``(N,)`` samples are independent, by their autocorrelation at one step (Bayley and Hammersley 1946, of a first-order process).

    >>> independent(np.array([0.0, 1.0] * 30)), independent(np.repeat([0.0, 1.0], 30))
    (60, 2)
    """
    deviation = flags - flags.mean()
    spread = float(deviation @ deviation)
    rho = max(0.0, float(deviation[1:] @ deviation[:-1]) / spread) if spread else 0.0
    return max(1, round(len(flags) * (1 - rho) / (1 + rho)))


def upper_tail(share: float, samples: int, tolerated: float) -> float:
    """Chance of a share of at least ``share`` in so many independent samples, each beyond with probability ``tolerated``: the binomial tail.

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


def _at(reference: DriftReference, of: Sequence[float], level: float) -> float:
    return float(np.interp(level, reference.levels, of))
