"""The stages of a run: encoders and features, the head, its gate, its calibration. Each is kept in the run folder under a hash of what
determines it.
"""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from aecf_ros.fusion.gates.reliability import EvidenceGate
from aecf_ros.fusion.layer import AECF
from aecf_ros.modalities.vector.spec import VectorSpec
from aecf_ros.training.calibration.calibrate import Calibration, calibrate
from aecf_ros.training.data.corpus import Corpus
from aecf_ros.training.data.npy_units import FolderUnit
from aecf_ros.training.export.head_graph import CalibratedHead, ExportedHead
from aecf_ros.training.features.cache import Extraction, extract
from aecf_ros.training.features.encoder_training import TrainedEncoder, fit_encoder, samples_of
from aecf_ros.training.features.onnx_encoder import Encoder, FrozenEncoder
from aecf_ros.training.features.ray_extraction import extract_on_ray
from aecf_ros.training.features.standardizer import standardizing_encoder
from aecf_ros.training.head.batch_sampler import draws_of
from aecf_ros.training.head.distributed import ALONE, Ranks
from aecf_ros.training.head.feature_tables import Part, gather
from aecf_ros.training.head.fit_gate import Settled, fit_gate, settle_gate
from aecf_ros.training.head.fit_loop import Advance
from aecf_ros.training.head.multilabel_head import LabelCalibration, LabelHead, calibrate_labels
from aecf_ros.training.head.train_head import fit_experts, new_head, put_prior
from aecf_ros.training.run.config import TrainConfig
from aecf_ros.training.run.run_folder import RunFolder

HEAD_SEED = 11
"""Added to the seed of a run for its head."""


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
    extraction = Extraction(corpus, encoders, copies, config.seed, folder.features)
    if ray is not None:
        extract_on_ray(extraction, ray or None, advance)
    if ranks.size > 1:
        extract(extraction, ranks.share, advance)
        ranks.wait()
    features = extract(extraction, progress=advance)
    return encoders, gather(corpus, features)


def _fit_encoder(corpus: Corpus, index: int, config: TrainConfig, folder: RunFolder, progress: Progress) -> Encoder:
    spec = corpus.modalities[index]
    if isinstance(spec, VectorSpec):
        units = corpus.parts["fusion"] if corpus.paired else units_of(corpus, "fusion", spec.name)
        return standardizing_encoder(spec, units, folder.checkpoints, config.threads)
    settings, stage = config.encoder(spec.name, spec.kind), f"{spec.name} encoder"
    task = progress.add_task(stage, total=settings.optimizer.epochs, note="")
    samples = samples_of(units_of(corpus, "encoders", spec.name))
    module, history = fit_encoder(
        spec,
        samples,
        corpus.classes,
        settings,
        config.seed * 31 + index,
        folder.checkpoints,
        _advance(progress, task),
        config.mixed_precision,
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
    head = new_head(
        [encoders[name].embedding_dim for name in corpus.names], corpus.classes, settings, seed, corpus.multilabel
    )
    frequencies = None if part.moments is None else part.moments.labels
    if frequencies is not None and (corpus.multilabel or not settings.balanced):
        put_prior(head, frequencies, corpus.sets)
    task = progress.add_task("head", total=settings.optimizer.epochs, note="")
    tables = part.tables(settings.field_copies)
    advance = _advance(progress, task)
    draws, mixed = draws_of(part, settings), config.mixed_precision
    folder.log(
        "head", fit_experts(head, tables, draws, settings, seed, folder.checkpoints, advance, mixed, ranks, corpus.sets)
    )
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


def calibrated(
    head: AECF, corpus: Corpus, parts: Mapping[str, Part], config: TrainConfig
) -> tuple[Calibration | LabelCalibration, CalibratedHead]:
    """What the exported head adds to the fusion layer, and that head."""
    part = parts["calibration"]
    if corpus.multilabel:
        fitted = calibrate_labels(head, corpus.names, part, parts["fusion"].embeddings, config.calibration)
        return fitted, LabelHead(head, fitted).eval()
    reference = [(of.embeddings, of.labels) for of in parts["fusion"].clean]
    pairs = part.calibration_pairs(config.pairs, config.seed)
    calibration = calibrate(head, corpus.names, part.embeddings, pairs, config.calibration, reference)
    return calibration, ExportedHead(head, calibration).eval()


def units_of(corpus: Corpus, part: str, modality: str) -> list[FolderUnit]:
    """The units of one modality in a part; none where units hold moments of several."""
    return [] if corpus.paired else [unit for unit in corpus.parts.get(part, ()) if unit.modality == modality]
