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
from torch.nn import functional as F

from aecf_ros.core.bundle import FORMAT_VERSION, Manifest
from aecf_ros.core.metrics import subset_metrics
from aecf_ros.core.types import subset_name
from aecf_ros.fusion.layer import AECF
from aecf_ros.fusion.masking import all_subsets, random_subsets
from aecf_ros.training.calibrate import Calibration, calibrate
from aecf_ros.training.card import SourceMetrics, model_card
from aecf_ros.training.config import ConfigError, TrainConfig
from aecf_ros.training.datasets import NOTHING, PARTS, Dataset, Pairs, load_dataset, pair_by_label
from aecf_ros.training.export import (
    CONFLICT,
    HEAD_OUTPUTS,
    ExportedHead,
    export_onnx,
    verify_encoder,
    verify_head,
    write_bundle,
)
from aecf_ros.training.features import embed, fit_encoder, smoothed_targets, to_tensor
from aecf_ros.training.loop import Advance, fingerprint, fit, module_digest

_SEEDS = {"head": 11, "calibration": 12, "test": 13, "mismatch": 14}


@dataclass(frozen=True)
class Evaluation:
    """What the exported head says on the test part.

    ``metrics`` by subset; ``sources`` rows by modality and corpus; ``nothing`` accuracy with all present where one
    shows nothing;
    ``conflicts`` the share of seeded mismatched pairs called a conflict (NaN with one modality).
    """

    metrics: dict[str, dict[str, float | int]]
    sources: list[SourceMetrics]
    nothing: dict[str, float]
    conflicts: float


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
        features = _embed_parts(dataset, encoders, run / "features", progress)
        head, curves["head"] = _fit_head(dataset, features, config, run, progress)
        finishing = progress.add_task("calibrate, export, verify", total=4, note="")
        calibration = _calibrate(dataset, features, head, config)
        progress.advance(finishing)
        exported = ExportedHead(head, calibration).eval()
        evaluation = _evaluate(dataset, features, exported, config)
        progress.advance(finishing)
        from aecf_ros.training.curves import save_curves  # matplotlib takes a second to import

        save_curves(curves, run / "curves.png")
        progress.advance(finishing)
        manifest = _write(out, dataset, encoders, exported, features, calibration, evaluation, config)
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


def _embed_parts(
    dataset: Dataset, encoders: dict[str, nn.Module], cache: Path, progress: Progress
) -> dict[str, list[np.ndarray]]:
    """Embeddings by part, in modality order. The encoders' own part is not needed again."""
    parts = [part for part in PARTS if part != "encoders"]
    task = progress.add_task("features", total=len(parts) * len(encoders), note="")
    features: dict[str, list[np.ndarray]] = {part: [] for part in parts}
    for part in parts:
        for name, encoder in encoders.items():
            features[part].append(embed(encoder, dataset.parts[part][name], cache))
            progress.advance(task)
    return features


def _new_head(dataset: Dataset, config: TrainConfig) -> AECF:
    """An untrained head; its weights depend on the seed only."""
    torch.manual_seed(config.seed + _SEEDS["head"])
    widths = [config.encoder(m.name, m.kind).embedding_dim for m in dataset.spec.modalities]
    try:
        return AECF(widths, dataset.classes, **config.head.options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"head.options: {error}; correct the configuration") from None


def _fit_head(
    dataset: Dataset, features: dict[str, list[np.ndarray]], config: TrainConfig, run: Path, progress: Progress
) -> tuple[AECF, list[float]]:
    """Fit the fusion layer on pairs redrawn every epoch, with a random subset of modalities present in every sample."""
    embeddings = [torch.from_numpy(of) for of in features["fusion"]]
    labels = dataset.labels("fusion")
    head = _new_head(dataset, config)
    settings = config.head.optimizer
    batches = max(config.head.samples_per_epoch // settings.batch_size, 1)

    def losses(epoch: int, generator: torch.Generator):
        draw = np.random.default_rng([config.seed, _SEEDS["head"], epoch])
        pairs = pair_by_label(
            labels, batches * settings.batch_size, config.head.nothing_share, config.head.all_nothing_share, draw
        )
        shows = torch.from_numpy(pairs.shows)
        for start in range(0, len(pairs), settings.batch_size):
            rows = slice(start, start + settings.batch_size)
            present = random_subsets(torch.ones(settings.batch_size, len(labels), dtype=torch.bool), generator)
            seen = torch.where((present & shows[rows]).any(1), torch.from_numpy(pairs.labels[rows]), NOTHING)
            output = head([of[pairs.rows[rows, m]] for m, of in enumerate(embeddings)], present)
            yield F.cross_entropy(output.logits, smoothed_targets(seen, dataset.classes, 0.0))

    digests = [dataset.parts["fusion"][name].digest for name in dataset.names]
    key = fingerprint(
        [str(fingerprint(of.numpy().tobytes())) for of in embeddings],
        digests,
        config.head.model_dump(mode="json"),
        config.seed,
        module_digest(head),
    )
    task = progress.add_task("head", total=settings.epochs, note="")
    history = fit(
        head,
        losses,
        batches,
        settings,
        run / "checkpoints" / f"head-{key}.npz",
        config.seed + _SEEDS["head"],
        _advance(progress, task),
    )
    return head, history


def _calibrate(dataset: Dataset, features: dict[str, list[np.ndarray]], head: AECF, config: TrainConfig) -> Calibration:
    draw = np.random.default_rng([config.seed, _SEEDS["calibration"]])
    pairs = pair_by_label(
        dataset.labels("calibration"), config.pairs.calibration, config.pairs.nothing_share, 0.0, draw
    )
    reference = list(zip(features["fusion"], dataset.labels("fusion"), strict=True))
    return calibrate(head, dataset.names, features["calibration"], pairs, config.calibration, reference)


@torch.inference_mode()
def _answer(
    head: ExportedHead, embeddings: Sequence[np.ndarray], rows: np.ndarray, pattern: np.ndarray
) -> dict[str, np.ndarray]:
    """The head's outputs by name, for pairs ``rows`` (N, M) with the modalities of ``pattern`` (M,) present."""
    inputs = [torch.from_numpy(of[rows[:, m]]) for m, of in enumerate(embeddings)]
    outputs = head(*inputs, torch.from_numpy(pattern).expand(len(rows), -1))
    return {name: value.numpy() for name, value in zip(HEAD_OUTPUTS, outputs, strict=True)}


def _evaluate(
    dataset: Dataset, features: dict[str, list[np.ndarray]], head: ExportedHead, config: TrainConfig
) -> Evaluation:
    names, labels, embeddings = dataset.names, dataset.labels("test"), features["test"]
    draw = np.random.default_rng([config.seed, _SEEDS["test"]])
    pairs = pair_by_label(labels, config.pairs.test, config.pairs.nothing_share, 0.0, draw)
    metrics: dict[str, dict[str, float | int]] = {}
    for subset in reversed(all_subsets(len(names))):
        pattern = np.array(subset)
        shown = pairs.shows[:, pattern].any(1)
        said = _answer(head, embeddings, pairs.rows[shown], pattern)
        metrics[subset_name(names, subset)] = subset_metrics(
            said["probabilities"], pairs.labels[shown], said["prediction_set"]
        )
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
    return Evaluation(metrics, _by_source(dataset, head, embeddings, labels), nothing, conflicts)


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
    features: dict[str, list[np.ndarray]],
    calibration: Calibration,
    evaluation: Evaluation,
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

    def head_writer(path: Path) -> None:
        sample = [torch.from_numpy(of[np.resize(np.arange(len(of)), 256)]) for of in features["test"]]
        present = torch.ones(len(sample[0]), len(names), dtype=torch.bool)
        export_onnx(head, [*sample, present], [*(f"embedding_{name}" for name in names), "present"], HEAD_OUTPUTS, path)
        verify_head(head, path, sample, names)

    files = {f"{name}_encoder.onnx": encoder_writer(m) for m, name in enumerate(names)} | {"head.onnx": head_writer}
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
        "calibration": {
            "method": "temperature and split-conformal threshold for each presence pattern; "
            "set_threshold is the least probability in a set",
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
        evaluation.sources,
        evaluation.nothing,
        evaluation.conflicts,
    )
    return write_bundle(out, files, card, lambda hashes: Manifest.model_validate(fields | {"files": hashes}))


def _version() -> str:
    try:
        return metadata.version("aecf_ros")
    except metadata.PackageNotFoundError:
        return "0.1.0"  # run from a checkout without installing
