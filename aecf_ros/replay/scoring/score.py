"""Score predictions against the ground truth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from aecf_ros.core.bundle import Manifest
from aecf_ros.core.metrics.classification import monotonicity_violations, subset_metrics
from aecf_ros.core.metrics.multilabel import multilabel_metrics
from aecf_ros.core.types import NANOSECONDS, Prediction, StreamState
from aecf_ros.replay.faults.schedule import Fault
from aecf_ros.replay.scoring.ground_truth import GroundTruth
from aecf_ros.replay.scoring.prediction_log import PredictionLog, PublishedPrediction, as_prediction_log, runs
from aecf_ros.replay.scoring.summary import FaultSummary, LatencySummary, Metrics, StreamSummary, Summary


def lead_image(manifest: Manifest) -> int | None:
    """Index of the first image modality: its frames pace the predictions. ``None`` where there is none."""
    return None if manifest.lead_camera is None else manifest.names.index(manifest.lead_camera)


def published_predictions(
    received: Sequence[tuple[Prediction, int]], start_ns: int, duration_s: float, manifest: Manifest
) -> list[PublishedPrediction]:
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
            answers.append(PublishedPrediction(at_s, prediction, latency_s))
    return answers


@dataclass(frozen=True, slots=True)
class Run:
    """One recording evaluated: its summary, the log behind it, the truth it was scored against, and the schedule of
    its faults.

    ``title`` names it among others.
    """

    title: str
    manifest: Manifest
    summary: Summary
    log: PredictionLog
    truth: GroundTruth | None
    faults: tuple[Fault, ...]
    duration_s: float


def summarize(
    answers: PredictionLog | Iterable[PublishedPrediction],
    truth: GroundTruth | None,
    faults: Sequence[Fault],
    manifest: Manifest,
    duration_s: float,
    realtime_factor: float,
) -> Summary:
    """The record of ``summary.json`` (docs/replay.md).

    Args:
        answers: in the order of publication.
        truth: ``None`` where the recording has no labels; every METRICS is then ``{"n": 0}``.
        duration_s: length of the recording.
        realtime_factor: seconds of recording for each second of run time.
    """
    log = as_prediction_log(answers, manifest)
    scored = Scored(log, truth)
    latency_s = log.column("latency_s")
    latencies_ms = latency_s[~np.isnan(latency_s)] * 1e3
    return Summary(
        model=manifest.name,
        samples=int(scored.settled.sum()),
        overall=scored.metrics(scored.settled),
        subsets={name: scored.metrics(scored.settled & (scored.subset == name)) for name in manifest.subset_names},
        settling=scored.metrics(scored.settling),
        nothing_shown=scored.nothing(),
        monotonicity=monotonicity_violations(_confidence_pairs(log)),
        streams={
            name: StreamSummary(
                seconds_in_state=_seconds_in_state(log, i, duration_s),
                faults=[_fault_delays(f, log, i) for f in faults if f.stream == name],
                false_alarms=_false_alarms(name, i, log, faults, duration_s),
            )
            for i, name in enumerate(manifest.names)
        },
        latency_ms=LatencySummary(
            p50=_quantile(latencies_ms, 0.5),
            p99=_quantile(latencies_ms, 0.99),
            max=_quantile(latencies_ms, 1.0),
            frames=len(latencies_ms),
        ),
        predictions=len(log),
        longest_gap_s=float(np.diff(log.column("at_s"), prepend=0.0, append=duration_s).max()),
        realtime_factor=realtime_factor,
    )


class Scored:
    """A log beside its truth, N answers: ``label`` int ``(N,)`` (-1 for none), ``settled`` and ``settling`` bool
    ``(N,)``, ``subset``
    the name of each answer's subset of modalities ``(N,)``.

    ``right`` bool ``(N,)``: the most probable label is the true one; of several labels each is on the right side of
    one half.
    """

    def __init__(self, log: PredictionLog, truth: GroundTruth | None) -> None:
        self.log = log
        times_s = log.column("at_s")
        self.label, in_settling = (
            truth.over(times_s) if truth is not None else (np.full(len(log), -1), np.zeros(len(log), bool))
        )
        self.subset = log.subsets()
        self.settled = (self.label >= 0) & ~in_settling
        self.settling = (self.label >= 0) & in_settling
        self._sets = None if truth is None else truth.sets
        self.right = log.column("class_id") == self.label
        if self._sets is not None:
            self.right = ((log.column("probabilities") >= 0.5) == self._targets(self.label)).all(1) & (self.label >= 0)
        self.nothing_shown = (
            (self.label < 0) & ~in_settling & (self.subset != "none") if truth is not None else np.zeros(len(log), bool)
        )

    def metrics(self, mask: np.ndarray) -> Metrics:
        """METRICS of the answers that ``mask``, bool ``(N,)``, picks."""
        if self._sets is not None:
            return multilabel_metrics(
                self.log.column("probabilities")[mask],
                self._targets(self.label[mask]),
                self.log.column("members")[mask],
            )
        return subset_metrics(
            self.log.column("probabilities")[mask], self.label[mask], self.log.column("members")[mask]
        )

    def judged(self, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Confidence float and correctness bool of the answers that ``mask`` picks; of several labels each
        probability, and whether the label is there.
        """
        if self._sets is not None:
            return self.log.column("probabilities")[mask].astype(np.float64).ravel(), self._targets(
                self.label[mask]
            ).ravel()
        return self.log.column("confidence")[mask].astype(np.float64), self.right[mask]

    def _targets(self, label: np.ndarray) -> np.ndarray:
        """bool ``(N, C)``; rows without a label are arbitrary."""
        assert self._sets is not None
        return self._sets[label] if len(self._sets) else np.zeros((len(label), self._sets.shape[1]), bool)

    def nothing(self) -> Metrics:
        """Confidence while nothing is shown."""
        n = int(self.nothing_shown.sum())
        if n == 0:
            return {"n": 0}
        return {
            "n": n,
            "mean_confidence": float(
                self.log.column("probabilities")[self.nothing_shown].max(1).astype(np.float64).mean()
            ),
            "abstained": float(self.log.column("abstain")[self.nothing_shown].mean()),
        }


def _confidence_pairs(log: PredictionLog) -> np.ndarray:
    """float ``(P, 2)``: confidence of each modality alone beside that of all, where at least two fed the prediction."""
    used = log.column("used")
    pairs = used & (used.sum(1, keepdims=True) > 1)
    together = np.broadcast_to(log.column("confidence")[:, None], used.shape)
    return np.stack([log.column("alone")[pairs], together[pairs]], axis=1)


def _quantile(values: np.ndarray, q: float) -> float:
    return float(np.quantile(values, q)) if len(values) else 0.0


def _seconds_in_state(log: PredictionLog, modality: int, duration_s: float) -> dict[str, float]:
    times_s = log.column("at_s")
    lasted_s = (
        np.maximum(np.append(times_s[1:], duration_s) - np.maximum(times_s, 0.0), 0.0) if len(log) else np.zeros(0)
    )
    states = log.column("states")[:, modality]
    first = {int(state): int(np.argmax(states == state)) for state in np.unique(states)}
    return {
        StreamState(state).name: round(float(lasted_s[states == state].sum()), 3)
        for state in sorted(first, key=first.__getitem__)
    }


_LEVELS = np.array(
    [0 if s in (StreamState.OK, StreamState.WAITING) else 1 if s.feeds_fusion else 2 for s in StreamState]
)
"""By the number of a state: 0 nothing wrong (or nothing known), 1 LATE or DEGRADED, 2 kept from the fusion."""


def _fault_delays(fault: Fault, log: PredictionLog, modality: int) -> FaultSummary:
    times_s, states = log.column("at_s"), log.column("states")[:, modality]
    first, end = int(np.searchsorted(times_s, fault.start_s)), int(np.searchsorted(times_s, fault.end_s))
    levels = _LEVELS[states]
    before = int(levels[first - 1]) if first else 0
    worst = int(levels[first:end].max(initial=0))
    detected = recovered = None
    if worst > before:
        detected = round(float(times_s[first + int(np.argmax(levels[first:end] > before))]) - fault.start_s, 4)
    if worst and (better := np.flatnonzero(levels[end:] < worst)).size:
        recovered = round(float(times_s[end + better[0]]) - fault.end_s, 4)
    return FaultSummary(
        kind=fault.kind,
        start_s=fault.start_s,
        end_s=fault.end_s,
        detected_after_s=detected,
        recovered_after_s=recovered,
        already=before > 0,
        states=[StreamState(s).name for s in dict.fromkeys(states[first:end].tolist())],
        severity=fault.severity,
        options=dict(fault.options),
    )


ALARM_GRACE_S = 2.0
"""After a fault a stream may take this long until an alarm counts as false."""


def _false_alarms(name: str, modality: int, log: PredictionLog, faults: Sequence[Fault], duration_s: float) -> int:
    """How often the published state left OK while no fault was on and the last one was over for ``ALARM_GRACE_S``."""
    count = 0
    for start_s, _, bad in runs(log.column("at_s"), _LEVELS[log.column("states")[:, modality]] > 0, duration_s):
        count += bool(bad) and not explained(name, start_s, faults)
    return count


def explained(stream: str, at_s: float, faults: Sequence[Fault]) -> bool:
    """Whether a fault on the stream is on, or was within ``ALARM_GRACE_S``."""
    return any(f.stream == stream and f.start_s <= at_s < f.end_s + ALARM_GRACE_S for f in faults)
