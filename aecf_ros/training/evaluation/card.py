"""MODEL_CARD.md, generated from the manifest and what was measured at export (Mitchell et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping

from aecf_ros.core.bundle import Manifest
from aecf_ros.core.labeled_samples import NOTHING
from aecf_ros.modalities.audio.spec import AudioEntry
from aecf_ros.training.calibration.calibrate import Calibration
from aecf_ros.training.data.corpus import Corpus
from aecf_ros.training.evaluation.evaluate import Evaluation, Metrics
from aecf_ros.training.features.corruption import corruptions_of
from aecf_ros.training.head.feature_tables import PartFeatures
from aecf_ros.training.head.fit_gate import Settled
from aecf_ros.training.head.multilabel_head import LabelCalibration
from aecf_ros.training.templates import markdown_table, render

_METRICS = {
    "n": "n",
    "accuracy": "accuracy",
    "nll": "NLL",
    "ece": "ECE",
    "ece_noise_floor": "ECE noise floor",
    "brier": "Brier",
    "mean_confidence": "mean confidence",
    "coverage": "coverage",
    "set_size": "set size",
}
_LABEL_METRICS = {
    "n": "n",
    "map": "macro mAP",
    "subset_accuracy": "subset accuracy",
    "nll": "NLL",
    "ece": "ECE",
    "ece_noise_floor": "ECE noise floor",
    "brier": "Brier",
    "coverage": "coverage",
    "set_size": "set size",
}


def model_card(
    manifest: Manifest,
    calibration: Calibration,
    evaluation: Evaluation,
    settled: Settled | None,
    corpus: Corpus,
    parts: Mapping[str, PartFeatures],
) -> str:
    """The card of a model for samples with one label. ``settled`` is None without an evidence gate."""
    names = manifest.names
    trusted = dict(zip(names, settled.kept, strict=True)) if settled else {}
    return render(
        "aecf_ros.training.evaluation",
        "MODEL_CARD.md.jinja",
        **_shared(manifest, calibration, evaluation, corpus, parts),
        subsets=_metrics_table(manifest.metrics, _METRICS),
        corrupted=_metrics_table(evaluation.corrupted, _METRICS),
        settled=settled,
        kept=[name for name, kept in trusted.items() if kept],
        dropped=[name for name, kept in trusted.items() if not kept],
        nothing_taught=any((unit.labels == NOTHING).any() for unit in corpus.parts["fusion"]),
        sources=[[s.modality, s.source, str(s.samples), f"{s.value:.4f}"] for s in evaluation.sources],
        fits=[
            [f.name, str(f.samples), str(f.distinct), f"{f.temperature:.3f}", f"{f.set_threshold:.4g}"]
            for f in calibration.fits
        ],
        windows=[f"{m.window_s:g} s" for m in manifest.modalities if isinstance(m, AudioEntry)],
    )


def label_card(
    manifest: Manifest,
    calibration: LabelCalibration,
    evaluation: Evaluation,
    corpus: Corpus,
    parts: Mapping[str, PartFeatures],
) -> str:
    """The card of a model for samples that may have several labels."""
    thresholds = dict(zip(manifest.labels, calibration.set_thresholds[-1], strict=True))
    return render(
        "aecf_ros.training.evaluation",
        "MULTILABEL_CARD.md.jinja",
        **_shared(manifest, calibration, evaluation, corpus, parts),
        subsets=_metrics_table(manifest.metrics, _LABEL_METRICS),
        corrupted=_metrics_table(evaluation.corrupted, _LABEL_METRICS),
        by_label=_label_table(manifest, calibration, evaluation),
        always_in_set=[label for label, threshold in thresholds.items() if threshold == 0.0],
    )


def _shared(
    manifest: Manifest,
    calibration: Calibration | LabelCalibration,
    evaluation: Evaluation,
    corpus: Corpus,
    parts: Mapping[str, PartFeatures],
) -> dict[str, object]:
    """Values that both cards use."""
    limits = zip(manifest.names, calibration.outlier_above, strict=True)
    return {
        "manifest": manifest,
        "calibration": calibration,
        "evaluation": evaluation,
        "corpus": corpus,
        "spans": {name: part.spans for name, part in parts.items()},
        "recordings": {name: len(part.source_names[0]) for name, part in parts.items()},
        "corruptions": "; ".join(
            f"{m.name}: {', '.join(corruptions_of(m.kind)).replace('_', ' ')}" for m in manifest.modalities
        ),
        "outlier_above": ", ".join(f"{name} {limit:.1f}" for name, limit in limits),
        "samples": [[name, str(count)] for name, count in manifest.training.samples.items()],
    }


def _metrics_table(metrics: Metrics, titles: Mapping[str, str]) -> str:
    rows = [[name, *(_cell(values.get(key)) for key in titles)] for name, values in metrics.items()]
    return markdown_table(["subset", *titles.values()], rows)


def _label_table(manifest: Manifest, calibration: LabelCalibration, evaluation: Evaluation) -> str:
    header = ["label", "in calibration"]
    rows = [[label, str(n)] for label, n in zip(manifest.labels, calibration.positives.tolist(), strict=True)]
    for name, by_label in evaluation.by_label.items():
        header += [f"{name}: n", "AP", "ECE (floor)"]
        for row, scores in zip(rows, by_label, strict=True):
            ece = f"{scores['ece']:.4f} ({scores['ece_noise_floor']:.4f})"
            row += [str(scores["n"]), _cell(scores.get("average_precision")), ece]
    return markdown_table(header, rows)


def _cell(value: float | int | None) -> str:
    """A whole number whole, any other with four digits, a missing one as a dash."""
    return "-" if value is None else str(value) if isinstance(value, int) else f"{value:.4f}"
