"""One job is one variant and one seed: every row of it, evaluated. Results lie in files, so a run that stops goes on
where it was.
"""

import hashlib
import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.stats import rankdata

from aecf_ros.fusion.agreement import agreement
from benchmarks.fusion import rows as table
from benchmarks.fusion.evaluate import evaluate
from benchmarks.fusion.features import Features, Scale
from benchmarks.fusion.training import Budget, Samples, Training

VARIANTS = ("clean", "hard", "xhard", "field", "field-linked", "scenes", "speaker-out")
ABLATED = ("hard", "xhard", "field", "field-linked")
MISMATCHED_SHARE = 0.25


@dataclass(frozen=True)
class Job:
    """What one process does. rows: names in rows.ALL_ROWS."""

    variant: str
    seed: int
    rows: tuple[str, ...]
    scale: Scale
    budget: Budget
    cache: Path

    @property
    def path(self) -> Path:
        """Where its result lies: named by its configuration. After a change of code run with --fresh."""
        key = repr((self.variant, self.seed, self.rows, self.scale, self.budget))
        name = f"{self.variant}-{self.seed}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
        return self.cache / "results" / f"{name}.json"


def run(job: Job) -> Path:
    """Train and evaluate every row; the path of the result. Does nothing where the result lies already."""
    if job.path.is_file():
        return job.path
    start = time.process_time()
    torch.set_num_threads(1)
    features = Features(job.cache, job.scale)
    variant = f"speaker-out-{job.seed}" if job.variant == "speaker-out" else job.variant
    training = Training(features.pool(variant))
    calibration = training.scale(features.pairs(variant, "calibration"))
    tests = {job.variant: training.scale(features.pairs(variant, "test"))}
    if variant == "field":
        tests["field-unseen"] = training.scale(features.pairs("field-unseen", "test"))
        tests["field-development"] = training.scale(features.pairs("field-development", "calibration"))
    ratios = partial(features.frequency_ratios, variant)
    context = table.Context(job.variant, job.seed, training, calibration, job.budget, ratios, job.cache)
    result: dict[str, dict] = {name: {} for name in tests}
    contradiction: dict[str, dict] = {}
    losses: dict[str, np.ndarray] = {}
    for row in job.rows:
        model, seconds = context.build(table.ALL_ROWS[row])
        for name, (record, loss) in evaluate(model, tests, calibration).items():
            result[name][row], losses[f"{name}|{row}"] = record | {"training_s": seconds}, loss
        if job.variant in ("clean", "hard"):
            contradiction[row] = contradict(model, tests[job.variant])
    recordings = {f"recording|{name}": test.recording for name, test in tests.items()}
    job.path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(job.path.with_suffix(".npz"), **losses, **recordings)
    job.path.write_text(
        json.dumps(
            {
                "seed": job.seed,
                "variants": result,
                "contradiction": {job.variant: contradiction},
                "cpu_s": time.process_time() - start,
            }
        )
    )
    return job.path


@torch.no_grad()
def contradict(model, test: Samples) -> dict[str, float]:
    """A share of the pairs gets the sound of another digit; how well does the model's agreement find them, how sure is
    it there?
    """
    rng = np.random.default_rng(7)
    count = len(test)
    mismatched = rng.random(count) < MISMATCHED_SHARE
    partner = rng.integers(0, count, count)
    mismatched &= (test.label[partner] != test.label).numpy()
    rows = torch.from_numpy(np.where(mismatched, partner, np.arange(count)))
    out = model([test.embeddings[0], test.embeddings[1][rows]], torch.ones(count, 2, dtype=torch.bool))
    alone = torch.softmax(out.modality_logits, -1)
    log_prior = -np.log(alone.shape[-1])
    together = torch.logsumexp(torch.log_softmax(out.modality_logits, -1).sum(1) - log_prior, -1)
    agreed = agreement(alone, torch.ones(count, 2, dtype=torch.bool))
    wrong = torch.from_numpy(mismatched)
    return {
        "auroc_agreement": auroc(-agreed, wrong),
        "auroc_optimal": auroc(-together, wrong),
        "mean_confidence_mismatched": float(out.confidence[wrong].mean()),
    }


def auroc(score: torch.Tensor, positive: torch.Tensor) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting half."""
    rank = rankdata(score.numpy())
    hits = positive.numpy()
    above = rank[hits].sum() - hits.sum() * (hits.sum() + 1) / 2
    return float(above / (hits.sum() * (~hits).sum()))
