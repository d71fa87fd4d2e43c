"""MODEL_CARD.md of a model for moments that may have several labels."""

from __future__ import annotations

from collections.abc import Mapping

from aecf_ros.core.bundle import Manifest
from aecf_ros.training.data.corpus import Corpus
from aecf_ros.training.evaluation.card import (
    counted,
    data_and_attribution,
    intended_use,
    kinds_of,
    limits_of,
    markdown_table,
    number,
    shapes_of,
)
from aecf_ros.training.evaluation.evaluate import Evaluation, Metrics
from aecf_ros.training.head.feature_tables import Part
from aecf_ros.training.head.multilabel_head import LabelCalibration

METRICS = (
    ("n", "n"),
    ("map", "macro mAP"),
    ("subset_accuracy", "subset accuracy"),
    ("nll", "NLL"),
    ("ece", "ECE"),
    ("ece_noise_floor", "ECE noise floor"),
    ("brier", "Brier"),
    ("coverage", "coverage"),
    ("set_size", "set size"),
)


def _metrics(metrics: Metrics) -> str:
    rows = [[name, *(number(of[key]) if key in of else "-" for key, _ in METRICS)] for name, of in metrics.items()]
    return markdown_table(["subset", *(title for _, title in METRICS)], rows)


def _by_label(manifest: Manifest, evaluation: Evaluation, positives: list[int]) -> str:
    rows = []
    for c, label in enumerate(manifest.labels):
        cells = [label, str(positives[c])]
        for scores in evaluation.by_label.values():
            of = scores[c]
            cells += [
                str(of["n"]),
                number(of["average_precision"]) if "average_precision" in of else "-",
                f"{of['ece']:.4f} ({of['ece_noise_floor']:.4f})",
            ]
        rows.append(cells)
    header = ["label", "in calibration"]
    for name in evaluation.by_label:
        header += [f"{name}: n", "AP", "ECE (floor)"]
    return markdown_table(header, rows)


def label_card(
    manifest: Manifest, calibration: LabelCalibration, evaluation: Evaluation, corpus: Corpus, parts: Mapping[str, Part]
) -> str:
    """The card's text (Markdown), after Mitchell et al. 2019."""
    training, part = manifest.training, parts["test"]
    fitted, head = training.config["calibration"], training.config["head"]
    always = [
        label for label, least in zip(manifest.labels, calibration.set_thresholds[-1], strict=True) if least == 0.0
    ]
    promised = (
        f" Of {', '.join(always)} too few calibration moments have it for that: it is in every set." if always else ""
    )
    far = ", ".join(
        f"{name} {value:.1f}" for name, value in zip(manifest.names, calibration.outlier_above, strict=True)
    )
    kept = head["field_copies"]
    return f"""# {manifest.name}

{manifest.description}

Made by `aecf train` of aecf_ros {training.aecf_ros_version} on {training.created}, seed {training.seed}, task multilabel.
This file is generated; train again to change it.

## What it does
Says of each of {len(manifest.labels)} labels ({", ".join(manifest.labels)}) by itself whether its sensors show it, so that several may be there at a
time, or none, with any subset of the sensors present:
{shapes_of(manifest)}

The head is an AECF layer (options {head["options"]}, multilabel, nothing lifted) over frozen encoders. It was trained on every sample as recorded and
{kept} corrupted {"copy" if kept == 1 else "copies"} of it, each of a kind and severity of its own ({kinds_of(manifest)}), as often as moments come; how
often each label comes is its prior. Unlike models of one label it has no reliability of each sample that was fitted out of fold: of
corruption it knows what its copies taught it.

A prediction's `probabilities` do not sum to one; `label`, `class_id` and `confidence` are of the most probable label, which need not be there;
`prediction_set` holds the labels that may be there, and may be empty.

{intended_use(manifest)}

## Measured on the held-out test part
{_metrics(manifest.metrics)}

A subset's rows are the labelled moments that have all of its modalities: of {counted(part.spans, "labelled span")} in
{counted(len(part.source_names[0]), "recording")}. Macro mAP is the mean over the labels that occur of their average precision; subset accuracy is the share of
moments of which every label is on the right side of one half; NLL, Brier and ECE (15 equal-width bins) are the mean over labels; coverage is the
share of the labels that are there that the set holds.

The same with every sample of every modality corrupted, kinds in equal shares and severity uniform from 1 to 5:

{_metrics(evaluation.corrupted)}

{_by_label(manifest, evaluation, calibration.positives.tolist())}

## Calibration, fitted on the calibration part
For each presence pattern a scale and a shift of each label's log-odds (Platt 1999), and for each label the probability that
{calibration.coverage:.0%} of the moments that have it reach, which is what puts it into the set.{promised}
The head abstains, giving its reason, when
- no stream is usable;
- every stream present is out of distribution: its squared Mahalanobis distance to the center of training is over {far}
  ({fitted["outlier_rate"]:.1%} of calibration samples are);
- modalities conflict: their agreement, the mean over labels, is under {calibration.conflict_below:.3f} ({fitted["conflict_rate"]:.1%} of calibration moments).

It does not abstain for low confidence: where no label is probable, that is the answer.

## Limits
- The figures hold for data like the test part.
{limits_of(corpus, parts)}
- Labels are taken to be independent given the embeddings; two that always come together are not held together.

{data_and_attribution(manifest)}
"""
