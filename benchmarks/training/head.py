"""A head trained on cached features: everything between the features and the bundle's graph."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from aecf_ros.fusion.layer import AECF
from aecf_ros.training.calibration.calibrate import calibrate
from aecf_ros.training.config import TrainConfig
from aecf_ros.training.head.batch_sampler import pair_sampler
from aecf_ros.training.head.feature_tables import FeatureTable, PartFeatures
from aecf_ros.training.head.fit_gate import fit_gate, settle_gate
from aecf_ros.training.head.fit_loop import FitContext
from aecf_ros.training.head.pairing import pair_by_moment
from aecf_ros.training.head.train_head import fit_experts, new_head

CLASSES, SPAN = 10, 20
"""Labels, and moments of each labeled span."""


def measure_head(moments: int, width: int, modalities: int, threads: int) -> dict[str, float]:
    """Seconds of each stage with the default configuration, and the ``processor time``, which varies less.

    Half of the ``moments`` of each modality are as recorded, half are corrupted copies.
    """
    torch.set_num_threads(threads)
    config = TrainConfig(threads=threads)
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(modalities, CLASSES, width)).astype(np.float32)
    fusion, calibration = _part(moments // 2, centers, rng, 1), _part(10_000, centers, rng, 0)
    seconds = {}
    with tempfile.TemporaryDirectory() as name:
        context = FitContext(Path(name))
        head: AECF = new_head([width] * modalities, CLASSES, config.head, 0)
        tables = fusion.tables(config.head.field_copies)
        since, began = time.perf_counter(), time.process_time()

        def lap(stage: str) -> None:
            nonlocal since
            seconds[stage], since = time.perf_counter() - since, time.perf_counter()

        fit_experts(head, tables, pair_sampler(fusion, config.head), config.head, context)
        lap("experts")
        head = fit_gate(head, tables, config.head.reliability, context)
        lap("reliability out of fold")
        head, _ = settle_gate(head, calibration.clean, calibration.moments, config.head.reliability)
        reference = [(of.embeddings, of.labels) for of in fusion.clean]
        names = [f"modality_{m}" for m in range(modalities)]
        calibrate(head, names, calibration.embeddings, calibration.moments, config.calibration, reference)
        lap("calibration")
    return seconds | {"all": sum(seconds.values()), "processor time": time.process_time() - began}


def _part(moments: int, centers: np.ndarray, rng: np.random.Generator, copies: int) -> PartFeatures:
    """Labeled spans; a corrupted copy is the same with more noise."""
    spans = np.arange(moments) // SPAN
    labels = (spans * 7) % CLASSES

    def table(m: int, noise: float, kinds: np.ndarray) -> FeatureTable:
        embeddings = centers[m][labels] + noise * rng.normal(size=(moments, centers.shape[2])).astype(np.float32)
        return FeatureTable(embeddings.astype(np.float32), labels, kinds, spans)

    modalities = range(len(centers))
    clean = [table(m, 4.0, np.full(moments, -1)) for m in modalities]
    worse = [[table(m, 8.0, rng.integers(0, 8, moments)) for _ in range(copies)] for m in modalities]
    pairs = pair_by_moment(np.ones((moments, len(centers)), bool), labels)
    return PartFeatures(clean, worse, pairs, [np.zeros(moments, np.int64)] * len(centers), [["drawn"]] * len(centers))
