"""Recalibration of a head to labeled moments of another robot, with all weights kept, and an estimate of the gain."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from aecf_ros.core.labeled_samples import NOTHING
from aecf_ros.core.metrics.bootstrap import Interval, paired_differences
from aecf_ros.core.metrics.classification import subset_metrics
from aecf_ros.core.types import subset_name
from aecf_ros.fusion.crossfit import ModalitySamples, recalibrate
from aecf_ros.fusion.gates.reliability import EvidenceGate
from aecf_ros.fusion.layer import AECF
from aecf_ros.fusion.presence.agreement import agreement
from aecf_ros.fusion.presence.masking import all_subsets, subset_index
from aecf_ros.training.calibration.calibrate import (
    Calibration,
    CalibrationError,
    SubsetFit,
    alone_probabilities,
    bounded_temperature,
    nearest_center,
    subset_logits,
)
from aecf_ros.training.evaluation.evaluate import Metrics
from aecf_ros.training.export.head_graph import HEAD_OUTPUTS, ExportedHead

FOLDS = 5
"""Folds of labeled spans: each span is predicted by a fit to the other folds."""
DEVIATION = 0.5
"""Deviation of the prior of a modality's shift. Training uses 0.03, because its calibration part comes from the same
sensors; log a and the log-odds of doubt of another robot may differ more, and each span is one observation."""


@dataclass(frozen=True)
class EmbeddedMoments:
    """N labeled moments of recordings, encoded.

    Attributes:
        embeddings: float32 ``(N, D_m)`` of each modality, zeros where it is absent.
        present: bool ``(N, M)``.
        labels: int64 ``(N,)``, -1 for nothing.
        spans: int64 ``(N,)``; moments of one labeled span share a number.
    """

    embeddings: Sequence[np.ndarray]
    present: np.ndarray
    labels: np.ndarray
    spans: np.ndarray

    def at(self, rows: np.ndarray) -> EmbeddedMoments:
        """The moments at ``rows``: numbers or a mask."""
        return EmbeddedMoments(
            [column[rows] for column in self.embeddings], self.present[rows], self.labels[rows], self.spans[rows]
        )

    def shown(self, pattern: Sequence[bool]) -> EmbeddedMoments:
        """The moments with a label at which all modalities of ``pattern`` (M flags) are present."""
        return self.at((self.labels != NOTHING) & self.present[:, np.array(pattern)].all(1))


@dataclass(frozen=True)
class RecalibrationConfig:
    """Settings of a recalibration.

    Attributes:
        coverage: of prediction sets.
        minimum_spans: distinct labeled spans that each subset must have.
        conflict_rate: share of moments that may be called a conflict.
        outlier_rate: share of moments that may be called out of distribution.
    """

    coverage: float
    minimum_spans: int = 100
    conflict_rate: float = 0.01
    outlier_rate: float = 0.005

    @property
    def needed(self) -> int:
        """Spans that each subset must have, so that a fit without one fold reaches the coverage too."""
        return max(self.minimum_spans, math.ceil(round(FOLDS / (FOLDS - 1) / (1.0 - self.coverage), 6)))


@dataclass(frozen=True)
class Gain:
    """Metrics on held-out spans by subset: with the old calibration, with the new one, and the differences."""

    before: Metrics
    after: Metrics
    differences: dict[str, dict[str, Interval]]

    @property
    def verdict(self) -> str:
        """One sentence on the likelihood, which calibration is fitted to."""
        nll = {name: metrics["nll"] for name, metrics in self.differences.items()}
        better = [name for name, interval in nll.items() if interval.high < 0]
        worse = [name for name, interval in nll.items() if interval.low > 0]
        if worse:
            return (
                f"It does harm with {', '.join(worse)}: "
                "on held-out spans NLL is higher than with the calibration there was. "
                "Keep that one"
            )
        if better:
            return f"It helps with {', '.join(better)}: on held-out spans NLL is lower"
        return (
            "No gain shown: every interval of the difference in NLL on held-out spans holds zero. "
            "The calibration there was will do"
        )


def recalibrate_head(
    head: AECF, calibration: Calibration, names: Sequence[str], moments: EmbeddedMoments, config: RecalibrationConfig
) -> tuple[AECF, Calibration, Gain]:
    """A copy of a head and its calibration, fitted to ``moments``, and the gain on held-out spans.

    Raises:
        CalibrationError: a subset has too few labeled spans.
    """
    _require(names, moments, config)
    gain = _gain(head, calibration, names, moments, config)
    return *_fit(head, calibration, names, moments, config), gain


def _require(names: Sequence[str], moments: EmbeddedMoments, config: RecalibrationConfig) -> None:
    short = []
    for pattern in reversed(all_subsets(len(names))):
        shown = moments.shown(pattern)
        if (spans := len(np.unique(shown.spans))) < config.needed:
            short.append(f"{subset_name(names, pattern)} has {spans} ({len(shown.labels)} moments)")
    if short:
        raise CalibrationError(
            f"too little data: {config.needed} labeled spans of each subset are needed for a coverage of "
            f"{config.coverage:g}, and {', '.join(short)}; "
            f"record more, or ask for a lower coverage ({config.minimum_spans} are needed in any case)"
        )


def _fit(
    head: AECF, calibration: Calibration, names: Sequence[str], moments: EmbeddedMoments, config: RecalibrationConfig
) -> tuple[AECF, Calibration]:
    head, shifts = copy.deepcopy(head).eval(), isinstance(head.gate, EvidenceGate)
    if shifts:
        for m, embeddings in enumerate(moments.embeddings):
            here = moments.present[:, m]
            columns = (torch.from_numpy(array[here]) for array in (embeddings, moments.labels, moments.spans))
            recalibrate(head, m, ModalitySamples(*columns), DEVIATION)
    temperatures, thresholds, fits = (
        np.ones_like(calibration.temperatures),
        np.zeros_like(calibration.set_thresholds),
        [],
    )
    for pattern in all_subsets(len(names)):
        shown = moments.shown(pattern)
        logits = subset_logits(head, [torch.from_numpy(array) for array in shown.embeddings], pattern)
        temperature = 1.0 if shifts else bounded_temperature(logits, shown.labels)
        probabilities = torch.softmax(logits / temperature, dim=1).numpy()
        threshold = span_threshold(
            probabilities[np.arange(len(shown.labels)), shown.labels], shown.spans, config.coverage
        )
        at = int(subset_index(torch.tensor(pattern)))
        temperatures[at], thresholds[at] = temperature, threshold
        fits.append(
            SubsetFit(
                subset_name(names, pattern), len(shown.labels), len(np.unique(shown.spans)), temperature, threshold
            )
        )
    fitted = replace(
        calibration,
        coverage=config.coverage,
        temperatures=temperatures,
        set_thresholds=thresholds,
        conflict_below=_conflict_below(head, moments, temperatures, config.conflict_rate),
        outlier_above=_outlier_above(calibration, moments, config.outlier_rate),
        fits=fits,
    )
    return head, fitted


def span_threshold(scores: np.ndarray, spans: np.ndarray, coverage: float) -> float:
    """The conformal threshold of prediction sets where moments of one span are not independent.

    Each of the S spans has the same weight, and the threshold is at rank floor((S + 1)(1 - coverage)) of S, at least 1
    (Dunn, Wasserman and Ramdas 2022, pooled distributions).

    Args:
        scores: float ``(N,)``, probabilities of the true labels.
        spans: ``(N,)``.

    >>> span_threshold(np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]), np.arange(9), 0.8)
    0.2
    """
    index, size = np.unique(spans, return_inverse=True, return_counts=True)[1:]
    count = len(size)
    rank = max(1, math.floor(round((count + 1) * (1.0 - coverage), 9)))
    order = np.argsort(scores)
    mass = np.cumsum(1.0 / size[index][order])
    return float(scores[order][np.searchsorted(mass, rank - 1e-9)])


@torch.inference_mode()
def _conflict_below(head: AECF, moments: EmbeddedMoments, temperatures: np.ndarray, rate: float) -> float:
    """Agreement that is lower in ``rate`` of the moments at which several modalities show the label; -1 for never."""
    several = moments.at((moments.labels != NOTHING) & (moments.present.sum(1) > 1))
    if rate == 0 or not len(several.labels):
        return -1.0
    present = torch.from_numpy(several.present)
    logits = head([torch.from_numpy(array) for array in several.embeddings], present).modality_logits
    return float(
        np.quantile(agreement(alone_probabilities(logits, torch.from_numpy(temperatures)), present).numpy(), rate)
    )


def _outlier_above(calibration: Calibration, moments: EmbeddedMoments, rate: float) -> np.ndarray:
    """The limits of the old calibration, or higher ones where the embeddings of this robot are further out."""
    limits = calibration.outlier_above.copy()
    for m, embeddings in enumerate(moments.embeddings):
        model = (torch.from_numpy(array[m]) for array in (calibration.centers, calibration.whiteners))
        distances = nearest_center(torch.from_numpy(embeddings[moments.present[:, m]]), *model).numpy()
        limits[m] = max(limits[m], np.quantile(distances, 1.0 - rate))
    return limits


def _gain(
    head: AECF, calibration: Calibration, names: Sequence[str], moments: EmbeddedMoments, config: RecalibrationConfig
) -> Gain:
    """Predict every span by a fit to the spans of the other folds."""
    spans = np.unique(moments.spans)
    fold_of = dict(
        zip(np.random.default_rng(0).permutation(spans).tolist(), np.arange(len(spans)) % FOLDS, strict=True)
    )
    fold = np.array([fold_of[span] for span in moments.spans.tolist()])
    patterns = list(reversed(all_subsets(len(names))))
    before = _answers(ExportedHead(head, calibration).eval(), moments, patterns)
    after = [(np.empty_like(probabilities), np.empty_like(members)) for probabilities, members in before]
    for k in range(FOLDS):
        fitted = ExportedHead(*_fit(head, calibration, names, moments.at(fold != k), config)).eval()
        for whole, part in zip(after, _answers(fitted, moments.at(fold == k), patterns), strict=True):
            for into, values in zip(whole, part, strict=True):
                into[fold == k] = values
    metrics: tuple[Metrics, Metrics] = {}, {}
    differences = {}
    for pattern, old, new in zip(patterns, before, after, strict=True):
        rows = (moments.labels != NOTHING) & moments.present[:, np.array(pattern)].all(1)
        name, labels = subset_name(names, pattern), moments.labels[rows]
        for by_name, (probabilities, members) in zip(metrics, (old, new), strict=True):
            by_name[name] = subset_metrics(probabilities[rows], labels, members[rows])
        differences[name] = paired_differences(old[0][rows], new[0][rows], labels, moments.spans[rows])
    return Gain(*metrics, differences)


@torch.inference_mode()
def _answers(
    head: ExportedHead, moments: EmbeddedMoments, patterns: Sequence[Sequence[bool]]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Probabilities and prediction sets (N, C) of every moment for each pattern, whether or not it is present."""
    inputs, outputs = [torch.from_numpy(array) for array in moments.embeddings], []
    for pattern in patterns:
        said = dict(
            zip(HEAD_OUTPUTS, head(*inputs, torch.tensor(pattern).expand(len(moments.labels), -1)), strict=True)
        )
        outputs.append((said["probabilities"].numpy(), said["prediction_set"].numpy()))
    return outputs
