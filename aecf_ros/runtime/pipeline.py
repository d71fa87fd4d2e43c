"""From messages to predictions: the pipeline of the node and of the replay.

The caller passes each message to :meth:`Pipeline.observe`. If a prediction is due then, it calls :meth:`Pipeline.step`
and publishes the result. :meth:`Pipeline.next_due_ns` is the time to call ``step`` at the latest, without a message.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter_ns

import numpy as np

from aecf_ros.core.bundle import ABSTAIN_REASONS, Manifest, ManifestEntry
from aecf_ros.core.drift import DriftMonitor
from aecf_ros.core.types import NANOSECONDS, ModalityReport, Prediction, StreamState, StreamStatus
from aecf_ros.health.monitor import PublishersMatched, SampleRejected, StreamMonitor, TimePassed
from aecf_ros.health.thresholds import StreamThresholds
from aecf_ros.modalities.base import Evidence, Raw
from aecf_ros.modalities.messages import DecodeError
from aecf_ros.modalities.registry import MODALITIES
from aecf_ros.runtime.base import Backend, HeadOutput
from aecf_ros.runtime.trace import Trace

WARM_UP_RUNS, WARM_UP_MAX_RUNS, WARM_UP_NS = 4, 24, 300_000_000
"""Runs of every graph before the first message: as many as fit in the time, since a busy machine interrupts most."""
_TIME_PASSED = TimePassed()
GAP_PERIODS = 1.75
"""Camera periods without a frame after which a prediction is made: more than jitter, less than two."""


@dataclass(frozen=True, slots=True)
class Observation:
    """Result of one message: whether a prediction is due now, and why the message was rejected, if it was."""

    due: bool
    rejected: str | None = None


@dataclass(frozen=True)
class PipelineConfig:
    """Settings of a pipeline.

    Args:
        thresholds: of each stream, by modality name.
        max_gap_s: longest time without a prediction.
        drift_window_s: window over which drift is tested; 0 switches it off.
        min_confidence: confidence below which a prediction abstains in any case; 0 leaves it to the model.
    """

    thresholds: Mapping[str, StreamThresholds] = field(default_factory=dict)
    max_gap_s: float = 0.2
    drift_window_s: float = 120.0
    min_confidence: float = 0.0

    def __post_init__(self) -> None:
        if self.max_gap_s <= 0:
            raise ValueError(f"max_gap_s {self.max_gap_s} must be above 0")
        if self.drift_window_s < 0:
            raise ValueError(f"drift_window_s {self.drift_window_s} must not be below 0")
        if not 0 <= self.min_confidence <= 1:
            raise ValueError(f"min_confidence {self.min_confidence} must be from 0 to 1")


@dataclass(slots=True)
class _Stream:
    modality: ManifestEntry
    monitor: StreamMonitor
    evidence: Evidence
    state: StreamState = StreamState.WAITING
    embedding: np.ndarray | None = None
    transport: str = field(init=False)
    encoder: str = field(init=False)

    def __post_init__(self) -> None:
        self.transport, self.encoder = f"transport {self.modality.name}", f"encoder {self.modality.name}"


class Pipeline:
    """Makes calibrated predictions from the streams that are usable.

    A message of the first live modality, in the order of the manifest, makes a prediction due: the camera leads while
    frames arrive, the microphone otherwise. :meth:`next_due_ns` keeps predictions at most ``max_gap_s`` and 1.75 camera
    periods apart, whatever is missing. Without a usable stream they abstain.

    Time is always an argument: ``now_ns`` is steady time and must not go backward between calls. Not thread-safe.
    """

    def __init__(self, manifest: Manifest, backend: Backend, config: PipelineConfig = PipelineConfig()) -> None:
        unknown = set(config.thresholds) - set(manifest.names)
        if unknown:
            raise ValueError(f"thresholds name {sorted(unknown)}; this bundle's modalities are {manifest.names}")
        self.manifest = manifest
        self.config = config
        self._backend = backend
        self.trace = Trace()
        self.drift = DriftMonitor(manifest.drift, manifest.names, config.drift_window_s)
        self._streams = {
            m.name: _Stream(m, StreamMonitor(m.name, self._thresholds(m)), MODALITIES[m.kind].evidence(m, self.trace))
            for m in manifest.modalities
        }
        self._last_step_ns: int | None = None

    @property
    def device(self) -> str:
        """Device that runs the graphs."""
        return self._backend.device

    def warm_up(self) -> int:
        """Run every graph on zeros, so that the first prediction is as fast as the others.

        Returns:
            Nanoseconds that all graphs take together, the least of several runs.
        """
        samples = {name: np.zeros(s.modality.sample_shape, s.modality.input_dtype) for name, s in self._streams.items()}
        durations_ns: list[int] = []
        while (
            len(durations_ns) < WARM_UP_RUNS or len(durations_ns) < WARM_UP_MAX_RUNS and sum(durations_ns) < WARM_UP_NS
        ):
            started_ns = perf_counter_ns()
            embeddings = {name: self._backend.encode(name, sample) for name, sample in samples.items()}
            self._backend.fuse(embeddings, [True] * len(embeddings))
            durations_ns.append(perf_counter_ns() - started_ns)
        return min(durations_ns)

    def configure(self, config: PipelineConfig) -> None:
        """Replace the settings."""
        self.config = config
        self.drift.window_s = config.drift_window_s
        for stream in self._streams.values():
            stream.monitor.thresholds = self._thresholds(stream.modality)

    def reset(self) -> None:
        """Forget all streams, after a jump back in time: a recording that loops under ``use_sim_time``."""
        for name, stream in self._streams.items():
            stream.monitor = StreamMonitor(name, self._thresholds(stream.modality))
            stream.evidence, stream.embedding = (
                MODALITIES[stream.modality.kind].evidence(stream.modality, self.trace),
                None,
            )
            stream.state = StreamState.WAITING
        self.drift.clear()
        self._last_step_ns = None

    def take_over(self, other: Pipeline) -> None:
        """Take over the health and the newest evidence of the streams of ``other``.

        Raises:
            ValueError: the modalities differ.
        """
        if self.manifest.modalities != other.manifest.modalities:
            raise ValueError(
                f"modalities {other.manifest.names} cannot be taken over as {self.manifest.names}; restart"
            )
        for name, stream in self._streams.items():
            stream.monitor, stream.evidence = other._streams[name].monitor, other._streams[name].evidence
            stream.evidence.trace, stream.state = self.trace, other._streams[name].state
        self._last_step_ns = other._last_step_ns
        self.configure(self.config)

    def observe(self, stream: str, raw: Raw, now_ns: int) -> Observation:
        """Take one message of the modality ``stream``. Never raises for the contents of the message.

        Raises:
            KeyError: ``stream`` is not a modality of the bundle.
        """
        entry = self._streams[stream]
        try:
            sample = entry.evidence.read(raw, now_ns)
        except DecodeError as error:
            return self.reject(stream, str(error), now_ns)
        if not sample.headless:
            self.trace.add(entry.transport, raw.received_ns - raw.stamp_ns - sample.span_ns)
        entry.state = entry.monitor.take(sample, now_ns)
        entry.evidence.closely = entry.monitor.suspicious
        verdict = entry.monitor.verdict
        if verdict.jumped:
            entry.evidence.clear()
        if verdict.jumped or not verdict.fault:
            entry.evidence.keep()
        return Observation(due=self._leads(stream, now_ns))

    def reject(self, stream: str, reason: str, now_ns: int) -> Observation:
        """Count a message that cannot be read, for example audio before its format is known."""
        self._streams[stream].monitor.take(SampleRejected(reason), now_ns)
        return Observation(due=False, rejected=reason)

    def publishers(self, stream: str, count: int, now_ns: int) -> None:
        """Set the number of publishers that the middleware reports for a stream."""
        self._streams[stream].monitor.take(PublishersMatched(count), now_ns)

    def next_due_ns(self) -> int | None:
        """Steady time at which :meth:`step` must be called without a message; ``None`` before the first step."""
        if self._last_step_ns is None:
            return None
        gap_ns = int(self.config.max_gap_s * NANOSECONDS)
        for stream in self._streams.values():
            if stream.modality.paces_predictions and (period_ns := stream.monitor.period_ns) is not None:
                gap_ns = min(gap_ns, round(GAP_PERIODS * period_ns))
        due_ns = self._last_step_ns + gap_ns
        for stream in self._streams.values():
            if (change_ns := stream.monitor.next_change_ns()) is not None:
                due_ns = min(due_ns, change_ns)
        return due_ns

    def states(self, now_ns: int) -> tuple[StreamState, ...]:
        """State of every stream at ``now_ns``, in the order of the manifest."""
        for stream in self._streams.values():
            stream.state = stream.monitor.take(_TIME_PASSED, now_ns)
        return tuple([stream.state for stream in self._streams.values()])

    def statuses(self, now_ns: int) -> tuple[StreamStatus, ...]:
        """Health of every stream at ``now_ns``, in the order of the manifest."""
        self.states(now_ns)
        return tuple(stream.monitor.status(now_ns) for stream in self._streams.values())

    def step(self, now_ns: int, node_time_ns: int | None = None) -> Prediction:
        """Predict from the evidence present now.

        Args:
            now_ns: steady time.
            node_time_ns: node time, the stamp of a prediction without evidence; ``now_ns`` if left out.
        """
        self._last_step_ns = now_ns
        self.states(now_ns)
        present = [self._is_used(stream) for stream in self._streams.values()]
        for name, used in zip(self._streams, present, strict=True):
            if used:
                self._encode(name)
        embeddings = {name: s.embedding for name, s in self._streams.items() if s.embedding is not None}
        started_ns = perf_counter_ns()
        head = self._backend.fuse(embeddings, present)
        self.trace.add("head", perf_counter_ns() - started_ns)
        if head.distances is not None and self.drift.wants_sample(now_ns):
            self.drift.add(now_ns, present, head.distances, head.modality_probabilities.max(axis=1))
        return self._interpret(head, present, now_ns if node_time_ns is None else node_time_ns)

    def settle(self) -> None:
        """Do the work that no prediction need wait for: measure new frames, encode new audio. Call after each message.

        Predictions are the same without the call; they then wait for that work.
        """
        for name, stream in self._streams.items():
            stream.evidence.settle()
            if self._may_encode_now(stream):
                self._encode(name)

    def _may_encode_now(self, stream: _Stream) -> bool:
        """Whether the next prediction will use the newest evidence: it arrives less often than predictions are made."""
        if not (stream.evidence.changed and stream.state.feeds_fusion):
            return False
        lead = next(s for s in self._streams.values() if s.state.feeds_fusion)
        return lead.monitor.period_ns is not None and lead.monitor.period_ns < (stream.monitor.period_ns or 0)

    def _is_used(self, stream: _Stream) -> bool:
        limit_s, age_s = stream.monitor.thresholds.too_old_after_s, stream.monitor.age_s
        return stream.state.feeds_fusion and not (age_s is not None and 0 < limit_s < age_s)

    def _thresholds(self, modality: ManifestEntry) -> StreamThresholds:
        return self.config.thresholds.get(modality.name, MODALITIES[modality.kind].thresholds)

    def _leads(self, stream: str, now_ns: int) -> bool:
        for name, entry in self._streams.items():
            if name == stream:
                return True
            if entry.monitor.is_live(now_ns):
                return False
        raise AssertionError("unreachable: observe() looked the stream up")

    def _encode(self, name: str) -> None:
        stream = self._streams[name]
        if stream.evidence.changed or stream.embedding is None:
            sample = stream.evidence.sample()
            started_ns = perf_counter_ns()
            stream.embedding = self._backend.encode(name, sample)
            self.trace.add(stream.encoder, perf_counter_ns() - started_ns)
            stream.evidence.changed = False

    def _interpret(self, head: HeadOutput, present: list[bool], node_time_ns: int) -> Prediction:
        labels = self.manifest.labels
        class_id = int(head.probabilities.argmax())
        best_alone = head.modality_probabilities.argmax(axis=1).tolist()
        reports = tuple(
            [
                ModalityReport(
                    name,
                    stream.state,
                    used,
                    weight,
                    stream.evidence.stamp_ns,
                    labels[best] if used else "",
                    float(alone[best]) if used else 0.0,
                )
                for (name, stream), used, weight, best, alone in zip(
                    self._streams.items(),
                    present,
                    head.gate_weights.tolist(),
                    best_alone,
                    head.modality_probabilities,
                    strict=True,
                )
            ]
        )
        stamps = [r.evidence_stamp_ns for r in reports if r.used and r.evidence_stamp_ns is not None]
        reason = ABSTAIN_REASONS[head.abstain_code] or (
            "low confidence" if head.confidence < self.config.min_confidence else ""
        )
        return Prediction(
            stamp_ns=max(stamps, default=node_time_ns),
            model=self.manifest.name,
            label=labels[class_id],
            class_id=class_id,
            confidence=head.confidence,
            probabilities=head.probabilities,
            prediction_set=tuple(label for label, member in zip(labels, head.prediction_set, strict=True) if member),
            coverage=self.manifest.calibration.coverage,
            agreement=head.agreement,
            gate_entropy=head.gate_entropy,
            abstain=bool(reason),
            abstain_reason=reason,
            modalities=reports,
        )
