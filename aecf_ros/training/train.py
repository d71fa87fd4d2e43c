"""One run: encoders, features, head, calibration, bundle. Every stage is kept in the run folder under a hash of what
determines it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from aecf_ros.core.bundle import Manifest, load_bundle
from aecf_ros.fusion.layer import AECF
from aecf_ros.fusion.reliability import EvidenceGate
from aecf_ros.training.assemble import Trained, assemble
from aecf_ros.training.calibrate import Calibration, calibrate
from aecf_ros.training.config import ConfigError, TrainConfig
from aecf_ros.training.corpus import Corpus
from aecf_ros.training.datasets import ModalitySpec, VectorSpec
from aecf_ros.training.draws import draws_of
from aecf_ros.training.evaluation import answers_of, evaluate
from aecf_ros.training.export import CalibratedHead, ExportedHead
from aecf_ros.training.features import TrainedEncoder, fit_encoder, samples_of
from aecf_ros.training.frozen import INPUTS, Encoder, FrozenEncoder, open_encoder
from aecf_ros.training.gate import Settled, fit_gate, settle_gate
from aecf_ros.training.head import fit_experts, new_head, put_prior
from aecf_ros.training.label_head import LabelCalibration, LabelHead, calibrate_labels
from aecf_ros.training.loop import Advance
from aecf_ros.training.parts import Part, gather
from aecf_ros.training.ranks import ALONE, Ranks
from aecf_ros.training.run_folder import RunFolder
from aecf_ros.training.shards import extract
from aecf_ros.training.spread import extract_on_ray
from aecf_ros.training.vectors import standardizing_encoder

HEAD_SEED = 11


def frozen_encoders(config: TrainConfig) -> dict[str, FrozenEncoder]:
    """The encoders that a configuration names files of, by modality, in its order; empty where all are trained here.

    Raises:
        EncoderError: one of them cannot be used.
    """
    return {name: open_encoder(of.onnx, name, config.threads) for name, of in config.encoders.items() if of.onnx is not None}


def given_specs(config: TrainConfig) -> list[ModalitySpec]:
    """What a configuration itself says of modalities, in its order: what its encoders take, and how long its vectors are.

    Raises:
        EncoderError: an encoder cannot be used.
    """
    frozen = frozen_encoders(config)
    vectors = {name: VectorSpec(name=name, kind="vector", dim=of.vector) for name, of in config.encoders.items() if of.vector is not None}
    return [frozen[name].spec if name in frozen else vectors[name] for name in config.encoders if name in frozen or name in vectors]


def train(
    corpus: Corpus,
    out: Path | str,
    config: TrainConfig,
    *,
    run: Path | str | None = None,
    show_progress: bool = True,
    ranks: Ranks = ALONE,
    ray: str | None = None,
) -> Manifest:
    """Train on a corpus and write a verified bundle.

    A run that was killed is taken up at its last finished epoch when it is started again with the same data,
    configuration and run folder; stages that a changed configuration does not touch are not repeated.

    Args:
        corpus: as :func:`aecf_ros.commands.data.open_corpus` gives it.
        out: bundle directory; its name is the model's. Files of others in it stay.
        config: the configuration.
        run: folder of the run (:class:`aecf_ros.training.run_folder.RunFolder`); ``out/train/<name>`` here if left out.
        show_progress: draw progress bars on standard error.
        ranks: the processes that share the work; all call this with the same arguments and see the same folders, the first
            writes the bundle.
        ray: address of a Ray cluster over which features are computed, empty to start one here; ``None`` for none.

    Raises:
        ClusterError: Ray is asked for and cannot be had.
        ConfigError, DatasetError, EncoderError, CalibrationError, ExportError, FloatingPointError: one line each, saying
            what was found and what to do. What reading recordings raises comes through.
    """
    out = Path(out)
    folder = RunFolder(run_folder(out, run), writes=ranks.first)
    torch.set_num_threads(config.threads)
    frozen = check(corpus, config)
    folder.begin(config)
    with progress_bars(show_progress and ranks.first) as progress:
        encoders, parts = prepare(corpus, frozen, config, folder, progress, ranks, ray)
        cross_fitted = fit_head(corpus, parts["fusion"], encoders, config, folder, progress, ranks)
        if not ranks.first:
            ranks.wait()
            return load_bundle(out).manifest
        finishing = progress.add_task("calibrate, export, verify", total=4, note="")
        head, settled = settle_head(cross_fitted, parts["calibration"], config)
        calibration, exported = calibrated(head, corpus, parts, config)
        progress.advance(finishing)
        evaluation = evaluate(parts["test"], corpus.names, answers_of(exported), config)
        progress.advance(finishing)
        folder.report(evaluation)
        progress.advance(finishing)
        manifest = assemble(out, corpus, parts, Trained(encoders, exported, calibration, settled, evaluation), config)
        progress.advance(finishing)
    ranks.wait()
    return manifest


def run_folder(out: Path, run: Path | str | None) -> Path:
    """Where a run is kept."""
    return Path(run) if run is not None else Path("out") / "train" / out.name


def check(corpus: Corpus, config: TrainConfig) -> dict[str, FrozenEncoder]:
    """The frozen encoders of a run. What is wrong with its configuration is said now rather than after an hour of encoders.

    Raises:
        ConfigError, DatasetError, EncoderError: as :func:`train`.
    """
    frozen = frozen_encoders(config)
    for name, of in config.encoders.items():
        whole_kind = name in INPUTS and of.onnx is None and of.vector is None
        if name not in corpus.names and not whole_kind:
            raise ConfigError(f"encoders.{name}: the data has no such modality; it has {', '.join(corpus.names)}")
    if config.programs and frozen:
        raise ConfigError(f"programs: {next(iter(frozen))} has a frozen encoder, of which no program can be made; set programs=false")
    _check_vectors(corpus, frozen, config)
    new_head(_widths(corpus, frozen, config), corpus.classes, config.head, config.seed + HEAD_SEED, corpus.multilabel)
    for m in corpus.modalities:
        if m.name not in frozen and not isinstance(m, VectorSpec):
            samples_of(_units(corpus, "encoders", m.name))
    return frozen


def _check_vectors(corpus: Corpus, frozen: Mapping[str, Encoder], config: TrainConfig) -> None:
    modalities = {m.name: m for m in corpus.modalities}
    for name, of in config.encoders.items():
        found = modalities.get(name)
        if of.vector is not None and not isinstance(found, VectorSpec):
            raise ConfigError(f"encoders.{name}.vector: it is {found.kind} there; leave it out")
        if of.vector is not None and of.vector != found.dim:
            raise ConfigError(f"encoders.{name}.vector: the data has {found.dim} numbers; write that, or leave it out")
    if config.programs and (vectors := [m.name for m in modalities.values() if isinstance(m, VectorSpec) and m.name not in frozen]):
        raise ConfigError(f"programs: {vectors[0]} is vectors, of which no program is made; set programs=false")


def _widths(corpus: Corpus, frozen: Mapping[str, Encoder], config: TrainConfig) -> list[int]:
    return [
        frozen[m.name].embedding_dim if m.name in frozen else m.dim if isinstance(m, VectorSpec) else config.encoder(m.name, m.kind).embedding_dim
        for m in corpus.modalities
    ]


def _units(corpus: Corpus, part: str, name: str) -> list:
    return [] if corpus.paired else [unit for unit in corpus.parts.get(part, ()) if unit.modality == name]


def progress_bars(show: bool) -> Progress:
    """Bars on standard error, each with a note."""
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


def prepare(
    corpus: Corpus,
    frozen: Mapping[str, FrozenEncoder],
    config: TrainConfig,
    folder: RunFolder,
    progress: Progress,
    ranks: Ranks = ALONE,
    ray: str | None = None,
) -> tuple[dict[str, Encoder], dict[str, Part]]:
    """Encoders, trained here where they are not ``frozen``, and what they say of every part but the encoders' own.

    The first process trains encoders, the others take up its checkpoints; each computes the features of its share of the units.
    """
    if not ranks.first:
        ranks.wait()
    encoders: dict[str, Encoder] = {}
    for index, spec in enumerate(corpus.modalities):
        encoders[spec.name] = frozen.get(spec.name) or _fit_encoder(corpus, index, config, folder, progress)
    if ranks.first:
        ranks.wait()
    task = progress.add_task("features", total=None, note="")

    def advance(done: int, total: int, rate: float) -> None:
        progress.update(task, completed=done, total=total, note=f"{rate:.0f} samples/s" if rate else "")

    copies = {"fusion": config.head.field_copies, "calibration": 0, "test": 1}
    if ray is not None:
        extract_on_ray(corpus, encoders, copies, config.seed, folder.features, ray or None, advance)
    if ranks.size > 1:
        extract(corpus, encoders, copies, config.seed, folder.features, ranks.share, advance)
        ranks.wait()
    features = extract(corpus, encoders, copies, config.seed, folder.features, progress=advance)
    return encoders, gather(corpus, features)


def _fit_encoder(corpus: Corpus, index: int, config: TrainConfig, folder: RunFolder, progress: Progress) -> Encoder:
    spec = corpus.modalities[index]
    if isinstance(spec, VectorSpec):
        units = corpus.parts["fusion"] if corpus.paired else _units(corpus, "fusion", spec.name)
        return standardizing_encoder(spec, units, folder.checkpoints, config.threads)
    settings, stage = config.encoder(spec.name, spec.kind), f"{spec.name} encoder"
    task = progress.add_task(stage, total=settings.optimizer.epochs, note="")
    samples = samples_of(_units(corpus, "encoders", spec.name))
    module, history = fit_encoder(
        spec, samples, corpus.classes, settings, config.seed * 31 + index, folder.checkpoints, _advance(progress, task), config.mixed_precision
    )
    folder.log(stage, history)
    return TrainedEncoder(module, spec)


def fit_head(
    corpus: Corpus,
    part: Part,
    encoders: Mapping[str, Encoder],
    config: TrainConfig,
    folder: RunFolder,
    progress: Progress,
    ranks: Ranks = ALONE,
) -> AECF:
    """The head as the part ``fusion`` makes it; its experts' losses go to the log."""
    seed, settings = config.seed + HEAD_SEED, config.head
    head = new_head([encoders[name].embedding_dim for name in corpus.names], corpus.classes, settings, seed, corpus.multilabel)
    frequencies = None if part.moments is None else part.moments.labels
    if frequencies is not None and (corpus.multilabel or not settings.balanced):
        put_prior(head, frequencies, corpus.sets)
    task = progress.add_task("head", total=settings.optimizer.epochs, note="")
    tables = part.tables(settings.field_copies)
    advance = _advance(progress, task)
    draws, mixed = draws_of(part, settings), config.mixed_precision
    folder.log("head", fit_experts(head, tables, draws, settings, seed, folder.checkpoints, advance, mixed, ranks, corpus.sets))
    if frequencies is not None:
        put_prior(head, frequencies, corpus.sets)
    if corpus.multilabel or not isinstance(head.gate, EvidenceGate):
        return head
    task = progress.add_task("reliability", total=len(tables), note="")
    return fit_gate(head, tables, settings.reliability, seed, folder.checkpoints, lambda: progress.advance(task), ranks)


def settle_head(head: AECF, part: Part, config: TrainConfig) -> tuple[AECF, Settled | None]:
    """The head as the part ``calibration`` wants it and, for an evidence gate, what that part decided."""
    if head.multilabel or not isinstance(head.gate, EvidenceGate):
        return head, None
    return settle_gate(head, part.clean, part.calibration_pairs(config.pairs, config.seed), config.head.reliability)


def calibrated(head: AECF, corpus: Corpus, parts: Mapping[str, Part], config: TrainConfig) -> tuple[Calibration | LabelCalibration, CalibratedHead]:
    """What the exported head adds to the fusion layer, and that head."""
    part = parts["calibration"]
    if corpus.multilabel:
        fitted = calibrate_labels(head, corpus.names, part, parts["fusion"].embeddings, config.calibration)
        return fitted, LabelHead(head, fitted).eval()
    reference = [(of.embeddings, of.labels) for of in parts["fusion"].clean]
    pairs = part.calibration_pairs(config.pairs, config.seed)
    calibration = calibrate(head, corpus.names, part.embeddings, pairs, config.calibration, reference)
    return calibration, ExportedHead(head, calibration).eval()
