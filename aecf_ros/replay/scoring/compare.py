"""Compare two models on one recording with the same faults, prediction by prediction."""

from __future__ import annotations

import numpy as np

from aecf_ros.core.metrics.comparison import Comparison, ModelOutputs, compare
from aecf_ros.replay.scoring.score import Run, Scored

_TICK_S = 1e-6


def compare_runs(first: Run, second: Run) -> dict[str, Comparison]:
    """Comparison by subset of modalities, on settled predictions of both runs at the same time with the same
    modalities.

    Labeled spans are the clusters of the intervals. Both runs must be of the same recording, with its ground truth.
    """
    times = [np.round(run.log.column("at_s") / _TICK_S).astype(np.int64) for run in (first, second)]
    _, *rows = np.intersect1d(times[0], times[1], return_indices=True)
    a, b = (_Rows(Scored(run.log, run.truth), at) for run, at in zip((first, second), rows, strict=True))
    both = a.settled & b.settled & (a.subset == b.subset)
    assert first.truth is not None
    spans = np.searchsorted(np.array(first.truth.changes_s), a.at_s, side="right")
    comparisons = {}
    for name in first.manifest.subset_names:
        chosen = np.flatnonzero(both & (a.subset == name))
        comparisons[name] = compare(a.outputs.at(chosen), b.outputs.at(chosen), a.label[chosen], spans[chosen])
    return comparisons


class _Rows:
    """Some predictions of a scored log."""

    def __init__(self, scored: Scored, rows: np.ndarray) -> None:
        self.outputs = ModelOutputs(scored.log.column("probabilities")[rows], scored.log.column("members")[rows])
        self.at_s = scored.log.column("at_s")[rows]
        self.label, self.subset, self.settled = scored.label[rows], scored.subset[rows], scored.settled[rows]
