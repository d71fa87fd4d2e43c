"""From answers and truth to ``summary.json``."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from aecf_ros.core.bundle import Manifest
from aecf_ros.core.metrics import monotonicity_violations, subset_metrics
from aecf_ros.core.types import NANOSECONDS, Prediction
from aecf_ros.replay.faults import Fault
from aecf_ros.replay.truth import Truth


@dataclass(frozen=True, slots=True)
class Answer:
    """A published prediction and when.

    ``at_s`` is the time of publication in the recording. ``latency_s`` is from the stamp of the frame that made it due to
    publication, ``None`` where no new frame did.
    """

    at_s: float
    prediction: Prediction
    latency_s: float | None


def lead_image(manifest: Manifest) -> int | None:
    """Index of the first image modality: its frames pace the predictions. ``None`` where there is none."""
    return next((i for i, m in enumerate(manifest.modalities) if m.kind == "image"), None)


def answers_of(received: Sequence[tuple[Prediction, int]], start_ns: int, duration_s: float, manifest: Manifest) -> list[Answer]:
    """Answers from predictions and the node times of their publication.

    Those outside the recording are left out; those that a new frame made due have its latency.

    Args:
        start_ns: node time at which the recording started.
    """
    answers, last_frame_ns, lead = [], None, lead_image(manifest)
    for prediction, published_ns in received:
        latency_s = None
        frame_ns = None if lead is None else prediction.modalities[lead].evidence_stamp_ns
        if frame_ns is not None and frame_ns != last_frame_ns:
            latency_s, last_frame_ns = (published_ns - frame_ns) / NANOSECONDS, frame_ns
        at_s = (published_ns - start_ns) / NANOSECONDS
        if 0.0 <= at_s <= duration_s:
            answers.append(Answer(at_s, prediction, latency_s))
    return answers


def summarize(answers: Sequence[Answer], truth: Truth | None, faults: Sequence[Fault], manifest: Manifest, duration_s: float,
              realtime_factor: float) -> dict:
    """The summary of DESIGN.md, JSON-serializable.

    Args:
        answers: in the order of publication.
        truth: ``None`` where the recording has no labels; every METRICS is then ``{"n": 0}``.
        duration_s: length of the recording.
        realtime_factor: seconds of recording for each second of run time.
    """
    scored = _Scored(answers, truth, manifest)
    latencies_ms = np.array([a.latency_s for a in answers if a.latency_s is not None]) * 1e3
    return {
        "model": manifest.name,
        "samples": int(scored.settled.sum()),
        "overall": scored.metrics(scored.settled),
        "subsets": {name: scored.metrics(scored.settled & (scored.subset == name)) for name in manifest.subset_names},
        "settling": scored.metrics(scored.settling),
        "nothing_shown": scored.nothing(),
        "monotonicity": monotonicity_violations(_confidence_pairs(answers)),
        "streams": {name: {
            "seconds_in_state": _seconds_in_state(answers, i, duration_s),
            "faults": [_fault_delays(f, answers, i, duration_s) for f in faults if f.stream == name],
        } for i, name in enumerate(manifest.names)},
        "latency_ms": {
            "p50": _quantile(latencies_ms, 0.5), "p99": _quantile(latencies_ms, 0.99), "max": _quantile(latencies_ms, 1.0)},
        "predictions": len(answers),
        "longest_gap_s": float(np.diff([0.0, *(a.at_s for a in answers)], append=duration_s).max()),
        "realtime_factor": realtime_factor,
    }


class _Scored:
    """Answers as arrays beside their truth; N answers."""

    def __init__(self, answers: Sequence[Answer], truth: Truth | None, manifest: Manifest) -> None:
        n, classes = len(answers), len(manifest.labels)
        self.probabilities = np.zeros((n, classes))
        self.members = np.zeros((n, classes), bool)
        self.label = np.full(n, -1)
        self.settling = np.zeros(n, bool)
        self.subset = np.array([a.prediction.subset for a in answers], dtype=object)
        self.abstain = np.array([a.prediction.abstain for a in answers], dtype=bool)
        index = {label: i for i, label in enumerate(manifest.labels)}
        in_settling = np.zeros(n, bool)
        for i, answer in enumerate(answers):
            self.probabilities[i] = answer.prediction.probabilities
            self.members[i, [index[label] for label in answer.prediction.prediction_set]] = True
            known, in_settling[i] = truth.at(answer.at_s) if truth is not None else (None, False)
            self.label[i] = -1 if known is None else known
        self.settled = (self.label >= 0) & ~in_settling
        self.settling = (self.label >= 0) & in_settling
        self._nothing = (self.label < 0) & ~in_settling & (self.subset != "none") if truth is not None else np.zeros(n, bool)

    def metrics(self, mask: np.ndarray) -> dict:
        return subset_metrics(self.probabilities[mask], self.label[mask], self.members[mask])

    def nothing(self) -> dict:
        """How sure the model is while there is nothing to see or hear."""
        n = int(self._nothing.sum())
        if n == 0:
            return {"n": 0}
        return {"n": n, "mean_confidence": float(self.probabilities[self._nothing].max(1).mean()),
                "abstained": float(self.abstain[self._nothing].mean())}


def _confidence_pairs(answers: Iterable[Answer]) -> list[tuple[float, float]]:
    """Confidence of each modality alone beside that of all, where at least two fed the prediction."""
    pairs = []
    for answer in answers:
        alone = [m.confidence for m in answer.prediction.modalities if m.used]
        if len(alone) > 1:
            pairs += [(confidence, answer.prediction.confidence) for confidence in alone]
    return pairs


def _quantile(values: np.ndarray, q: float) -> float:
    return float(np.quantile(values, q)) if len(values) else 0.0


def _seconds_in_state(answers: Sequence[Answer], modality: int, duration_s: float) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for i, answer in enumerate(answers):
        end_s = answers[i + 1].at_s if i + 1 < len(answers) else duration_s
        state = answer.prediction.modalities[modality].state.name
        seconds[state] = seconds.get(state, 0.0) + max(0.0, end_s - max(answer.at_s, 0.0))
    return {state: round(s, 3) for state, s in seconds.items()}


def _fault_delays(fault: Fault, answers: Sequence[Answer], modality: int, duration_s: float) -> dict:
    """When a fault showed in the published state, and when the state was good again; ``None`` where it never was."""

    def first(after_s: float, before_s: float, feeding: bool) -> float | None:
        for answer in answers:
            if after_s <= answer.at_s < before_s and answer.prediction.modalities[modality].state.feeds_fusion is feeding:
                return round(answer.at_s - after_s, 4)
        return None

    return {"kind": fault.kind, "start_s": fault.start_s, "end_s": fault.end_s,
            "detected_after_s": first(fault.start_s, fault.end_s, feeding=False),
            "recovered_after_s": first(fault.end_s, duration_s, feeding=True)}
