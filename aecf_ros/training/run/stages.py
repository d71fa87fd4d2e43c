"""The stages of a run: encoders, features, the head, its calibration.

What a stage fits is kept in the run folder under a fingerprint of everything that determines it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aecf_ros.fusion.gates.reliability import EvidenceGate
from aecf_ros.fusion.layer import AECF
from aecf_ros.modalities.audio.spec import AudioSpec
from aecf_ros.modalities.image.spec import ImageSpec
from aecf_ros.modalities.vector.spec import VectorSpec
from aecf_ros.training.calibration.calibrate import Calibration, calibrate
from aecf_ros.training.export.head_graph import CalibratedHead, ExportedHead
from aecf_ros.training.features.cache import Extraction, extract
from aecf_ros.training.features.encoder_training import TrainedEncoder, fit_encoder, samples_of
from aecf_ros.training.features.onnx_encoder import Encoder
from aecf_ros.training.features.ray_extraction import extract_on_ray
from aecf_ros.training.features.standardizer import standardizing_encoder
from aecf_ros.training.head.batch_sampler import pair_sampler
from aecf_ros.training.head.feature_tables import PartFeatures, gather
from aecf_ros.training.head.fit_gate import Settled, fit_gate, settle_gate
from aecf_ros.training.head.multilabel_head import LabelCalibration, LabelHead, calibrate_labels
from aecf_ros.training.head.train_head import fit_experts, new_head, set_prior
from aecf_ros.training.run.preflight import units_of
from aecf_ros.training.run.run import Run


@dataclass(frozen=True)
class HeadArtifact:
    """The head of a run as it is exported.

    Attributes:
        module: the fusion layer with its calibration.
        settled: what the calibration part decided of an evidence gate; ``None`` for other gates.
    """

    module: CalibratedHead
    calibration: Calibration | LabelCalibration
    settled: Settled | None


def train_encoders(run: Run) -> dict[str, Encoder]:
    """The encoder of each modality. The first process trains them; the others load its checkpoints."""
    if not run.processes.is_first:
        run.processes.wait()
    encoders = {m.name: run.frozen.get(m.name) or _fit_encoder(run, i) for i, m in enumerate(run.corpus.modalities)}
    if run.processes.is_first:
        run.processes.wait()
    return encoders


def _fit_encoder(run: Run, index: int) -> Encoder:
    corpus, config, spec = run.corpus, run.config, run.corpus.modalities[index]
    if isinstance(spec, VectorSpec):
        units = corpus.parts["fusion"] if corpus.paired else units_of(corpus, "fusion", spec.name)
        return standardizing_encoder(spec, units, run.folder.checkpoints, config.threads)
    assert isinstance(spec, (ImageSpec, AudioSpec))  # others have no encoder to train
    settings, stage = config.encoder(spec.name, spec.kind), f"{spec.name} encoder"
    samples = samples_of(units_of(corpus, "encoders", spec.name))
    context = run.fit_context(stage, settings.optimizer.epochs, run.encoder_seed(index))
    module, history = fit_encoder(spec, samples, corpus.classes, settings, context)
    run.folder.log(stage, history)
    return TrainedEncoder(module, spec)


def extract_features(run: Run, encoders: Mapping[str, Encoder]) -> dict[str, PartFeatures]:
    """Features of every part but that of the encoders. Each process computes those of its share of the units."""
    task = run.progress.add_task("features", total=None, note="")

    def show(done: int, total: int, rate_hz: float) -> None:
        note = f"{rate_hz:.0f} samples/s" if rate_hz else ""
        run.progress.update(task, completed=done, total=total, note=note)

    copies = {"fusion": run.config.head.field_copies, "calibration": 0, "test": 1}
    extraction = Extraction(run.corpus, encoders, copies, run.config.seed, run.folder.features)
    if run.workers.ray is not None:
        extract_on_ray(extraction, run.workers.ray or None, show)
    if run.processes.size > 1:
        extract(extraction, run.processes.share, show)
        run.processes.wait()
    return gather(run.corpus, extract(extraction, progress=show))


def fit_head(run: Run, part: PartFeatures) -> AECF:
    """Train the head on the part ``fusion``, its gate included."""
    corpus, config = run.corpus, run.config.head
    widths = [embeddings.shape[1] for embeddings in part.embeddings]
    head = new_head(widths, corpus.classes, config, run.head_seed, corpus.multilabel)
    frequencies = None if part.moments is None else part.moments.labels
    if frequencies is not None and (corpus.multilabel or not config.balanced):
        set_prior(head, frequencies, corpus.sets)
    tables = part.tables(config.field_copies)
    context = run.fit_context("head", config.optimizer.epochs, run.head_seed, run.processes)
    run.folder.log("head", fit_experts(head, tables, pair_sampler(part, config), config, context, corpus.sets))
    if frequencies is not None:
        set_prior(head, frequencies, corpus.sets)
    if corpus.multilabel or not isinstance(head.gate, EvidenceGate):
        return head
    context = run.fit_context("reliability", len(tables), run.head_seed, run.processes)
    return fit_gate(head, tables, config.reliability, context)


def settle_head(run: Run, head: AECF, part: PartFeatures) -> tuple[AECF, Settled | None]:
    """Settle an evidence gate on the part ``calibration``; other heads stay as they are."""
    if head.multilabel or not isinstance(head.gate, EvidenceGate):
        return head, None
    pairs = part.calibration_pairs(run.config.pairs, run.config.seed)
    return settle_gate(head, part.clean, pairs, run.config.head.reliability)


def calibrate_head(run: Run, head: AECF, parts: Mapping[str, PartFeatures]) -> HeadArtifact:
    """Settle the head on the part ``calibration`` and fit its calibration there."""
    corpus, config, part = run.corpus, run.config, parts["calibration"]
    if corpus.multilabel:
        tables = calibrate_labels(head, corpus.names, part, parts["fusion"].embeddings, config.calibration)
        return HeadArtifact(LabelHead(head, tables).eval(), tables, None)
    head, settled = settle_head(run, head, part)
    reference = [(table.embeddings, table.labels) for table in parts["fusion"].clean]
    pairs = part.calibration_pairs(config.pairs, config.seed)
    calibration = calibrate(head, corpus.names, part.embeddings, pairs, config.calibration, reference)
    return HeadArtifact(ExportedHead(head, calibration).eval(), calibration, settled)
