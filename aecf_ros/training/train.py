"""One run: encoders, features, head, calibration, export. Every stage is kept in the run folder under a hash of what
determines it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn

from aecf_ros.core.bundle import FORMAT_VERSION, DriftReference, Manifest
from aecf_ros.core.metrics import subset_metrics
from aecf_ros.core.types import subset_name
from aecf_ros.fusion.layer import AECF
from aecf_ros.fusion.masking import all_subsets
from aecf_ros.fusion.reliability import EvidenceGate
from aecf_ros.training.calibrate import Calibration, calibrate, shown_rows
from aecf_ros.training.card import Evaluation, SourceMetrics, model_card
from aecf_ros.training.config import TrainConfig
from aecf_ros.training.datasets import NOTHING, PARTS, Dataset, load_dataset
from aecf_ros.training.export import (
    CONFLICT,
    HEAD_OUTPUTS,
    ExportedHead,
    export_onnx,
    verify_encoder,
    verify_head,
    write_bundle,
)
from aecf_ros.training.features import embed, fit_encoder, to_tensor
from aecf_ros.training.field import CLEAN, Field, draw_field
from aecf_ros.training.head import Settled, Table, fit_experts, fit_gate, new_head, settle_gate
from aecf_ros.training.loop import Advance
from aecf_ros.training.pairs import Pairs, pair_by_label
from aecf_ros.training.programs import export_program
from aecf_ros.training.reference import drift_reference
from aecf_ros.training.weights import HEAD_WEIGHTS, save_head

_SEEDS = {"head": 11, "calibration": 12, "test": 13, "mismatch": 14, "field": 15}


def train(
    data: Path | str, out: Path | str, config: TrainConfig, *, run: Path | str | None = None, show_progress: bool = True
) -> Manifest:
    """Train on a dataset folder and write a verified bundle.

    A run that was killed is taken up at its last finished epoch when it is started again with the same data,
    configuration and run folder; stages that a changed configuration does not touch are not repeated.

    Args:
        data: dataset folder (see :mod:`aecf_ros.training.datasets`).
        out: bundle directory; its name is the model's. Files of others in it stay.
        config: the configuration.
        run: folder for checkpoints, features and loss curves; ``out/train/<name>`` here if left out.
        show_progress: draw progress bars on standard error.

    Raises:
        ConfigError, DatasetError, CalibrationError, ExportError, FloatingPointError: one line each, saying what was
            found and what to do.
    """
    out = Path(out)
    run = Path(run) if run is not None else Path("out") / "train" / out.name
    torch.set_num_threads(config.threads)
    dataset = load_dataset(data)
    _new_head(dataset, config)  # refuses wrong options now rather than after an hour of encoders
    run.mkdir(parents=True, exist_ok=True)
    with _progress(show_progress) as progress:
        encoders, curves = _fit_encoders(dataset, config, run, progress)
        features = _embed_parts(dataset, encoders, config, run / "features", progress)
        head, curves["head"], settled = _fit_head(dataset, features, config, run, progress)
        finishing = progress.add_task("calibrate, export, verify", total=4, note="")
        calibration = _calibrate(dataset, features, head, config)
        progress.advance(finishing)
        exported = ExportedHead(head, calibration).eval()
        evaluation = _evaluate(dataset, features, exported, config)
        progress.advance(finishing)
        from aecf_ros.training.curves import save_curves  # matplotlib takes a second to import

        save_curves(curves, run / "curves.png")
        progress.advance(finishing)
        manifest = _write(out, dataset, encoders, exported, features, calibration, evaluation, settled, config)
        progress.advance(finishing)
    return manifest


def _progress(show: bool) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), disable=not show)


def _advance(progress: Progress, task: int) -> Advance:
    def advance(epochs: float, loss: float) -> None:
        progress.update(task, completed=epochs, note=f"loss {loss:.3f}")

    return advance


def _fit_encoders(
    dataset: Dataset, config: TrainConfig, run: Path, progress: Progress
) -> tuple[dict[str, nn.Module], dict[str, list[float]]]:
    encoders, curves = {}, {}
    for index, spec in enumerate(dataset.spec.modalities):
        encoder_config = config.encoder(spec.name, spec.kind)
        task = progress.add_task(f"{spec.name} encoder", total=encoder_config.optimizer.epochs, note="")
        encoder, curves[f"{spec.name} encoder"] = fit_encoder(
            spec,
            dataset.parts["encoders"][spec.name],
            dataset.classes,
            encoder_config,
            config.seed * 31 + index,
            run / "checkpoints",
            _advance(progress, task),
        )
        encoders[spec.name] = encoder
    return encoders, curves


@dataclass(frozen=True)
class Features:
    """What the frozen encoders say, by part and in modality order.

    ``clean`` the samples as they are; ``corrupted`` the test part with a kind and severity of corruption for each
    sample; ``tables`` the head's part: clean, then its corrupted copies.
    """

    clean: dict[str, list[np.ndarray]]
    corrupted: list[np.ndarray]
    tables: list[Table]


def _embed_parts(
    dataset: Dataset, encoders: dict[str, nn.Module], config: TrainConfig, cache: Path, progress: Progress
) -> Features:
    """Features of all parts but the encoders' own, which is not needed again."""
    parts = [part for part in PARTS if part != "encoders"]
    passes = len(encoders) * (len(parts) + 1 + config.head.field_copies)
    task = progress.add_task("features", total=passes, note="")
    done = iter(range(passes))

    def features(part: str, m: int, field: Field | None = None) -> np.ndarray:
        name, before = dataset.names[m], next(done)
        samples = dataset.parts[part][name]
        embeddings = embed(
            encoders[name], samples, cache, field, lambda share, _: progress.update(task, completed=before + share)
        )
        progress.update(task, completed=before + 1)
        return embeddings

    modalities = range(len(dataset.names))
    clean = {part: [features(part, m) for m in modalities] for part in parts}
    corrupted = [features("test", m, _field(dataset, "test", m, 0, config.seed)) for m in modalities]
    tables = []
    for m, name in enumerate(dataset.names):
        samples = dataset.parts["fusion"][name]
        fields = [_field(dataset, "fusion", m, copy, config.seed) for copy in range(config.head.field_copies)]
        copies = [features("fusion", m, field) for field in fields]
        tables.append(
            Table(
                np.concatenate([clean["fusion"][m], *copies]),
                np.tile(samples.labels, 1 + len(copies)),
                np.concatenate([np.full(len(samples), CLEAN), *(field.kind for field in fields)]),
                np.tile(samples.clusters, 1 + len(copies)),
            )
        )
    return Features(clean, corrupted, tables)


def _field(dataset: Dataset, part: str, modality: int, copy: int, seed: int) -> Field:
    spec = dataset.spec.modalities[modality]
    return draw_field(
        spec.kind, len(dataset.parts[part][spec.name]), [seed, _SEEDS["field"], PARTS.index(part), modality, copy]
    )


def _new_head(dataset: Dataset, config: TrainConfig) -> AECF:
    widths = [config.encoder(m.name, m.kind).embedding_dim for m in dataset.spec.modalities]
    return new_head(widths, dataset.classes, config.head, config.seed + _SEEDS["head"])


def _fit_head(
    dataset: Dataset, features: Features, config: TrainConfig, run: Path, progress: Progress
) -> tuple[AECF, list[float], Settled | None]:
    """The head, its loss curve and, for an evidence gate, what the calibration part decided."""
    head, seed, folder = _new_head(dataset, config), config.seed + _SEEDS["head"], run / "checkpoints"
    task = progress.add_task("head", total=config.head.optimizer.epochs, note="")
    history = fit_experts(
        head, features.tables, dataset.classes, config.head, seed, folder, _advance(progress, task)
    )
    if not isinstance(head.gate, EvidenceGate):
        return head, history, None
    task = progress.add_task("reliability", total=len(dataset.names), note="")
    settings = config.head.reliability
    cross_fitted = fit_gate(head, features.tables, settings, seed, folder, lambda: progress.advance(task))
    parts = [dataset.parts["calibration"][name] for name in dataset.names]
    tables = [
        Table(of, part.labels, np.full(len(part), CLEAN), part.clusters)
        for of, part in zip(features.clean["calibration"], parts, strict=True)
    ]
    head, settled = settle_gate(cross_fitted, tables, _calibration_pairs(dataset, config), settings)
    return head, history, settled


def _calibration_pairs(dataset: Dataset, config: TrainConfig) -> Pairs:
    draw = np.random.default_rng([config.seed, _SEEDS["calibration"]])
    return pair_by_label(
        dataset.labels("calibration"), config.pairs.calibration, config.pairs.nothing_share, 0.0, draw
    )


def _calibrate(dataset: Dataset, features: Features, head: AECF, config: TrainConfig) -> Calibration:
    pairs = _calibration_pairs(dataset, config)
    reference = list(zip(features.clean["fusion"], dataset.labels("fusion"), strict=True))
    return calibrate(head, dataset.names, features.clean["calibration"], pairs, config.calibration, reference)


def _drift_reference(dataset: Dataset, features: Features, head: ExportedHead, config: TrainConfig) -> DriftReference:
    rows = _calibration_pairs(dataset, config).rows
    embeddings = [of[rows[:, m]] for m, of in enumerate(features.clean["calibration"])]
    return drift_reference(head, dataset.names, embeddings, np.ones(rows.shape, bool))


@torch.inference_mode()
def _answer(
    head: ExportedHead, embeddings: Sequence[np.ndarray], rows: np.ndarray, pattern: np.ndarray
) -> dict[str, np.ndarray]:
    """The head's outputs by name, for pairs ``rows`` (N, M) with the modalities of ``pattern`` (M,) present."""
    inputs = [torch.from_numpy(of[rows[:, m]]) for m, of in enumerate(embeddings)]
    outputs = head(*inputs, torch.from_numpy(pattern).expand(len(rows), -1))
    return {name: value.numpy() for name, value in zip(HEAD_OUTPUTS, outputs, strict=True)}


def _evaluate(dataset: Dataset, features: Features, head: ExportedHead, config: TrainConfig) -> Evaluation:
    names, labels, embeddings = dataset.names, dataset.labels("test"), features.clean["test"]
    draw = np.random.default_rng([config.seed, _SEEDS["test"]])
    pairs = pair_by_label(labels, config.pairs.test, config.pairs.nothing_share, 0.0, draw)
    everything = np.ones(len(names), bool)
    said = _answer(head, embeddings, pairs.rows, everything)
    right = said["probabilities"].argmax(1) == pairs.labels
    nothing = {
        name: float(right[~pairs.shows[:, m]].mean()) for m, name in enumerate(names) if (~pairs.shows[:, m]).any()
    }
    conflicts = float("nan")
    if len(names) > 1:
        mismatched = _mismatch(pairs, np.random.default_rng([config.seed, _SEEDS["mismatch"]]))
        conflicts = float((_answer(head, embeddings, mismatched, everything)["abstain_code"] == CONFLICT).mean())
    return Evaluation(
        metrics=_by_subset(names, head, embeddings, pairs),
        corrupted=_by_subset(names, head, features.corrupted, pairs),
        sources=_by_source(dataset, head, embeddings, labels),
        nothing=nothing,
        conflicts=conflicts,
    )


def _by_subset(
    names: Sequence[str], head: ExportedHead, embeddings: Sequence[np.ndarray], pairs: Pairs
) -> dict[str, dict[str, float | int]]:
    """Metrics of each subset on the pairs in which it shows the label, the largest first."""
    metrics: dict[str, dict[str, float | int]] = {}
    for pattern in reversed(all_subsets(len(names))):
        rows = shown_rows(pairs, pattern)
        said = _answer(head, embeddings, pairs.rows[rows], np.array(pattern))
        metrics[subset_name(names, pattern)] = subset_metrics(
            said["probabilities"], pairs.labels[rows], said["prediction_set"]
        )
    return metrics


def _mismatch(pairs: Pairs, generator: np.random.Generator) -> np.ndarray:
    """Rows (N, M) in which the last modality shows another label than the others."""
    full = np.flatnonzero(pairs.shows.all(1))
    other = generator.permutation(full)
    wrong = pairs.labels[full] != pairs.labels[other]
    rows = pairs.rows[full[wrong]].copy()
    rows[:, -1] = pairs.rows[other[wrong], -1]
    return rows


def _by_source(
    dataset: Dataset, head: ExportedHead, embeddings: Sequence[np.ndarray], labels: Sequence[np.ndarray]
) -> list[SourceMetrics]:
    rows = []
    for m, spec in enumerate(dataset.spec.modalities):
        alone = np.arange(len(labels)) == m
        sources = dataset.parts["test"][spec.name].sources
        for index, source in enumerate(spec.sources):
            at = np.flatnonzero((sources == index) & (labels[m] != NOTHING))
            if len(at):
                said = _answer(head, embeddings, _only(m, at, len(labels)), alone)
                right = said["probabilities"].argmax(1) == labels[m][at]
                rows.append(SourceMetrics(spec.name, source, len(at), float(right.mean())))
        at = np.flatnonzero(labels[m] == NOTHING)
        if len(at):
            said = _answer(head, embeddings, _only(m, at, len(labels)), alone)
            rows.append(
                SourceMetrics(spec.name, "nothing there (mean confidence)", len(at), float(said["confidence"].mean()))
            )
    return rows


def _only(modality: int, at: np.ndarray, modalities: int) -> np.ndarray:
    rows = np.zeros((len(at), modalities), np.int64)
    rows[:, modality] = at
    return rows


def _write(
    out: Path,
    dataset: Dataset,
    encoders: dict[str, nn.Module],
    head: ExportedHead,
    features: Features,
    calibration: Calibration,
    evaluation: Evaluation,
    settled: Settled | None,
    config: TrainConfig,
) -> Manifest:
    spec, names = dataset.spec, dataset.names
    inputs = {"image": "image", "audio": "samples"}

    def encoder_writer(index: int):
        modality = spec.modalities[index]
        module, input_name = encoders[modality.name], inputs[modality.kind]
        sample = to_tensor(dataset.parts["test"][modality.name].data[:16])

        def write(path: Path) -> None:
            export_onnx(module, [sample], [input_name], ["embedding"], path)
            verify_encoder(module, path, sample, input_name)

        return write

    def program_writer(index: int):
        modality = spec.modalities[index]
        sample = to_tensor(dataset.parts["test"][modality.name].data[:1])
        return lambda path: export_program(encoders[modality.name], sample, path)

    def head_writer(path: Path) -> None:
        sample = [torch.from_numpy(of[np.resize(np.arange(len(of)), 256)]) for of in features.clean["test"]]
        present = torch.ones(len(sample[0]), len(names), dtype=torch.bool)
        export_onnx(head, [*sample, present], [*(f"embedding_{name}" for name in names), "present"], HEAD_OUTPUTS, path)
        verify_head(head, path, sample, names)

    files = {f"{name}_encoder.onnx": encoder_writer(m) for m, name in enumerate(names)} | {"head.onnx": head_writer}
    files[HEAD_WEIGHTS] = lambda path: save_head(path, head.fusion, calibration, config.head.options)
    if config.programs:
        files |= {f"{name}_encoder.pt2": program_writer(m) for m, name in enumerate(names)}
    fields = {
        "format_version": FORMAT_VERSION,
        "name": out.name,
        "description": config.description or spec.description,
        "labels": spec.labels,
        "modalities": [
            m.model_dump(mode="json", exclude={"sources"})
            | {"encoder": f"{m.name}_encoder.onnx", "embedding_dim": encoders[m.name].embedding_dim}
            for m in spec.modalities
        ],
        "head": "head.onnx",
        "head_weights": HEAD_WEIGHTS,
        "drift": _drift_reference(dataset, features, head, config).model_dump(),
        "calibration": {
            "method": f"{_method(settled)}; set_threshold is the least probability in a set",
            "coverage": calibration.coverage,
            "subsets": {
                fit.name: {
                    "samples": fit.samples,
                    "temperature": round(fit.temperature, 6),
                    "set_threshold": round(fit.set_threshold, 8),
                }
                for fit in calibration.fits
            },
        },
        "training": {
            "data": spec.sources,
            "seed": config.seed,
            "config": config.model_dump(mode="json"),
            "created": datetime.now(UTC).date().isoformat(),
            "samples": {f"{part}/{name}": len(dataset.parts[part][name]) for part in PARTS for name in names},
            "aecf_ros_version": _version(),
        },
        "metrics": {
            name: {key: value if key == "n" else round(value, 6) for key, value in of.items()}
            for name, of in evaluation.metrics.items()
        },
    }
    placeholder = dict.fromkeys([*files, "MODEL_CARD.md"], "0" * 64)
    card = model_card(
        Manifest.model_validate(fields | {"files": placeholder}),
        calibration,
        evaluation,
        settled,
    )
    return write_bundle(out, files, card, lambda hashes: Manifest.model_validate(fields | {"files": hashes}))


def _method(settled: Settled | None) -> str:
    conformal = "split-conformal threshold for each presence pattern"
    if settled is None:
        return f"temperature and {conformal}"
    fitted = "fitted out of fold and shifted to" if any(settled.kept) else "shifted to"
    return f"reliability of each modality {fitted} the calibration part, no temperature; {conformal}"


def _version() -> str:
    try:
        return metadata.version("aecf_ros")
    except metadata.PackageNotFoundError:
        return "0.1.0"  # run from a checkout without installing
