"""Fitting the fusion head: experts on clean and corrupted samples, reliability out of fold, and what the calibration
part decides. Each stage is kept in the run folder.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from aecf_ros.fusion.crossfit import CrossFitConfig, fit_reliability, recalibrate
from aecf_ros.fusion.layer import AECF
from aecf_ros.fusion.masking import all_subsets, random_subsets
from aecf_ros.fusion.monotone import choose_reach
from aecf_ros.fusion.reliability import EvidenceGate
from aecf_ros.training.calibrate import shown_rows, subset_logits
from aecf_ros.training.config import ConfigError, HeadConfig, ReliabilityConfig
from aecf_ros.training.datasets import NOTHING, Pairs, pair_by_label
from aecf_ros.training.features import smoothed_targets
from aecf_ros.training.loop import Advance, fingerprint, fit, load_arrays, module_digest, save_arrays

FREE = 3.0
"""Deviation of a prior that leaves the shift to the data: two numbers for each modality, a temperature and a floor."""


@dataclass(frozen=True)
class Table:
    """One modality's samples for a head, unpaired.

    Attributes:
        embeddings: float32 ``(N, D)``.
        labels: int64 ``(N,)``, -1 for nothing.
        kinds: int64 ``(N,)``, kind of corruption, -1 for none.
        clusters: int64 ``(N,)``, shared by samples of one recording.
    """

    embeddings: np.ndarray
    labels: np.ndarray
    kinds: np.ndarray
    clusters: np.ndarray

    def digest(self) -> str:
        """Changes when anything in the table does."""
        return fingerprint(*(np.ascontiguousarray(of).tobytes() for of in vars(self).values()))


@dataclass(frozen=True)
class CrossFitChoice:
    """What the calibration part said of the cross-fit: NLL in nats, mean over subsets, with it and without.

    ``reach`` is that of the soft monotone lift, 0 for none.
    """

    with_it: float
    without: float
    used: bool
    reach: float


def new_head(widths: Sequence[int], classes: int, config: HeadConfig, seed: int) -> AECF:
    """An untrained head; its weights depend on the seed only.

    Raises:
        ConfigError: options that the layer, or the cross-fit, does not know.
    """
    torch.manual_seed(seed)
    try:
        head = AECF(widths, classes, **config.options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"head.options: {error}; correct the configuration") from None
    try:
        CrossFitConfig(**config.reliability.cross_fit)
    except TypeError as error:
        raise ConfigError(f"head.reliability.cross_fit: {error}; correct the configuration") from None
    return head


def fit_experts(
    head: AECF, tables: Sequence[Table], classes: int, config: HeadConfig, seed: int, folder: Path, advance: Advance
) -> list[float]:
    """Fit the experts, and a softmax gate with them, in place, on pairs redrawn every epoch.

    Under the evidence gate each expert is fitted by its own likelihood; under any other the layer by its own, with a
    random subset of modalities present in every sample. Returns the mean loss of each epoch.
    """
    embeddings, labels = [torch.from_numpy(of.embeddings) for of in tables], [of.labels for of in tables]
    size = config.optimizer.batch_size
    batches = max(config.samples_per_epoch // size, 1)
    loss_of = _expert_loss if isinstance(head.gate, EvidenceGate) else _joint_loss

    def losses(epoch: int, generator: torch.Generator):
        draw = np.random.default_rng([seed, epoch])
        pairs = pair_by_label(labels, batches * size, config.nothing_share, config.all_nothing_share, draw)
        for start in range(0, len(pairs), size):
            rows = slice(start, start + size)
            inputs = [of[pairs.rows[rows, m]] for m, of in enumerate(embeddings)]
            label, shows = torch.from_numpy(pairs.labels[rows]), torch.from_numpy(pairs.shows[rows])
            yield loss_of(head, inputs, label, shows, classes, generator)

    key = fingerprint([of.digest() for of in tables], config.model_dump(mode="json", exclude={"reliability"}), seed, module_digest(head))
    return fit(head, losses, batches, config.optimizer, folder / f"head-{key}.npz", seed, advance)


def _expert_loss(head: AECF, inputs: list[Tensor], label: Tensor, shows: Tensor, classes: int, generator) -> Tensor:
    losses = []
    for m, expert in enumerate(head.experts):
        seen = torch.where(shows[:, m], label, NOTHING)
        losses.append(F.cross_entropy(head.log_prior + expert(inputs[m]), smoothed_targets(seen, classes, 0.0)))
    return torch.stack(losses).mean()


def _joint_loss(head: AECF, inputs: list[Tensor], label: Tensor, shows: Tensor, classes: int, generator) -> Tensor:
    present = random_subsets(torch.ones_like(shows), generator)
    seen = torch.where((present & shows).any(1), label, NOTHING)
    return F.cross_entropy(head(inputs, present).logits, smoothed_targets(seen, classes, 0.0))


def fit_gate(
    head: AECF, tables: Sequence[Table], config: ReliabilityConfig, seed: int, folder: Path, advance: Callable[[], None]
) -> AECF:
    """A copy of an evidence-gate head with every modality's reliability fitted out of fold, over the kinds in its table.

    Samples of nothing are left out: the experts were taught to say nothing of them, the stand-ins would not be, and the
    doubt learned of stand-ins that guess would fall on experts that know. What is fitted is kept in ``folder`` modality
    by modality; ``advance`` is called after each.
    """
    head = copy.deepcopy(head)
    settings = CrossFitConfig(**config.cross_fit)
    for m, table in enumerate(tables):
        reliability = head.gate.reliability[m]
        key = fingerprint(table.digest(), asdict(settings), seed, module_digest(head.experts[m]), module_digest(reliability))
        path = folder / f"reliability-{key}.npz"
        stored = load_arrays(path)
        if stored is None:
            columns = [torch.from_numpy(of[table.labels != NOTHING]) for of in vars(table).values()]
            fit_reliability(head, m, *columns, settings, torch.Generator().manual_seed(seed + m))
            stored = {name: value.numpy() for name, value in reliability.state_dict().items()}
            save_arrays(path, stored)
        reliability.load_state_dict({name: torch.from_numpy(value) for name, value in stored.items()})
        advance()
    return head.eval()


def choose_gate(
    experts: AECF, cross_fitted: AECF, tables: Sequence[Table], pairs: Pairs, config: ReliabilityConfig
) -> tuple[AECF, CrossFitChoice]:
    """The head that the calibration part asks for: with the cross-fit unless it costs too much, its reliabilities
    shifted to that part, its confidence lifted where it is to be monotone.

    Args:
        experts: the head whose reliability is not fitted: a product of experts.
        cross_fitted: the same with reliability out of fold.
        tables: the calibration part.
        pairs: fixed pairs of it.
    """
    plain, fitted = _recalibrated(experts, tables, FREE), _recalibrated(cross_fitted, tables, config.deviation)
    inputs = [torch.from_numpy(of.embeddings[pairs.rows[:, m]]) for m, of in enumerate(tables)]
    of_plain, of_fitted = ([_loss(of, inputs, pairs, pattern) for pattern in all_subsets(len(tables))] for of in (plain, fitted))
    with_it, without = float(np.mean(of_fitted)), float(np.mean(of_plain))
    used = with_it <= without + config.most_cost
    head, own = (fitted, of_fitted[-1]) if used else (plain, of_plain[-1])
    reach = 0.0
    head.monotone = experts.monotone
    if head.monotone == "soft" and len(tables) > 1:
        ceiling = max(min(own + config.lift_cost, of_plain[-1]), own + 0.1 * config.lift_cost)
        labeled = torch.from_numpy(np.flatnonzero(pairs.labels != NOTHING))
        reach = choose_reach(
            head,
            [of[labeled] for of in inputs],
            torch.from_numpy(pairs.labels)[labeled],
            violation=config.violation,
            ceiling=ceiling,
        )
        head.monotone_reach = reach
        head.monotone = "soft" if reach else "off"
    return head, CrossFitChoice(with_it, without, used, reach)


def _recalibrated(head: AECF, tables: Sequence[Table], deviation: float) -> AECF:
    """A copy without lift, its reliabilities shifted to the tables."""
    head = copy.deepcopy(head).eval()
    head.monotone = "off"
    for m, table in enumerate(tables):
        columns = (torch.from_numpy(of) for of in (table.embeddings, table.labels, table.clusters))
        recalibrate(head, m, *columns, deviation)
    return head


def _loss(head: AECF, inputs: Sequence[Tensor], pairs: Pairs, pattern: Sequence[bool]) -> float:
    """NLL of one subset, on the pairs in which it shows the label."""
    rows = shown_rows(pairs, pattern)
    logits = subset_logits(head, [of[rows] for of in inputs], pattern)
    return F.cross_entropy(logits, torch.from_numpy(pairs.labels[rows])).item()
