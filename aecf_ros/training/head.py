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

from aecf_ros.fusion.crossfit import CrossFitConfig, fit_reliability, settle
from aecf_ros.fusion.layer import AECF
from aecf_ros.fusion.masking import random_subsets
from aecf_ros.fusion.monotone import choose_reach
from aecf_ros.fusion.reliability import EvidenceGate
from aecf_ros.training.calibrate import subset_logits
from aecf_ros.training.config import ConfigError, HeadConfig, ReliabilityConfig
from aecf_ros.training.datasets import NOTHING
from aecf_ros.training.features import smoothed_targets
from aecf_ros.training.loop import Advance, fingerprint, fit, load_arrays, module_digest, save_arrays
from aecf_ros.training.pairs import Pairs, pair_by_label


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
class Settled:
    """What the calibration part decided. ``kept``: for each modality, whether its cross-fitted reliability stayed.

    ``reach`` is that of the soft monotone lift, 0 for none.
    """

    kept: list[bool]
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
            torch.manual_seed(seed + m)  # the stand-ins' dropout draws from torch's own generator
            fit_reliability(head, m, *columns, settings, torch.Generator().manual_seed(seed + m))
            stored = {name: value.numpy() for name, value in reliability.state_dict().items()}
            save_arrays(path, stored)
        reliability.load_state_dict({name: torch.from_numpy(value) for name, value in stored.items()})
        advance()
    return head.eval()


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
    labeled = np.flatnonzero(pairs.labels != NOTHING)
    inputs = [torch.from_numpy(of.embeddings[pairs.rows[labeled, m]]) for m, of in enumerate(tables)]
    targets = torch.from_numpy(pairs.labels[labeled])
    head.monotone = "off"
    own = F.cross_entropy(subset_logits(head, inputs, (True,) * len(tables)), targets).item()
    reach = choose_reach(head, inputs, targets, violation=config.violation, ceiling=own + config.lift_cost)
    head.monotone, head.monotone_reach = ("soft", reach) if reach else ("off", head.monotone_reach)
    return head, Settled(kept, reach)
