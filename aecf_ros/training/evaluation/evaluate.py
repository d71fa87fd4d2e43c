"""Measure a head on a test part: by subset, corrupted, by source, and on mismatched pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from aecf_ros.core.labeled_samples import NOTHING
from aecf_ros.core.metrics.classification import subset_metrics
from aecf_ros.core.metrics.multilabel import label_scores, multilabel_metrics
from aecf_ros.core.types import subset_name
from aecf_ros.fusion.presence.masking import all_subsets
from aecf_ros.training.calibration.calibrate import shown_rows
from aecf_ros.training.config import TrainConfig
from aecf_ros.training.export.fast_head import CONFLICT
from aecf_ros.training.export.head_graph import HEAD_OUTPUTS, CalibratedHead
from aecf_ros.training.head.feature_tables import PartFeatures
from aecf_ros.training.head.pairing import Pairs

Metrics = dict[str, dict[str, float | int]]
"""By subset, the largest first: METRICS of ``summary.json``."""
Answer = Callable[[Sequence[np.ndarray], np.ndarray], dict[str, np.ndarray]]
"""(embeddings float32 (N, D_m) of each modality, presence bool (N, M)) -> outputs of a head by name."""
_MISMATCH_DRAW = 14


@dataclass(frozen=True)
class SourceMetrics:
    """One modality alone on one corpus or recording of the test part.

    ``value`` is the accuracy, or what ``source`` names in brackets.
    """

    modality: str
    source: str
    samples: int
    value: float


@dataclass(frozen=True)
class Evaluation:
    """Figures of a head on the test part.

    ``metrics`` by subset; ``corrupted`` the same where every sample has a kind and severity of corruption; ``sources``
    rows by modality and corpus; ``nothing`` accuracy with all present where one shows nothing; ``conflicts`` the share
    of seeded mismatched pairs called a conflict (NaN with one modality). ``reliability`` has for each subset the
    confidence of each row and whether its label was right, (2, N). Where a sample may have several labels, ``by_label``
    has for each subset the scores of each label, reliability is of every label of every row, and the last three but
    ``reliability`` are not measured.
    """

    metrics: Metrics
    corrupted: Metrics
    sources: list[SourceMetrics]
    nothing: dict[str, float]
    conflicts: float
    reliability: dict[str, np.ndarray]
    by_label: dict[str, list[dict[str, float | int]]] = field(default_factory=dict)


def answers_of(head: CalibratedHead) -> Answer:
    """A head in torch as an :data:`Answer`."""

    @torch.inference_mode()
    def answer(embeddings: Sequence[np.ndarray], present: np.ndarray) -> dict[str, np.ndarray]:
        outputs = head(*map(torch.from_numpy, embeddings), torch.from_numpy(present))
        return {name: value.numpy() for name, value in zip(HEAD_OUTPUTS, outputs, strict=True)}

    return answer


def evaluate(part: PartFeatures, names: Sequence[str], answer: Answer, config: TrainConfig) -> Evaluation:
    """Measure a head on a test part and on its first corrupted copy."""
    pairs = part.test_pairs(config.pairs, config.seed)
    if part.sets is not None:
        return _of_labels(part, names, answer, pairs)
    everything = pairs.at((pairs.labels != NOTHING) & pairs.present.all(1))
    right = (
        _ask(answer, part.embeddings, everything, (True,) * len(names))["probabilities"].argmax(1) == everything.labels
    )
    silent = ~everything.shows
    conflicts = float("nan")
    mismatched = _mismatch(everything, np.random.default_rng([config.seed, _MISMATCH_DRAW]))
    if len(names) > 1 and len(mismatched):
        conflicts = float(
            (_ask(answer, part.embeddings, mismatched, (True,) * len(names))["abstain_code"] == CONFLICT).mean()
        )
    metrics, reliability = by_subset(names, answer, part.embeddings, pairs)
    return Evaluation(
        metrics=metrics,
        corrupted=by_subset(names, answer, [copies[0].embeddings for copies in part.copies], pairs)[0],
        sources=_by_source(part, names, answer),
        nothing={name: float(right[silent[:, m]].mean()) for m, name in enumerate(names) if silent[:, m].any()},
        conflicts=conflicts,
        reliability=reliability,
    )


def _of_labels(part: PartFeatures, names: Sequence[str], answer: Answer, pairs: Pairs) -> Evaluation:
    metrics, reliability = by_subset(names, answer, part.embeddings, pairs, part.sets)
    corrupted = by_subset(names, answer, [copies[0].embeddings for copies in part.copies], pairs, part.sets)[0]
    by_label = {}
    for pattern in reversed(all_subsets(len(names))):
        shown = pairs.at(shown_rows(pairs, pattern))
        if len(shown) and part.sets is not None:
            by_label[subset_name(names, pattern)] = label_scores(
                _ask(answer, part.embeddings, shown, pattern)["probabilities"], part.sets[shown.labels]
            )
    return Evaluation(metrics, corrupted, [], {}, float("nan"), reliability, by_label)


def _ask(
    answer: Answer, embeddings: Sequence[np.ndarray], pairs: Pairs, pattern: Sequence[bool]
) -> dict[str, np.ndarray]:
    present = np.broadcast_to(np.array(pattern), (len(pairs), len(pattern))).copy()
    return answer([e[pairs.rows[:, m]] for m, e in enumerate(embeddings)], present)


def by_subset(
    names: Sequence[str], answer: Answer, embeddings: Sequence[np.ndarray], pairs: Pairs, sets: np.ndarray | None = None
) -> tuple[Metrics, dict[str, np.ndarray]]:
    """Metrics by subset, the largest first, and the confidence and correctness (2, N) of its pairs.

    A subset's pairs are those that have all of its modalities and in which it shows the label.

    Args:
        sets: bool (K, C), the labels of each class index where a sample may have several.
    """
    metrics: Metrics = {}
    reliability = {}
    for pattern in reversed(all_subsets(len(names))):
        shown = pairs.at(shown_rows(pairs, pattern))
        outputs = _ask(answer, embeddings, shown, pattern)
        probabilities, name = outputs["probabilities"], subset_name(names, pattern)
        if sets is not None:
            metrics[name] = multilabel_metrics(probabilities, sets[shown.labels], outputs["prediction_set"])
            reliability[name] = np.stack([probabilities.ravel(), sets[shown.labels].ravel()])
            continue
        metrics[name] = subset_metrics(probabilities, shown.labels, outputs["prediction_set"])
        reliability[name] = np.stack([probabilities.max(1), probabilities.argmax(1) == shown.labels])
    return metrics, reliability


def rounded(metrics: Metrics) -> Metrics:
    """Metrics with six digits, as in a manifest."""
    return {
        name: {key: value if key == "n" else round(float(value), 6) for key, value in values.items()}
        for name, values in metrics.items()
    }


def _mismatch(pairs: Pairs, generator: np.random.Generator) -> Pairs:
    """Pairs in which all modalities show the label, with the last one replaced by another label."""
    full = np.flatnonzero(pairs.shows.all(1))
    other = generator.permutation(full)
    wrong = pairs.labels[full] != pairs.labels[other]
    mismatched = pairs.at(full[wrong])
    mismatched.rows[:, -1] = pairs.rows[other[wrong], -1]
    return mismatched


def _by_source(part: PartFeatures, names: Sequence[str], answer: Answer) -> list[SourceMetrics]:
    sources = []
    for m, name in enumerate(names):
        alone, labels = np.arange(len(names)) == m, part.labels[m]
        for index, source in enumerate(part.source_names[m]):
            at = np.flatnonzero((part.sources[m] == index) & (labels != NOTHING))
            if len(at):
                right = _alone(part, answer, m, at, alone)["probabilities"].argmax(1) == labels[at]
                sources.append(SourceMetrics(name, source, len(at), float(right.mean())))
        at = np.flatnonzero(labels == NOTHING)
        if len(at):
            confidence = _alone(part, answer, m, at, alone)["confidence"]
            sources.append(SourceMetrics(name, "nothing there (mean confidence)", len(at), float(confidence.mean())))
    return sources


def _alone(
    part: PartFeatures, answer: Answer, modality: int, at: np.ndarray, pattern: np.ndarray
) -> dict[str, np.ndarray]:
    embeddings = [
        e[at] if m == modality else np.zeros((len(at), e.shape[1]), np.float32) for m, e in enumerate(part.embeddings)
    ]
    return answer(embeddings, np.broadcast_to(pattern, (len(at), len(pattern))).copy())
