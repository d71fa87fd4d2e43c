"""The predictions of a run as arrays: some 130 bytes for each prediction of two modalities and ten classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aecf_ros.core.bundle import Manifest
from aecf_ros.core.types import Prediction

_FIRST_ROWS = 1024


@dataclass(frozen=True, slots=True)
class PublishedPrediction:
    """A prediction and the time of its publication.

    Attributes:
        at_s: time of publication in the recording.
        latency_s: from the stamp of the frame that caused the prediction to publication; ``None`` without a new frame.
    """

    at_s: float
    prediction: Prediction
    latency_s: float | None


class PredictionLog:
    """N predictions in the order of publication, with M modalities and C classes. It grows by :meth:`add`."""

    def __init__(self, manifest: Manifest) -> None:
        self.names: tuple[str, ...] = tuple(manifest.names)
        self.labels: tuple[str, ...] = tuple(manifest.labels)
        self._index = {label: i for i, label in enumerate(manifest.labels)}
        m, c = len(self.names), len(self.labels)
        self._rows = np.zeros(
            _FIRST_ROWS,
            np.dtype(
                [
                    ("at_s", "f8"),
                    ("latency_s", "f8"),
                    ("confidence", "f4"),
                    ("class_id", "i4"),
                    ("abstain", "?"),
                    ("agreement", "f4"),
                    ("probabilities", "f4", (c,)),
                    ("members", "?", (c,)),
                    ("states", "u1", (m,)),
                    ("used", "?", (m,)),
                    ("gate_weights", "f4", (m,)),
                    ("alone", "f4", (m,)),
                ]
            ),
        )
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, answer: PublishedPrediction) -> None:
        """Append a prediction."""
        if self._count == len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
        p, reports = answer.prediction, answer.prediction.modalities
        members = [False] * len(self.labels)
        for label in p.prediction_set:
            members[self._index[label]] = True
        self._rows[self._count] = (
            answer.at_s,
            np.nan if answer.latency_s is None else answer.latency_s,
            p.confidence,
            p.class_id,
            p.abstain,
            p.agreement,
            p.probabilities,
            members,
            [r.state for r in reports],
            [r.used for r in reports],
            [r.gate_weight for r in reports],
            [r.confidence for r in reports],
        )
        self._count += 1

    def column(self, name: str) -> np.ndarray:
        """View of one column.

        Columns ``(N,)``: at_s, latency_s (NaN without a new frame), confidence, class_id, abstain, agreement. ``(N,
        C)``:
        probabilities, members (of the prediction set). ``(N, M)``: states, used, gate_weights, alone (confidence of
        each modality).
        """
        return self._rows[name][: self._count]

    def subsets(self) -> np.ndarray:
        """object ``(N,)``: the name of the modalities that fed each prediction."""
        used = self.column("used").astype(np.int64)
        codes = used @ (1 << np.arange(len(self.names))) if len(used) else np.zeros(0, np.int64)
        names = [
            "+".join(n for i, n in enumerate(self.names) if code >> i & 1) or "none"
            for code in range(2 ** len(self.names))
        ]
        return np.array(names, dtype=object)[codes]


def as_prediction_log(answers: PredictionLog | Iterable[PublishedPrediction], manifest: Manifest) -> PredictionLog:
    """A log of the predictions; a log is returned as it is."""
    if isinstance(answers, PredictionLog):
        return answers
    log = PredictionLog(manifest)
    for answer in answers:
        log.add(answer)
    return log


def runs(
    times_s: Sequence[float] | np.ndarray, values: Sequence[object] | np.ndarray, end_s: float
) -> list[tuple[float, float, Any]]:
    """Spans of equal consecutive ``values`` (N,) at ``times_s`` (N,): (start, end, value); the last ends at
    ``end_s``.
    """
    if not len(values):
        return []
    values, times_s = np.asarray(values), np.asarray(times_s)
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    ends = [*(float(times_s[i]) for i in starts[1:]), end_s]
    return [(float(times_s[i]), end, values[i]) for i, end in zip(starts, ends, strict=True)]
