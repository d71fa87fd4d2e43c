"""Export trained modules as ONNX graphs, compare them with torch, and write a bundle directory that verifies."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from aecf_ros.core.bundle import MANIFEST, Manifest, load_bundle, sha256, write_manifest
from aecf_ros.core.types import subset_name
from aecf_ros.fusion.layer import AECF
from aecf_ros.fusion.presence.agreement import agreement
from aecf_ros.fusion.presence.masking import all_subsets, keep_present, subset_index
from aecf_ros.training.calibration.calibrate import Calibration, alone_probabilities, nearest_center
from aecf_ros.training.export.fast_head import (
    CONFLICT,
    LOW_CONFIDENCE,
    NO_STREAM,
    OK,
    OUT_OF_DISTRIBUTION,
    FastHead,
    has_fast_form,
)
from aecf_ros.training.onnx_session import open_session

OPSET = 18
HEAD_OUTPUTS = (
    "probabilities",
    "confidence",
    "gate_weights",
    "gate_entropy",
    "agreement",
    "modality_probabilities",
    "prediction_set",
    "abstain_code",
    "distances",
)

DISTANCE_TOLERANCE = 1e-2
"""A squared distance is a small difference of large squares where samples are few and embeddings wide."""


class ExportError(RuntimeError):
    """An exported graph that does not compute what the trained module does."""


class Distances(Protocol):
    """What every calibration has; see :class:`aecf_ros.training.calibration.calibrate.Calibration`."""

    @property
    def conflict_below(self) -> float: ...
    @property
    def centers(self) -> list[np.ndarray]: ...
    @property
    def whiteners(self) -> list[np.ndarray]: ...
    @property
    def outlier_above(self) -> np.ndarray: ...


class CalibratedHead(nn.Module):
    """The fusion layer with the calibration that every task has: outlier distances, and when to abstain."""

    outlier_above: Tensor
    set_thresholds: Tensor  # of the subclasses

    def __init__(self, fusion: AECF, calibration: Distances, abstain_below: float = 0.0) -> None:
        super().__init__()
        self.fusion = fusion
        self.modalities = len(calibration.centers)
        self.register_buffer("outlier_above", torch.from_numpy(calibration.outlier_above))
        for kind, values in (("centers", calibration.centers), ("whitener", calibration.whiteners)):
            for m, value in enumerate(values):
                self.register_buffer(f"{kind}_{m}", torch.from_numpy(value))
        self.conflict_below, self.abstain_below = calibration.conflict_below, abstain_below

    def distances(self, embeddings: Sequence[Tensor]) -> Tensor:
        """float32 (B, M): squared Mahalanobis distance of each modality to its nearest class center.

        1 is the distance beyond which a modality is out of distribution.
        """
        nearest = [
            nearest_center(e, getattr(self, f"centers_{m}"), getattr(self, f"whitener_{m}"))
            for m, e in enumerate(embeddings)
        ]
        return torch.stack(nearest, dim=1) / self.outlier_above

    def abstain_code(self, distances: Tensor, present: Tensor, confidence: Tensor, agreed: Tensor) -> Tensor:
        """int64 (B,). Out of distribution only where every stream is: one good stream is enough to go on."""
        count = present.sum(dim=1)
        code = torch.where(confidence < self.abstain_below, LOW_CONFIDENCE, OK)
        code = torch.where((count > 1) & (agreed < self.conflict_below), CONFLICT, code)
        code = torch.where(((distances > 1.0) | ~present).all(dim=1), OUT_OF_DISTRIBUTION, code)
        return torch.where(count == 0, NO_STREAM, code)


class ExportedHead(CalibratedHead):
    """What ``head.onnx`` computes where a sample has one label."""

    temperatures: Tensor

    def __init__(self, fusion: AECF, calibration: Calibration) -> None:
        super().__init__(fusion, calibration, calibration.abstain_below)
        self.register_buffer("temperatures", torch.from_numpy(calibration.temperatures))
        self.register_buffer("set_thresholds", torch.from_numpy(calibration.set_thresholds))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """An embedding float32 (B, D_m) for each modality, then ``present`` bool (B, M), to HEAD_OUTPUTS."""
        *raw, present = inputs
        embeddings = [keep_present(e, present[:, m]) for m, e in enumerate(raw)]
        out = self.fusion(embeddings, present)
        pattern = subset_index(present)
        probabilities = torch.softmax(out.logits / self.temperatures[pattern].unsqueeze(1), dim=1)  # (B, C)
        confidence, best = probabilities.max(dim=1)
        alone = alone_probabilities(out.modality_logits, self.temperatures)  # (B, M, C)
        agreed = agreement(alone, present)
        labels = torch.arange(probabilities.shape[1]).unsqueeze(0)
        # The most probable label is always in: an empty set tells a user nothing, and this can only raise the coverage.
        prediction_set = (probabilities >= self.set_thresholds[pattern].unsqueeze(1)) | (labels == best.unsqueeze(1))
        distances = torch.where(present, self.distances(embeddings), 0.0)
        code = self.abstain_code(distances, present, confidence, agreed)
        return probabilities, confidence, out.gate_weights, out.entropy, agreed, alone, prediction_set, code, distances


def export_onnx(
    module: nn.Module, inputs: Sequence[Tensor], input_names: Sequence[str], output_names: Sequence[str], path: Path
) -> None:
    """Write a single-file ONNX graph whose batch axis is dynamic and named ``batch``.

    A head is written as a :class:`FastHead` where it can be one.
    """
    if isinstance(module, ExportedHead) and has_fast_form(module):
        module = FastHead(module)
    batch = torch.export.Dim("batch", min=1, max=65536)
    shapes = tuple({0: batch} for _ in inputs)
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module.eval(),
                tuple(inputs),
                input_names=list(input_names),
                output_names=list(output_names),
                opset_version=OPSET,
                dynamo=True,
                dynamic_shapes=(shapes,) if _takes_varargs(module) else shapes,
                verbose=False,
                optimize=True,
            )
    finally:
        exporter.setLevel(level)
    assert program is not None  # with dynamo=True
    model = program.model_proto
    for node in model.graph.node:
        node.ClearField("metadata_props")  # stack traces with the paths of this machine
        node.doc_string = ""
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        value.ClearField("metadata_props")
    del model.graph.value_info[:]
    model.graph.ClearField("metadata_props")
    model.ClearField("metadata_props")
    model.graph.doc_string = model.doc_string = ""
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _takes_varargs(module: nn.Module) -> bool:
    return isinstance(module, (CalibratedHead, FastHead))


def verify_encoder(encoder: nn.Module, path: Path, sample: Tensor, input_name: str, tolerance: float = 1e-3) -> None:
    """Compare graph and module on a batch and on its first row alone.

    Raises:
        ExportError: they differ by more than ``tolerance``.
    """
    session = open_session(path)
    for rows in (sample, sample[:1]):
        with torch.inference_mode():
            expected = encoder(rows).numpy()
        embedding = session.run(["embedding"], {input_name: rows.numpy()})[0]
        gap = float(np.abs(embedding - expected).max())
        if not gap <= tolerance:
            raise ExportError(
                f"{path.name}: the graph differs from the trained encoder by {gap:.2g}; "
                "report this with the torch and onnx versions"
            )


def verify_head(
    head: CalibratedHead, path: Path, embeddings: Sequence[Tensor], names: Sequence[str], tolerance: float = 1e-4
) -> None:
    """Compare graph and module for every presence pattern, with NaN as the embeddings of absent modalities.

    Raises:
        ExportError: an output differs by more than ``tolerance`` (relative where it is above 1) or is not finite, or a
            set or code differs where rounding does not decide.
    """
    session = open_session(path)
    rows = len(embeddings[0])
    for pattern in [(False,) * len(names), *all_subsets(len(names))]:
        present = torch.tensor(pattern).expand(rows, -1).contiguous()
        with torch.inference_mode():
            outputs = head(*embeddings, present)
        poisoned = [e if used else torch.full_like(e, torch.nan) for e, used in zip(embeddings, pattern, strict=True)]
        feed = {f"embedding_{name}": e.numpy() for name, e in zip(names, poisoned, strict=True)} | {
            "present": present.numpy()
        }
        for name, answer, expected in zip(HEAD_OUTPUTS, session.run(list(HEAD_OUTPUTS), feed), outputs, strict=True):
            expected = expected.numpy()
            if expected.dtype == np.float32:
                allowed = DISTANCE_TOLERANCE if name == "distances" else tolerance
                same = (np.abs(answer - expected) <= allowed * np.maximum(np.abs(expected), 1.0)).all()
            else:
                same = (answer == expected)[~_on_the_edge(head, name, pattern, outputs, tolerance)].all()
            if not same:
                raise ExportError(
                    f"{path.name}: output '{name}' differs from the trained head with "
                    f"{subset_name(names, pattern)} present; "
                    "report this with the torch and onnx versions"
                )


def _on_the_edge(
    head: CalibratedHead, name: str, pattern: Sequence[bool], outputs: Sequence[Tensor], tolerance: float
) -> np.ndarray:
    """Where rounding may decide ``prediction_set`` or ``abstain_code``: bool of the output's shape.

    There the compared value lies within ``tolerance`` of its threshold.
    """
    values = dict(zip(HEAD_OUTPUTS, outputs, strict=True))
    if name == "prediction_set":
        probabilities = values["probabilities"]
        threshold = head.set_thresholds[int(subset_index(torch.tensor(pattern)))]
        top = probabilities.amax(1, keepdim=True) - probabilities <= tolerance  # the most probable label is always in
        return (((probabilities - threshold).abs() <= tolerance) | (top & (top.sum(1, keepdim=True) > 1))).numpy()
    edges = [
        (values["confidence"] - head.abstain_below).abs() <= tolerance,
        (values["agreement"] - head.conflict_below).abs() <= tolerance,
        ((values["distances"] - 1.0).abs() <= DISTANCE_TOLERANCE).any(1),
    ]
    return torch.stack(edges).any(0).numpy()


def write_bundle(
    out: Path, files: dict[str, Callable[[Path], object]], card: str, manifest: Callable[[dict[str, str]], Manifest]
) -> Manifest:
    """Write a bundle beside ``out``, verify it, then move its files into ``out``, ``bundle.yaml`` last.

    Args:
        out: bundle directory, made where it is missing; other files in it stay.
        files: file name -> function that writes (and verifies) it at a path.
        card: text of MODEL_CARD.md.
        manifest: (SHA-256 by file name) -> manifest.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as name:
        scratch = Path(name)
        for file, write in files.items():
            write(scratch / file)
        (scratch / "MODEL_CARD.md").write_text(card, encoding="utf-8")
        made = manifest({file: sha256(scratch / file) for file in [*files, "MODEL_CARD.md"]})
        write_manifest(made, scratch)
        load_bundle(scratch)
        out.mkdir(exist_ok=True)
        for file in [*files, "MODEL_CARD.md", MANIFEST]:
            os.replace(scratch / file, out / file)
    load_bundle(out)
    return made
