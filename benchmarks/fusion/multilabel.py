"""The multi-label variant: collages of one to three digits with the same digits spoken, in `hard` degradation.

An encoder that reads several digits at once is beside the point of a fusion head, so the embedding of a collage is the
elementwise maximum of the frozen `hard` embeddings of its digits, image and sound alike. Measured by macro-mAP: the
mean over the ten labels of the average precision (not flattened), with both, either alone, and on drop50.
"""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own convention)
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from aecf_ros.fusion import AECF, EXPERTS_ONLY, PUBLISHED, FusionBatch, FusionObjective
from aecf_ros.fusion import baselines as base
from aecf_ros.fusion.presence.masking import random_subsets
from benchmarks.fusion.evaluate import SUBSETS, drop50
from benchmarks.fusion.features import Features, Pairs, Pool, Scale

TRAIN, TEST, STEPS, BATCH = 12000, 4000, 400, 256


def run(cache: Path, scale: Scale, seed: int) -> Path:
    """{row: {subset: macro-mAP}} as a file; does nothing where it lies already, like jobs.run."""
    path = cache / "results" / f"multilabel-{scale.name}-{seed}.json"
    if not path.is_file():
        torch.set_num_threads(1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(measure(Features(cache, scale), seed)))
    return path


def measure(features: Features, seed: int) -> dict[str, dict[str, float]]:
    """{row: {subset: macro-mAP}}."""
    torch.manual_seed(seed)
    pool = features.pool("hard")
    moments = [(x.mean(0), x.std(0) + 1e-6) for x in (pool.image, pool.sound)]
    rng = np.random.default_rng(60 + seed)
    train, truth = collages(_sides(pool), moments, TRAIN, rng)
    test, test_truth = collages(_sides(features.pairs("hard", "test")), moments, TEST, np.random.default_rng(6))
    prior = truth.mean(0)
    out = {}
    for name, (model, objective, mask) in _rows(prior).items():
        _fit(model, objective, mask, train, truth, seed)
        out[name] = _score(model, test, test_truth.numpy())
    return out


def collages(sides, moments, count: int, rng: np.random.Generator) -> tuple[list[Tensor], Tensor]:
    """Embeddings (2 x float32 [count, D]) and labels float32 [count, 10] of collages of 1 to 3 digits."""
    truth = np.zeros((count, 10), dtype=np.float32)
    for row, size in zip(truth, rng.integers(1, 4, count), strict=True):
        row[rng.choice(10, size, replace=False)] = 1.0
    embeddings = []
    for (embedding, label), (mean, deviation) in zip(sides, moments, strict=True):
        standard = ((embedding - mean) / deviation).astype(np.float32)
        total = np.full((count, standard.shape[1]), -np.inf, dtype=np.float32)
        for digit in range(10):
            rows = np.flatnonzero(truth[:, digit])
            total[rows] = np.maximum(total[rows], standard[rng.choice(np.flatnonzero(label == digit), len(rows))])
        embeddings.append(torch.from_numpy(total))
    return embeddings, torch.from_numpy(truth)


def _rows(prior: Tensor) -> dict[str, tuple[nn.Module, FusionObjective | None, bool]]:
    dims = [64, 64]
    return {
        "concat, no mask (confound)": (base.ConcatHead(dims, 10, mask=False), None, False),
        "concat + mask": (base.ConcatHead(dims, 10, mask=True), None, True),
        "mean of logits": (base.MeanLogits(dims, 10), None, True),
        "additive gate, linear experts": (
            AECF(dims, 10, gate="additive", expert_hidden=(), multilabel=True, prior=prior),
            FusionObjective(PUBLISHED),
            False,
        ),
        "aecf (evidence gate)": (AECF(dims, 10, multilabel=True, prior=prior), FusionObjective(EXPERTS_ONLY), False),
    }


def _fit(model, objective, mask, embeddings, truth, seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    present = torch.ones(BATCH, 2, dtype=torch.bool)
    model.train()
    for step in range(STEPS):
        rows = torch.randint(len(truth), (BATCH,), generator=generator)
        batch = [e[rows] for e in embeddings]
        if objective is None:
            shown = random_subsets(present, generator) if mask else present
            loss = F.binary_cross_entropy_with_logits(model(batch, shown).logits, truth[rows])
        else:
            loss, _ = objective(model, FusionBatch(batch, present, truth[rows]), generator, progress=step / STEPS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()


@torch.no_grad()
def _score(model, embeddings, truth: np.ndarray) -> dict[str, float]:
    scores = {
        n: model(embeddings, torch.tensor(p).repeat(len(truth), 1)).logits.sigmoid().numpy() for n, p in SUBSETS.items()
    }
    chosen = drop50(len(truth))
    scores["drop50"] = np.stack(list(scores.values()))[chosen, np.arange(len(truth))]
    return {name: float(average_precision_score(truth, s, average="macro")) for name, s in scores.items()}


def _sides(part: Pool | Pairs) -> list[tuple[np.ndarray, np.ndarray]]:
    if isinstance(part, Pool):
        return [(part.image, part.image_label), (part.sound, part.sound_label)]
    return [(part.image, part.label), (part.sound, part.label)]
