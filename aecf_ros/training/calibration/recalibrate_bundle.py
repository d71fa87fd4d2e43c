"""A copy of a bundle, recalibrated to another robot: encoders, weights and test metrics stay."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import numpy as np

from aecf_ros.core.bundle import Bundle, CalibrationSummary, Manifest, RefitSummary, SubsetCalibration
from aecf_ros.training.calibration.drift_reference import drift_reference
from aecf_ros.training.calibration.recalibrate import (
    FOLDS,
    EmbeddedMoments,
    Gain,
    RecalibrationConfig,
    recalibrate_head,
)
from aecf_ros.training.evaluation.evaluate import rounded
from aecf_ros.training.export.head_graph import ExportedHead, ExportError, write_bundle
from aecf_ros.training.export.head_weights import HEAD_WEIGHTS, load_parts, save_head
from aecf_ros.training.run.assemble import Writer, head_writer
from aecf_ros.training.templates import markdown_table

CARD = "MODEL_CARD.md"
_COLUMNS = (
    ("accuracy", "accuracy"),
    ("nll", "NLL"),
    ("ece", "ECE"),
    ("ece_noise_floor", "ECE noise floor"),
    ("coverage", "coverage"),
    ("set_size", "set size"),
)


def recalibrate_bundle(
    bundle: Bundle, out: Path, moments: EmbeddedMoments, sources: Sequence[str], config: RecalibrationConfig
) -> Gain:
    """Recalibrate a bundle to ``moments`` and write it to ``out``.

    Args:
        sources: of the moments, a line each, for the card.

    Raises:
        BundleError: it has no ``head.safetensors``, or one that cannot be used.
        CalibrationError: too little data.
        ExportError: ``out`` is the bundle itself, or the new graph does not compute what was fitted.
    """
    if out.resolve() == bundle.directory.resolve():
        raise ExportError(f"{out}: is the bundle itself; write to another folder, so that there is a way back")
    manifest, names = bundle.manifest, bundle.manifest.names
    head, calibration, options = load_parts(bundle)
    fitted, tables, gain = recalibrate_head(head, calibration, names, moments, config)
    exported = ExportedHead(fitted, tables).eval()

    write_head = head_writer(exported, names, [embedding[moments.present.all(1)] for embedding in moments.embeddings])
    kept = [file for file in manifest.files if file not in (manifest.head, manifest.head_weights, CARD)]
    files: dict[str, Writer] = {file: partial(shutil.copyfile, bundle.path(file)) for file in kept}
    files |= {manifest.head: write_head, HEAD_WEIGHTS: lambda path: save_head(path, fitted, tables, options)}
    today, spans = datetime.now(timezone.utc).date().isoformat(), len(np.unique(moments.spans))
    changed = {
        "name": out.name,
        "head_weights": HEAD_WEIGHTS,
        "calibration": CalibrationSummary(
            method=f"fitted again by aecf calibrate to {spans} labeled spans of {', '.join(sources)}; "
            f"before: {manifest.calibration.method}",
            coverage=tables.coverage,
            subsets={
                fit.name: SubsetCalibration(
                    samples=fit.samples,
                    temperature=round(fit.temperature, 6),
                    set_threshold=round(fit.set_threshold, 8),
                )
                for fit in tables.fits
            },
        ),
        "drift": drift_reference(exported, names, moments.embeddings, moments.present),
        "refit": RefitSummary(
            data=list(sources), spans=spans, created=today, before=rounded(gain.before), after=rounded(gain.after)
        ),
    }
    fit = f"on {today}, on {spans} labeled spans ({len(moments.labels)} moments) of {', '.join(sources)}"
    card = _card(bundle, out.name, fit, gain)
    write_bundle(
        out,
        files,
        card,
        lambda hashes: Manifest.model_validate((manifest.model_copy(update=changed | {"files": hashes})).model_dump()),
    )
    return gain


def table(gain: Gain) -> list[list[str]]:
    """Header and rows: metrics of each subset on held-out spans, before and after, and the difference in NLL."""
    rows = [["subset", "calibration", "n", *(title for _, title in _COLUMNS), "NLL difference, 95 %"]]
    for name in gain.before:
        nll = gain.differences[name]["nll"]
        for when, metrics, last in (
            ("as it was", gain.before, ""),
            ("fitted", gain.after, f"{nll.estimate:+.4f} [{nll.low:+.4f}, {nll.high:+.4f}]"),
        ):
            rows.append(
                [name, when, str(metrics[name]["n"]), *(f"{metrics[name][key]:.4f}" for key, _ in _COLUMNS), last]
            )
    return rows


def _card(bundle: Bundle, name: str, fit: str, gain: Gain) -> str:
    """The card; ``fit`` says when, and on what data, the calibration was fitted."""
    header, *rows = table(gain)
    original = bundle.manifest.name
    original_card = bundle.path(CARD).read_text(encoding="utf-8") if CARD in bundle.manifest.files else ""
    return f"""# {name}: {original}, calibration fitted again

By `aecf calibrate` {fit}. All weights are those of
{original}. Fitted again were how far each modality is trusted (two numbers each; temperatures where the gate has none),
the thresholds of prediction sets and of conflict, and what drift is measured against. \
Limits of out of distribution were only ever moved outward.

{markdown_table(header, rows)}

Each span was answered by a fit to the other spans, in {FOLDS} folds; what is in this bundle is fitted to all of them. \
{gain.verdict}.

Everything below is the card of {original}: its test figures were measured before this fit, on other data, \
and were not touched.

{original_card}"""
