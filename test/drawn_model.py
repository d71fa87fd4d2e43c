"""A small model of two sensors whose embeddings are drawn, not encoded: class centers in noise."""

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from aecf_ros.core.bundle import Bundle, Manifest, load_bundle
from aecf_ros.fusion import AECF
from aecf_ros.training.calibration.calibrate import Calibration, calibrate
from aecf_ros.training.calibration.drift_reference import drift_reference
from aecf_ros.training.config import CalibrationConfig
from aecf_ros.training.export.head_graph import HEAD_OUTPUTS, ExportedHead, export_onnx, verify_head, write_bundle
from aecf_ros.training.export.head_weights import HEAD_WEIGHTS, save_head
from aecf_ros.training.head.pairing import Pairs
from test.conftest import LABELS, RATE_HZ, SIDE, WINDOW_S, write_audio_encoder, write_image_encoder

NAMES = ["camera", "audio"]
SPANS, MOMENTS = 300, 4
"""Of a draw: moments of one span share a part of their noise."""


class Draw:
    """Embeddings float32 ``(N, 3)`` of each sensor, ``labels`` and ``clusters`` int64 ``(N,)``, spans of MOMENTS
    moments.
    """

    def __init__(self, seed: int, noise: float = 0.35, spans: int = SPANS) -> None:
        rng = np.random.default_rng(seed)
        self.clusters = np.repeat(np.arange(spans), MOMENTS)
        self.labels = rng.integers(0, 3, spans)[self.clusters]
        self.embeddings = [
            (
                np.eye(3)[self.labels]
                + noise * (rng.normal(size=(spans, 3))[self.clusters] + 0.5 * rng.normal(size=(len(self.labels), 3)))
            ).astype(np.float32)
            for _ in NAMES
        ]
        self.present = np.ones((len(self.labels), 2), bool)

    @property
    def pairs(self) -> Pairs:
        """Each moment with both sensors."""
        rows = np.tile(np.arange(len(self.labels))[:, None], 2)
        return Pairs(rows, self.labels, np.ones_like(rows, bool))


def fitted(options: dict, seed: int = 0) -> tuple[AECF, Calibration]:
    """A head trained for a second on one draw and calibrated on another."""
    torch.manual_seed(seed)
    head, train, held = AECF([3, 3], 3, **options), Draw(seed), Draw(seed + 1)
    inputs, targets = [torch.from_numpy(of) for of in train.embeddings], torch.from_numpy(train.labels)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    for _ in range(60):
        experts = [
            F.cross_entropy(head.log_prior + expert(of), targets)
            for expert, of in zip(head.experts, inputs, strict=True)
        ]
        optimizer.zero_grad()
        sum(experts).backward()
        optimizer.step()
    if head.monotone == "soft":
        head.monotone_reach = 0.07  # as if the calibration part had decided it
    config = CalibrationConfig(coverage=0.9, minimum_samples=50)
    reference = [(of, train.labels) for of in train.embeddings]
    return head.eval(), calibrate(head.eval(), NAMES, held.embeddings, held.pairs, config, reference)


def write_model(directory: Path, options: dict, seed: int = 0) -> Bundle:
    """A whole bundle around :func:`fitted`, with the encoders of ``test/conftest.py``."""
    head, calibration = fitted(options, seed)
    exported, draw = ExportedHead(head, calibration).eval(), Draw(seed + 1)

    def write_head(path: Path) -> None:
        sample = [torch.from_numpy(of[:64]) for of in draw.embeddings]
        present = torch.ones(64, 2, dtype=torch.bool)
        export_onnx(exported, [*sample, present], [*(f"embedding_{n}" for n in NAMES), "present"], HEAD_OUTPUTS, path)
        verify_head(exported, path, sample, NAMES)

    files = {
        "camera_encoder.onnx": write_image_encoder,
        "audio_encoder.onnx": write_audio_encoder,
        "head.onnx": write_head,
        HEAD_WEIGHTS: lambda path: save_head(path, head, calibration, options),
    }
    subsets = {
        f.name: {"samples": f.samples, "temperature": f.temperature, "set_threshold": f.set_threshold}
        for f in calibration.fits
    }
    fields = {
        "format_version": 1,
        "name": directory.name,
        "labels": LABELS,
        "head": "head.onnx",
        "head_weights": HEAD_WEIGHTS,
        "modalities": [
            {
                "name": "camera",
                "kind": "image",
                "encoder": "camera_encoder.onnx",
                "embedding_dim": 3,
                "height": SIDE,
                "width": SIDE,
            },
            {
                "name": "audio",
                "kind": "audio",
                "encoder": "audio_encoder.onnx",
                "embedding_dim": 3,
                "rate_hz": RATE_HZ,
                "window_s": WINDOW_S,
            },
        ],
        "calibration": {"method": "by the tests", "coverage": 0.9, "subsets": subsets},
        "drift": drift_reference(exported, NAMES, draw.embeddings, draw.present).model_dump(),
        "training": {
            "data": ["drawn"],
            "samples": {},
            "seed": seed,
            "created": "2026-11-21",
            "aecf_ros_version": "0.1.0",
            "config": {
                "calibration": {"coverage": 0.9, "minimum_samples": 50},
                "pairs": {"nothing_share": 0.0, "test": 300},
            },
        },
        "metrics": {},
    }
    write_bundle(
        directory,
        files,
        "# drawn\n\nThe original card.\n",
        lambda hashes: Manifest.model_validate(fields | {"files": hashes}),
    )
    return load_bundle(directory)
