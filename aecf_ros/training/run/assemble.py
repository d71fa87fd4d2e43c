"""Assembly of the bundle: its files, its manifest and its card."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch

from aecf_ros.core.bundle import FORMAT_VERSION, Manifest
from aecf_ros.training.calibration.calibrate import Calibration
from aecf_ros.training.calibration.drift_reference import drift_reference
from aecf_ros.training.config import TrainConfig
from aecf_ros.training.data.corpus import Corpus
from aecf_ros.training.evaluation.card import label_card, model_card
from aecf_ros.training.evaluation.evaluate import Evaluation, rounded
from aecf_ros.training.export.head_graph import (
    HEAD_OUTPUTS,
    CalibratedHead,
    export_onnx,
    verify_encoder,
    verify_head,
    write_bundle,
)
from aecf_ros.training.export.head_weights import HEAD_WEIGHTS, save_head
from aecf_ros.training.export.torch_programs import export_program
from aecf_ros.training.features.encoder_training import TrainedEncoder, to_tensor
from aecf_ros.training.features.onnx_encoder import OUTPUT, Encoder, FrozenEncoder
from aecf_ros.training.head.feature_tables import PartFeatures
from aecf_ros.training.head.fit_gate import Settled
from aecf_ros.training.head.multilabel_head import LabelCalibration
from aecf_ros.training.run.run import Run
from aecf_ros.training.run.run_folder import version
from aecf_ros.training.run.stages import HeadArtifact

Writer = Callable[[Path], object]
"""Writes a file of a bundle; raises ExportError if the file does not compute what was trained."""


@dataclass(frozen=True)
class Trained:
    """The artifacts of a run."""

    encoders: Mapping[str, Encoder]
    head: HeadArtifact
    evaluation: Evaluation


def assemble(run: Run, out: Path, parts: Mapping[str, PartFeatures], trained: Trained) -> Manifest:
    """Write a verified bundle; other files in ``out`` stay.

    Raises:
        ExportError: a graph does not compute what was trained.
    """
    corpus, config, head = run.corpus, run.config, trained.head
    names = corpus.names
    files: dict[str, Writer] = {
        f"{name}_encoder.onnx": _encoder_writer(corpus, trained.encoders[name]) for name in names
    }
    files["head.onnx"] = head_writer(head.module, names, parts["test"].embeddings)
    if isinstance(calibration := head.calibration, Calibration):
        options = config.head.options.model_dump()
        files[HEAD_WEIGHTS] = lambda path: save_head(path, head.module.fusion, calibration, options)
    if config.programs:
        files |= {
            f"{name}_encoder.pt2": _program_writer(corpus, encoder)
            for name, encoder in trained.encoders.items()
            if isinstance(encoder, TrainedEncoder)
        }
    fields = _fields(run, out.name, parts, trained)
    placeholder = dict.fromkeys([*files, "MODEL_CARD.md"], "0" * 64)
    manifest = Manifest.model_validate(fields | {"files": placeholder})
    if isinstance(head.calibration, LabelCalibration):
        card = label_card(manifest, head.calibration, trained.evaluation, corpus, parts)
    else:
        card = model_card(manifest, head.calibration, trained.evaluation, head.settled, corpus, parts)
    return write_bundle(out, files, card, lambda hashes: Manifest.model_validate(fields | {"files": hashes}))


def _encoder_writer(corpus: Corpus, encoder: Encoder) -> Writer:
    if isinstance(encoder, FrozenEncoder):
        return lambda path: shutil.copyfile(encoder.path, path)
    assert isinstance(encoder, TrainedEncoder)  # frozen or trained here

    def write(path: Path) -> None:
        sample = to_tensor(_samples(corpus, encoder, 16))
        input_name = encoder.spec.input_name
        export_onnx(encoder.module, [sample], [input_name], [OUTPUT], path)
        verify_encoder(encoder.module, path, sample, input_name)

    return write


def _program_writer(corpus: Corpus, encoder: TrainedEncoder) -> Writer:
    return lambda path: export_program(encoder.module, to_tensor(_samples(corpus, encoder, 1)), path)


def _samples(corpus: Corpus, encoder: Encoder, count: int) -> np.ndarray:
    """The first samples of the test part."""
    name = encoder.spec.name
    batches = (
        batch.inputs[name]
        for unit in corpus.parts["test"]
        for batch in unit.batches(count)
        if len(batch.inputs.get(name, ()))
    )
    return next(batches)[:count]


def head_writer(head: CalibratedHead, names: Sequence[str], embeddings: Sequence[np.ndarray]) -> Writer:
    """A function that exports a head and verifies the graph.

    Args:
        embeddings: float32 ``(N_m, D_m)`` of each modality; the graph is verified on the first rows.
    """

    def write(path: Path) -> None:
        sample = [torch.from_numpy(embedding[np.resize(np.arange(len(embedding)), 256)]) for embedding in embeddings]
        present = torch.ones(len(sample[0]), len(names), dtype=torch.bool)
        export_onnx(head, [*sample, present], [*(f"embedding_{name}" for name in names), "present"], HEAD_OUTPUTS, path)
        verify_head(head, path, sample, names)

    return write


def _fields(run: Run, name: str, parts: Mapping[str, PartFeatures], trained: Trained) -> dict:
    """The fields of the manifest, without the hashes of the files."""
    corpus, config = run.corpus, run.config
    calibration, encoders = trained.head.calibration, trained.encoders
    pairs = parts["calibration"].calibration_pairs(config.pairs, config.seed)
    live = [embedding[pairs.rows[:, m]] for m, embedding in enumerate(parts["calibration"].embeddings)]
    credits = [
        f"encoder of {encoder.spec.name}: {encoder.credits}"
        for encoder in encoders.values()
        if isinstance(encoder, FrozenEncoder) and encoder.credits
    ]
    return {
        "format_version": FORMAT_VERSION,
        "name": name,
        "description": config.description or corpus.description,
        "task": "multilabel" if corpus.multilabel else "multiclass",
        "labels": list(corpus.labels),
        "modalities": [
            encoder.spec.model_dump(mode="json", exclude={"sources"})
            | {"encoder": f"{encoder.spec.name}_encoder.onnx", "embedding_dim": encoder.embedding_dim}
            for encoder in (encoders[name] for name in corpus.names)
        ],
        "head": "head.onnx",
        "head_weights": None if corpus.multilabel else HEAD_WEIGHTS,
        "drift": drift_reference(trained.head.module, corpus.names, live, pairs.present).model_dump(),
        "calibration": {
            "method": _label_method()
            if corpus.multilabel
            else f"{_method(trained.head.settled)}; set_threshold is the least probability in a set",
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
            "data": [*corpus.sources, *credits],
            "seed": config.seed,
            "config": _portable(config),
            "created": datetime.now(timezone.utc).date().isoformat(),
            "samples": _counts(corpus, parts),
            "aecf_ros_version": version(),
        },
        "metrics": rounded(trained.evaluation.metrics),
    }


def _portable(config: TrainConfig) -> dict:
    """The configuration without folders of this machine."""
    fields = config.model_dump(mode="json")
    for settings in fields["encoders"].values():
        settings["onnx"] = settings["onnx"] and Path(settings["onnx"]).name
    return fields


def _counts(corpus: Corpus, parts: Mapping[str, PartFeatures]) -> dict[str, int]:
    """Samples of each modality in each part; first those that encoders were trained on."""
    counts = {}
    if not corpus.paired and any(corpus.parts.get("encoders", ())):
        for name in corpus.names:
            counts[f"encoders/{name}"] = sum(
                len(unit.labels) for unit in corpus.parts["encoders"] if unit.modality == name
            )
    for part, features in parts.items():
        counts |= {f"{part}/{name}": len(table) for name, table in zip(corpus.names, features.clean, strict=True)}
    return counts


def _label_method() -> str:
    return (
        "scale and shift of each label's log-odds and a split-conformal threshold for each label that is there, "
        "by presence pattern; temperature is "
        "the median over labels of 1 / scale, set_threshold that of the least probability in a set"
    )


def _method(settled: Settled | None) -> str:
    conformal = "split-conformal threshold for each presence pattern"
    if settled is None:
        return f"temperature and {conformal}"
    fitted = "fitted out of fold and shifted to" if any(settled.kept) else "shifted to"
    return f"reliability of each modality {fitted} the calibration part, no temperature; {conformal}"
