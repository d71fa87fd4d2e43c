"""Two models on the same recording with the same faults, prediction by prediction."""

from __future__ import annotations

import numpy as np

from aecf_ros.core.metrics.comparison import Comparison, ModelOutputs, compare
from aecf_ros.replay.scoring.score import Run, Scored

_TICK_S = 1e-6


def compare_runs(first: Run, second: Run) -> dict[str, Comparison]:
    """By subset, on the settled predictions that both made at the same moment with the same modalities; clusters are labelled spans.

    Both runs must be of the same recording, with its truth.
    """
    scored = [Scored(run.track, run.truth) for run in (first, second)]
    moments = [np.round(run.track.column("at_s") / _TICK_S).astype(np.int64) for run in (first, second)]
    _, *at = np.intersect1d(*moments, return_indices=True)
    one, other = (_Rows(of, rows) for of, rows in zip(scored, at, strict=True))
    both = one.settled & other.settled & (one.subset == other.subset)
    spans = np.searchsorted(np.array(first.truth.changes_s), one.at_s, side="right")
    found = {}
    for name in first.manifest.subset_names:
        rows = np.flatnonzero(both & (one.subset == name))
        found[name] = compare(one.said.at(rows), other.said.at(rows), one.label[rows], spans[rows])
    return found


class _Rows:
    """Some predictions of a scored track."""

    def __init__(self, scored: Scored, rows: np.ndarray) -> None:
        self.said = ModelOutputs(scored.track.column("probabilities")[rows], scored.track.column("members")[rows])
        self.at_s = scored.track.column("at_s")[rows]
        self.label, self.subset, self.settled = scored.label[rows], scored.subset[rows], scored.settled[rows]
