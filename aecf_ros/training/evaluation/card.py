"""MODEL_CARD.md, generated from the manifest and what was measured at export."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from aecf_ros.core.bundle import Manifest
from aecf_ros.core.labeled_samples import NOTHING
from aecf_ros.training.calibration.calibrate import Calibration
from aecf_ros.training.data.corpus import Corpus
from aecf_ros.training.evaluation.evaluate import Evaluation
from aecf_ros.training.features.corruption import KINDS
from aecf_ros.training.head.feature_tables import Part
from aecf_ros.training.head.fit_gate import Settled

_METRICS = (
    ("n", "n"),
    ("accuracy", "accuracy"),
    ("nll", "NLL"),
    ("ece", "ECE"),
    ("ece_noise_floor", "ECE noise floor"),
    ("brier", "Brier"),
    ("mean_confidence", "mean confidence"),
    ("coverage", "coverage"),
    ("set_size", "set size"),
)


def _gate(settled: Settled | None, names: Sequence[str], price: float) -> str:
    """Sentences on how far each modality is trusted, and what decided it."""
    if settled is None:
        return "Each presence pattern has a temperature."
    kept = [name for name, stays in zip(names, settled.kept, strict=True) if stays]
    dropped = [name for name in names if name not in kept]
    text = ""
    if kept:
        text += (
            f"How far {' and '.join(kept)} may be trusted in each sample was fitted out of fold, on kinds of corruption and "
            "on recordings that the experts fitted for it had not met, and shifted to the calibration part. "
        )
    if dropped:
        text += (
            f"For {' and '.join(dropped)} that fit cost more than {price:g} nats on the calibration part, which few "
            "recordings do, and was dropped for a temperature. "
        )
    if settled.reach:
        text += f"A soft lift of at most {settled.reach:g} keeps confidence from falling when a modality is added."
    return text.strip()


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Header and rows of cells, as Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _rows_of(corpus: Corpus, part: Part) -> str:
    if not corpus.paired:
        return "A subset's rows are the pairs in which one of its modalities shows the label."
    return (
        f"A subset's rows are the labelled moments that have all of its modalities: of {counted(part.spans, 'labelled span')} in "
        f"{counted(len(part.source_names[0]), 'recording')}, within which moments resemble each other."
    )


def _nothing(corpus: Corpus) -> str:
    if not any((unit.labels == NOTHING).any() for unit in corpus.parts["fusion"]):
        return (
            "No sample showed nothing to recognize (an empty scene, silence, noise): what the model says of such was never taught, "
            "and it may be sure of it."
        )
    return (
        "A modality that shows nothing to recognize (an empty scene, silence, noise) was trained to say nothing: its target was "
        f"the {'prior' if corpus.paired else 'uniform'} distribution."
    )


def limits_of(corpus: Corpus, parts: Mapping[str, Part]) -> str:
    """Lines of the card's limits that follow from how the data was paired and divided."""
    if not corpus.paired:
        return """\
- Pairs are drawn by label from unrelated recordings: what sound and image share beyond the label was never seen.
- Calibration counts pairs; their independence is bounded by the distinct samples in the table, and by the number of
  writers and speakers behind them."""
    part = parts["calibration"]
    return (
        f"- Calibration counts moments, and they come from {counted(part.spans, 'labelled span')} of "
        f"{counted(len(part.source_names[0]), 'recording')}: coverage and calibration hold as far as those stand for the robot's days.\n"
        "- The prior is that of the recordings; where the robot meets classes more or less often, its confidence is off by that."
    )


def _after_a_change(manifest: Manifest, corpus: Corpus) -> str:
    windows = ", ".join(f"{m.window_s:g} s" for m in manifest.modalities if m.kind == "audio")
    if not windows:
        return ""
    return f"\n- The sound window is {windows}: after a change it holds both {'sounds' if corpus.paired else 'words'}, or half of one."


def counted(number: int, of: str) -> str:
    """
    >>> counted(1, "recording"), counted(2, "recording")
    ('1 recording', '2 recordings')
    """
    return f"{number} {of}" + ("" if number == 1 else "s")


def number(value: float | int) -> str:
    """As the card's tables have it: four digits, a whole number whole."""
    return str(value) if isinstance(value, int) else f"{value:.4f}"


def intended_use(manifest: Manifest) -> str:
    """The card's section of that name: what the configuration says, or that it says nothing."""
    said = manifest.training.config.get("intended_use") or (
        "Not said by those who trained it (`intended_use` in the configuration of `aecf train`). No figure below makes it fit for decisions about people\n"
        "or for safety."
    )
    return f"## Intended use\n{said}"


def shapes_of(manifest: Manifest) -> str:
    """What each modality's encoder takes, a line each."""
    return "\n".join(
        f"- `{m.name}` ({m.kind}): one sample is {list(m.input_shape)}"
        + (
            f" at {m.rate_hz} Hz, {m.window_s:g} s"
            if m.kind == "audio"
            else ", uint8 RGB"
            if m.kind == "image"
            else " numbers, standardized"
        )
        + f"; embedding {m.embedding_dim}"
        for m in manifest.modalities
    )


def kinds_of(manifest: Manifest) -> str:
    """The kinds of corruption of each modality."""
    return "; ".join(f"{m.name}: {', '.join(KINDS[m.kind]).replace('_', ' ')}" for m in manifest.modalities)


def data_and_attribution(manifest: Manifest) -> str:
    """The card's last section."""
    samples = markdown_table(
        ["part/modality", "samples"], [[name, str(n)] for name, n in manifest.training.samples.items()]
    )
    return "\n".join(["## Data and attribution", *(f"- {source}" for source in manifest.training.data), "", samples])


def model_card(
    manifest: Manifest,
    calibration: Calibration,
    evaluation: Evaluation,
    settled: Settled | None,
    corpus: Corpus,
    parts: Mapping[str, Part],
) -> str:
    """The card's text (Markdown), after Mitchell et al. 2019. ``settled`` is None without an evidence gate."""
    sources, nothing, conflicts = evaluation.sources, evaluation.nothing, evaluation.conflicts
    subsets, corrupted = (
        markdown_table(
            ["subset", *(title for _, title in _METRICS)],
            [[name, *(number(of[key]) if key in of else "-" for key, _ in _METRICS)] for name, of in metrics.items()],
        )
        for metrics in (manifest.metrics, evaluation.corrupted)
    )
    fits = markdown_table(
        [
            "subset",
            "pairs",
            "distinct samples of the rarest modality",
            "temperature",
            "least probability in a prediction set",
        ],
        [
            [f.name, str(f.samples), str(f.distinct), f"{f.temperature:.3f}", f"{f.set_threshold:.4g}"]
            for f in calibration.fits
        ],
    )
    corpora = (
        markdown_table(
            [
                "modality alone",
                "recording of the test part" if corpus.paired else "corpus of the test part",
                "samples",
                "accuracy",
            ],
            [[s.modality, s.source, str(s.samples), f"{s.value:.4f}"] for s in sources],
        )
        if sources
        else "The data names no corpora."
    )
    silent = "; ".join(f"{name} shows nothing: {value:.4f}" for name, value in nothing.items()) or "not measured"
    conflict_line = "" if math.isnan(conflicts) else f" It is called on {conflicts:.1%} of test pairs made to disagree."
    training, fitted = manifest.training, manifest.training.config["calibration"]
    kept, price = training.config["head"]["field_copies"], training.config["head"]["reliability"]["price"]
    copies = f"{kept} corrupted {'copy' if kept == 1 else 'copies'}" if kept else "no corrupted copy"
    limits = zip(manifest.names, calibration.outlier_above, strict=True)
    outlier_above = ", ".join(f"{name} {value:.1f}" for name, value in limits)
    others = "sensors, places and people" if corpus.paired else "cameras, rooms, languages, accents and handwriting"
    return f"""# {manifest.name}

{manifest.description}

Made by `aecf train` of aecf_ros {training.aecf_ros_version} on {training.created}, seed {training.seed}.
This file is generated; train again to change it.

## What it does
Says which of {len(manifest.labels)} labels ({", ".join(manifest.labels)}) its sensors show, and how sure it is,
with any subset of them present:
{shapes_of(manifest)}

The head is an AECF layer (options {training.config["head"]["options"]}) over frozen encoders.
It was trained on every sample as recorded and {copies} of it, each of a kind and severity of its own ({kinds_of(manifest)}).
{_nothing(corpus)} {_gate(settled, manifest.names, price)}

{intended_use(manifest)}

## Measured on the held-out test part
{subsets}

{_rows_of(corpus, parts["test"])} ECE has 15 equal-width bins; its noise
floor is what a perfectly calibrated model with the same confidences would show. With all present and one modality
showing nothing, accuracy is: {silent}.

The same pairs with every sample of every modality corrupted, kinds in equal shares and severity uniform from 1 to 5:

{corrupted}

{corpora}

## Calibration, fitted on the calibration part
{fits}

Prediction sets hold the label in at least {calibration.coverage:.0%} of exchangeable samples; the most probable label
is always in, so the coverage is higher where the model is more often right than that.
The head abstains, giving its reason, when
- no stream is usable;
- every stream present is out of distribution: its squared Mahalanobis distance to the nearest class center is over
  {outlier_above} ({fitted["outlier_rate"]:.1%} of calibration samples are);
- modalities conflict: agreement under {calibration.conflict_below:.3f} ({fitted["conflict_rate"]:.1%} of matching
  calibration pairs).{conflict_line}
- the calibrated confidence is under {calibration.abstain_below:g}.

## Limits
- The figures hold for data like the test part. Other {others} will do
  worse; how sure the model then is was not measured here.
{limits_of(corpus, parts)}{_after_a_change(manifest, corpus)}

{data_and_attribution(manifest)}
"""
