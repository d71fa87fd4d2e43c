"""Fitting the fusion head: experts on clean and corrupted samples, reliability out of fold, and what the calibration
part decides. Each stage is kept in the run folder.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from aecf_ros.core.errors import first_line
from aecf_ros.fusion.crossfit import CrossFitConfig, fit_reliability, settle
from aecf_ros.fusion.layer import AECF
from aecf_ros.fusion.masking import random_subsets
from aecf_ros.fusion.monotone import choose_reach
from aecf_ros.fusion.reliability import EvidenceGate
from aecf_ros.training.calibrate import subset_logits, subset_nll
from aecf_ros.training.config import ConfigError, HeadConfig, ReliabilityConfig
from aecf_ros.training.config_file import refuse_unknown
from aecf_ros.training.datasets import NOTHING
from aecf_ros.training.draws import Draws
from aecf_ros.training.features import smoothed_targets
from aecf_ros.training.loop import (
    Advance,
    History,
    Stopping,
    fingerprint,
    fit,
    load_arrays,
    module_digest,
    precision_key,
    save_arrays,
)
from aecf_ros.training.pairs import Pairs
from aecf_ros.training.parts import Table
from aecf_ros.training.ranks import ALONE, Ranks

Targets = Callable[[Tensor], Tensor]
"""Labels (N,) -> distributions (N, C)."""
MOST_ROWS = 50_000
"""Rows of a modality that its cross-fit works on: a stand-in draws some 77,000 samples whatever there is, and the distances of
more rows cost time alone."""
OPTIONS = sorted(
    {name for name, of in inspect.signature(AECF).parameters.items() if of.kind is of.KEYWORD_ONLY} - {"multilabel", "prior", "quality"}
)
"""Keys of ``head.options``: what the layer takes, without what the data says."""
_HELD_OUT = 16


@dataclass(frozen=True)
class Settled:
    """What the calibration part decided. ``kept``: for each modality, whether its cross-fitted reliability stayed.

    ``reach`` is that of the soft monotone lift, 0 for none.
    """

    kept: list[bool]
    reach: float


def new_head(widths: Sequence[int], classes: int, config: HeadConfig, seed: int, multilabel: bool = False) -> AECF:
    """An untrained head; its weights depend on the seed only. Of several labels no confidence is lifted.

    Raises:
        ConfigError: options that the layer, or the cross-fit, does not know, or values that the layer refuses.
    """
    refuse_unknown("head.options", config.options, OPTIONS)
    refuse_unknown("head.reliability.cross_fit", config.reliability.cross_fit, [of.name for of in fields(CrossFitConfig)])
    torch.manual_seed(seed)
    try:
        return AECF(widths, classes, **config.options | ({"multilabel": True, "monotone": "off"} if multilabel else {}))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"head.options: {first_line(error)}; correct the configuration") from None


def fit_experts(
    head: AECF,
    tables: Sequence[Table],
    draws: Draws,
    config: HeadConfig,
    seed: int,
    folder: Path,
    advance: Advance,
    mixed: bool = False,
    ranks: Ranks = ALONE,
    sets: np.ndarray | None = None,
) -> History:
    """Fit the experts, and a softmax gate with them, in place, on pairs redrawn every epoch.

    Under the evidence gate each expert is fitted by its own likelihood, on the samples in which its modality is present; under
    any other the layer by its own, with a random subset of the modalities present in every sample.

    Args:
        tables: as recorded and corrupted, by modality.
        draws: pairs of their rows.
        ranks: the processes that share each batch.
        sets: the labels of each class index, bool ``(K, C)``, where there may be several.

    Raises:
        DatasetError: early stopping has too few clusters to hold any out.
    """
    embeddings = [torch.from_numpy(of.embeddings) for of in tables]
    size = config.optimizer.batch_size
    batches = max(config.samples_per_epoch // size, 1)
    loss_of = _expert_loss if isinstance(head.gate, EvidenceGate) else _joint_loss
    targets = _targets(head, config.label_smoothing, sets)
    stopping = None
    key = fingerprint(
        [of.digest() for of in tables],
        draws.digest(),
        config.model_dump(mode="json", exclude={"reliability"}),
        seed,
        module_digest(head),
        *precision_key(mixed),
        *ranks.key(),
        *([] if sets is None else [sets.tobytes()]),
    )
    if config.early_stopping is not None:
        generator = np.random.default_rng([seed, _HELD_OUT])
        draws, held_out = draws.split(config.early_stopping.share, generator)
        pairs = held_out.draw(config.early_stopping.pairs, generator)
        stopping = Stopping(config.early_stopping.patience, lambda: subset_nll(head, [of.embeddings for of in tables], pairs, sets))

    def losses(epoch: int, generator: torch.Generator):
        pairs = draws.draw(batches * size, np.random.default_rng([seed, epoch]))
        for start in range(0, len(pairs), size):
            whole = pairs.at(slice(start, start + size))
            # Of each modality, and of all, the samples that a process would have if they were shared evenly.
            due = torch.tensor([*whole.present.sum(0), len(whole)]) / ranks.size
            batch = whole.at(ranks.rows(len(whole)))
            inputs = [of[batch.rows[:, m]] for m, of in enumerate(embeddings)]
            label, shows, present = (torch.from_numpy(of) for of in (batch.labels, batch.shows, batch.present))
            yield loss_of(head, inputs, label, shows, present, targets, generator, due)

    return fit(head, losses, batches, config.optimizer, folder / f"head-{key}.npz", seed, advance, stopping=stopping, mixed=mixed, ranks=ranks)


def _targets(head: AECF, smoothing: float, sets: np.ndarray | None) -> Targets:
    if sets is not None:
        table = torch.from_numpy(sets).float() * (1 - smoothing) + smoothing / 2
        return lambda labels: table[labels]
    uniform = bool((head.log_prior == head.log_prior[0]).all())
    return partial(smoothed_targets, classes=len(head.log_prior), smoothing=smoothing, prior=None if uniform else head.log_prior.exp())


def _mean_loss(head: AECF, logits: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, targets) if head.multilabel else F.cross_entropy(logits, targets)


def _expert_loss(
    head: AECF, inputs: list[Tensor], label: Tensor, shows: Tensor, present: Tensor, targets: Targets, generator, due: Tensor
) -> Tensor:
    losses = []
    for m, expert in enumerate(head.experts):
        here = present[:, m]
        if here.any():
            seen = torch.where(shows[here, m], label[here], NOTHING)
            loss = _mean_loss(head, head.log_prior + expert(inputs[m][here]), targets(seen))
            losses.append(loss * (here.sum() / due[m]))  # exactly 1 where this process has the whole batch
        elif due[m] > 0:
            losses.append(expert(inputs[m][:0]).sum())  # other processes have all of them
    return torch.stack(losses).mean()


def _joint_loss(
    head: AECF, inputs: list[Tensor], label: Tensor, shows: Tensor, present: Tensor, targets: Targets, generator, due: Tensor
) -> Tensor:
    share = len(present) / due[-1]
    present = random_subsets(present, generator)
    seen = torch.where((present & shows).any(1), label, NOTHING)
    return _mean_loss(head, head(inputs, present).logits, targets(seen)) * share


def put_prior(head: AECF, labels: np.ndarray, sets: np.ndarray | None = None) -> None:
    """Make the frequencies of ``labels`` (int64 (N,), -1 left out) the head's prior, in place; one is added to each count, so that
    no class is impossible. ``sets``: as of :func:`fit_experts`."""
    if sets is not None:
        share = (sets[labels].sum(0) + 1.0) / (len(labels) + 2.0)
        head.log_prior.copy_(torch.from_numpy(np.log(share / (1.0 - share))))
        return
    counts = np.bincount(labels[labels != NOTHING], minlength=len(head.log_prior)) + 1.0
    head.log_prior.copy_(torch.from_numpy(np.log(counts / counts.sum())))


def fit_gate(
    head: AECF, tables: Sequence[Table], config: ReliabilityConfig, seed: int, folder: Path, advance: Callable[[], None], ranks: Ranks = ALONE
) -> AECF:
    """A copy of an evidence-gate head with every modality's reliability fitted out of fold, over the kinds in its table.

    Samples of nothing are left out: the experts were taught to say nothing of them, the stand-ins would not be, and the
    doubt learned of stand-ins that guess would fall on experts that know. What is fitted is kept in ``folder`` modality
    by modality; ``advance`` is called after each. Of several processes each fits its modalities, then takes up the others'; of
    several threads each fits a modality at a time, because the matrices are too small to be shared well.
    """
    head = copy.deepcopy(head)
    settings = CrossFitConfig(**config.cross_fit)

    def take(m: int, table: Table) -> None:
        reliability = head.gate.reliability[m]
        key = fingerprint(
            table.digest(), asdict(settings), seed, module_digest(head.experts[m]), module_digest(reliability), head.log_prior.numpy().tobytes()
        )
        path = folder / f"reliability-{key}.npz"
        stored = load_arrays(path)
        if stored is None:
            columns = [torch.from_numpy(of[_cross_fit_rows(table)]) for of in vars(table).values()]
            fit_reliability(head, m, *columns, settings, torch.Generator().manual_seed(seed + m))
            stored = {name: value.numpy() for name, value in reliability.state_dict().items()}
            save_arrays(path, stored)
        reliability.load_state_dict({name: torch.from_numpy(value) for name, value in stored.items()})
        advance()

    mine = range(ranks.rank, len(tables), ranks.size)
    threads = torch.get_num_threads()
    workers = max(min(threads, len(mine)), 1)
    torch.set_num_threads(threads // workers)
    try:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(take, mine, [tables[m] for m in mine]))
    finally:
        torch.set_num_threads(threads)
    ranks.wait()
    for m in {*range(len(tables))} - {*mine}:
        take(m, tables[m])
    return head.eval()


def _cross_fit_rows(table: Table) -> np.ndarray:
    """The labelled rows, or :data:`MOST_ROWS` of them spread evenly over kinds and clusters as they lie."""
    rows = np.flatnonzero(table.labels != NOTHING)
    return rows if len(rows) <= MOST_ROWS else rows[np.arange(MOST_ROWS) * len(rows) // MOST_ROWS]


def settle_gate(
    head: AECF, tables: Sequence[Table], pairs: Pairs, config: ReliabilityConfig
) -> tuple[AECF, Settled]:
    """A copy of a cross-fitted head as the calibration part wants it: each modality's reliability shifted to that part,
    or dropped where it costs too much there; then the smallest lift of confidence that does its work.

    Args:
        head: as :func:`fit_gate` gives it.
        tables: the calibration part.
        pairs: fixed pairs of it.
    """
    head = copy.deepcopy(head).eval()
    kept = []
    for m, table in enumerate(tables):
        columns = (torch.from_numpy(of) for of in (table.embeddings, table.labels, table.clusters))
        kept.append(settle(head, m, *columns, config.deviation, config.price))
    if head.monotone != "soft" or len(tables) == 1:
        return head, Settled(kept, 0.0)
    labeled = np.flatnonzero((pairs.labels != NOTHING) & pairs.present.all(1))
    if not len(labeled):
        return head, Settled(kept, 0.0)
    inputs = [torch.from_numpy(of.embeddings[pairs.rows[labeled, m]]) for m, of in enumerate(tables)]
    targets = torch.from_numpy(pairs.labels[labeled])
    head.monotone = "off"
    own = F.cross_entropy(subset_logits(head, inputs, (True,) * len(tables)), targets).item()
    reach = choose_reach(head, inputs, targets, violation=config.violation, ceiling=own + config.lift_cost)
    head.monotone, head.monotone_reach = ("soft", reach) if reach else ("off", head.monotone_reach)
    return head, Settled(kept, reach)
