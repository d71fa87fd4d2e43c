"""From a head to its figures: every subset of modalities, drop50, and three calibrations."""

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from aecf_ros.core.metrics import classification as metrics
from aecf_ros.fusion.calibration.conformal import conformal_threshold
from benchmarks.fusion.calibration import SubsetCalibrator
from benchmarks.fusion.training import Samples

SUBSETS = {"both": (True, True), "image": (True, False), "audio": (False, True)}
CALIBRATIONS = {"raw": "none", "global_t": "global_temperature", "subset_t": "subset_temperature"}
COVERAGE = 0.9


@dataclass(frozen=True)
class Answers:
    """What a head said of a part: logits, weights and modality logits by subset."""

    logits: dict[str, Tensor]
    weights: Tensor
    modality_logits: Tensor


@torch.no_grad()
def ask(model: nn.Module, samples: Samples) -> Answers:
    """Every subset of modalities, and drop50: each modality dropped with p = 0.5, one kept, the same draw for every
    head.
    """
    logits, full = {}, None
    for name, pattern in SUBSETS.items():
        out = model(samples.embeddings, torch.tensor(pattern).repeat(len(samples), 1))
        logits[name] = out.logits
        full = full or out
    return Answers(logits, full.gate_weights, full.modality_logits)


def drop50(count: int) -> np.ndarray:
    """Which subset (index into SUBSETS) each row keeps: int [count]. Both with 1/4, either alone with 3/8."""
    rng = np.random.default_rng(50)
    kept = rng.random((count, 2)) >= 0.5
    only = rng.integers(0, 2, count)
    kept[~kept.any(1), only[~kept.any(1)]] = True
    return np.where(kept.all(1), 0, np.where(kept[:, 0], 1, 2))


def fit_calibrators(calibration: Answers, label: Tensor) -> dict[str, SubsetCalibrator]:
    """A calibrator for each of CALIBRATIONS, fitted on the calibration part of a head's answers."""
    classes = calibration.logits["both"].shape[1]
    stacked = torch.cat([calibration.logits[n] for n in SUBSETS])
    present = torch.cat([torch.tensor(p).repeat(len(label), 1) for p in SUBSETS.values()])
    targets = label.repeat(len(SUBSETS))
    return {n: SubsetCalibrator(2, classes).fit(stacked, present, targets, m) for n, m in CALIBRATIONS.items()}


def calibrated(answers: Answers, calibrator: SubsetCalibrator) -> dict[str, np.ndarray]:
    """Probabilities [N, C] of each subset and of drop50."""
    out = {}
    for name, pattern in SUBSETS.items():
        logits = calibrator(answers.logits[name], torch.tensor(pattern).repeat(len(answers.logits[name]), 1))
        out[name] = torch.softmax(logits.double(), -1).numpy()
    chosen = drop50(len(out["both"]))
    out["drop50"] = np.stack([out[n] for n in SUBSETS])[chosen, np.arange(len(chosen))]
    return out


def figures(probabilities: np.ndarray, label: np.ndarray, thresholds: np.ndarray) -> dict[str, float]:
    """One subset's metrics. thresholds: conformal threshold of each row's pattern, [N]."""
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == label
    sets = probabilities >= thresholds[:, None]
    order = np.argsort(-confidence, kind="stable")
    risk = np.cumsum(~correct[order]) / np.arange(1, len(order) + 1)
    return {
        "accuracy": float(correct.mean()),
        "nll": metrics.negative_log_likelihood(probabilities, label),
        "ece": metrics.expected_calibration_error(confidence, correct),
        "ece_floor95": ece_floor95(confidence),
        "adaptive_ece": adaptive_ece(confidence, correct),
        "brier": metrics.brier_score(probabilities, label),
        "aurc": float(risk.mean()),
        "mean_confidence": float(confidence.mean()),
        "coverage": float(sets[np.arange(len(label)), label].mean()),
        "set_size": float(sets.sum(1).mean()),
    }


def ece_floor95(confidence: np.ndarray, draws: int = 1000) -> float:
    """95th percentile of the ECE that a perfectly calibrated model with these confidences shows.

    The count of correct answers in a bin is a sum of independent Bernoulli draws; its normal approximation is drawn
    instead.
    """
    bins = np.minimum((confidence * 15).astype(int), 14)
    variance = np.bincount(bins, confidence * (1 - confidence), minlength=15)
    noise = np.random.default_rng(0).normal(size=(draws, 15)) * np.sqrt(variance)
    return float(np.quantile(np.abs(noise).sum(1) / len(confidence), 0.95))


def adaptive_ece(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """ECE over bins of equal count (Nixon et al. 2019)."""
    blocks = np.array_split(np.argsort(confidence, kind="stable"), bins)
    return float(sum(len(b) * abs(confidence[b].mean() - correct[b].mean()) for b in blocks) / len(confidence))


def evaluate(model: nn.Module, tests: dict[str, Samples], calibration: Samples) -> dict[str, tuple[dict, np.ndarray]]:
    """For each test part (record, losses).

    record: {"raw" | "global_t" | "subset_t": {subset: figures, "violation": ...}, ...}; losses: float32 [3, 2, N], the
    negative log-likelihood of each sample by calibration, with both modalities and on drop50.
    """
    reference = ask(model, calibration)
    calibrators = fit_calibrators(reference, calibration.label)
    return {name: _evaluate(model, test, reference, calibration, calibrators) for name, test in tests.items()}


def _evaluate(model, test, reference, calibration, calibrators) -> tuple[dict, np.ndarray]:
    start = time.process_time()
    answers = ask(model, test)
    inference_s = time.process_time() - start
    label, truth = test.label.numpy(), calibration.label[:, None]
    chosen = drop50(len(label))
    record: dict = {}
    losses = []
    for name, calibrator in calibrators.items():
        probabilities, held = calibrated(answers, calibrator), calibrated(reference, calibrator)
        scores = {n: torch.from_numpy(held[n]).gather(1, truth)[:, 0] for n in SUBSETS}
        limits = np.array([conformal_threshold(scores[n], COVERAGE) for n in SUBSETS])
        rows = {n: np.full(len(label), limits[i]) for i, n in enumerate(SUBSETS)} | {"drop50": limits[chosen]}
        record[name] = {subset: figures(p, label, rows[subset]) for subset, p in probabilities.items()}
        record[name]["violation"] = violations({n: probabilities[n].max(1) for n in SUBSETS})
        record[name]["calibration_nll"] = float(np.mean([-s.log().mean() for s in scores.values()]))
        truths = [probabilities[n][np.arange(len(label)), label] for n in ("both", "drop50")]
        losses.append([-np.log(np.maximum(p, 1e-12)) for p in truths])
    record["weight_loss_correlation"] = weight_loss_correlation(answers, test.label)
    record["parameters"] = sum(p.numel() for p in model.parameters())
    record["inference_us"] = 1e6 * inference_s / (3 * len(test))
    return record, np.array(losses, dtype=np.float32)


def violations(confidence: dict[str, np.ndarray]) -> dict[str, float]:
    """Share of (sample, single modality) pairs where adding the other lowers confidence: by any amount, by 0.01."""
    falls = np.concatenate([confidence["image"] - confidence["both"], confidence["audio"] - confidence["both"]])
    return {"rate": float((falls > 1e-6).mean()), "rate_001": float((falls > 0.01).mean())}


def weight_loss_correlation(answers: Answers, label: Tensor) -> list[float]:
    """Pearson correlation of each modality's gate weight with its own loss: below 0 for a gate that knows. NaN if
    constant.
    """
    loss = -torch.log_softmax(answers.modality_logits, -1).gather(2, label.view(-1, 1, 1).expand(-1, 2, 1)).squeeze(2)
    out = []
    for m in range(2):
        w, x = answers.weights[:, m].double(), loss[:, m].double()
        constant = w.std() < 1e-9 or x.std() < 1e-9
        out.append(float("nan") if constant else float(torch.corrcoef(torch.stack([w, x]))[0, 1]))
    return out
