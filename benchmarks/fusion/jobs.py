"""One job is one variant and one seed: every row of it, evaluated. Results lie in files, so a run that stops goes on
where it was.
"""

import hashlib
import json
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.stats import rankdata

from aecf_ros.fusion import CrossFitConfig
from aecf_ros.fusion.presence.agreement import agreement
from benchmarks.fusion import rows as table
from benchmarks.fusion.evaluate import evaluate
from benchmarks.fusion.features import Features, Pairs, Pool, Scale
from benchmarks.fusion.quality import MEASURED, SoundQuality
from benchmarks.fusion.training import Budget, Samples, Training

VARIANTS = ("clean", "hard", "xhard", "field", "field-linked", "scenes", "speaker-out")
ABLATED = ("hard", "xhard", "field", "field-linked")
WITH_KINDS = ("field", "field-linked")
UNSEEN_SHARE = 0.15  # where quality is measured; see docs/research/experiments.md
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
    def measures_quality(self) -> bool:
        """Rows of ours, where kinds of corruption are known; every other row sees the embeddings alone."""
        ours = table.VARIANTS_OF_OURS | table.ABLATIONS_OF_OURS
        return self.variant in WITH_KINDS and set(self.rows) <= set(ours)

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
    variant = f"speaker-out-{job.seed}" if job.variant == "speaker-out" else job.variant
    features = Features(job.cache, job.scale)
    measured = job.measures_quality
    quality = SoundQuality(job.cache, job.scale) if measured else None
    training = Training(_beside(quality, features.pool(variant), variant, "fusion"), MEASURED if measured else 0)

    def samples(name: str, part: str) -> Samples:
        return training.scale(_beside(quality, features.pairs(name, part), name, part))

    calibration = samples(variant, "calibration")
    tests = {job.variant: samples(variant, "test")}
    if variant == "field":
        tests["field-unseen"] = samples("field-unseen", "test")
        tests["field-development"] = samples("field-development", "calibration")
    ratios = partial(features.frequency_ratios, variant)
    cross_fit = CrossFitConfig(unseen_share=UNSEEN_SHARE) if measured else CrossFitConfig()
    context = table.Context(job.variant, job.seed, training, calibration, job.budget, ratios, job.cache, cross_fit)
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


def _beside(quality: SoundQuality | None, of: Pool | Pairs, variant: str, part: str) -> Pool | Pairs:
    """The same samples with the quality of each sound behind its embedding."""
    return (
        of if quality is None else replace(of, sound=np.concatenate([of.sound, quality.sound(variant, part)], axis=1))
    )


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
