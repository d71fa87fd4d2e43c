"""Training of the experts of a fusion head, on recorded samples and corrupted copies, and its prior."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from aecf_ros.core.labeled_samples import NOTHING
from aecf_ros.fusion.gates.reliability import EvidenceGate
from aecf_ros.fusion.layer import AECF
from aecf_ros.fusion.presence.masking import random_subsets
from aecf_ros.training.calibration.calibrate import subset_nll
from aecf_ros.training.config import HeadConfig
from aecf_ros.training.features.encoder_training import smoothed_targets
from aecf_ros.training.head.batch_sampler import PairSampler
from aecf_ros.training.head.distributed import ProcessGroup
from aecf_ros.training.head.feature_tables import FeatureTable
from aecf_ros.training.head.fit_loop import Batches, EarlyStopping, FitContext, History, fingerprint, fit, module_digest
from aecf_ros.training.head.pairing import Pairs

Targets = Callable[[Tensor], Tensor]
"""Labels (N,) -> distributions (N, C)."""
_HELD_OUT = 16


def new_head(widths: Sequence[int], classes: int, config: HeadConfig, seed: int, multilabel: bool = False) -> AECF:
    """Create an untrained head; its weights depend on the seed only. A multilabel head lifts no confidence.

    Args:
        widths: D_m of each modality.
    """
    torch.manual_seed(seed)
    options = config.options.model_dump() | ({"multilabel": True, "monotone": "off"} if multilabel else {})
    return AECF(widths, classes, **options)


@dataclass(frozen=True)
class _Batch:
    """The share of this process in a batch: B samples of M modalities.

    Attributes:
        embeddings: float32 ``(B, D_m)`` of each modality.
        labels: int64 ``(B,)``.
        shows: bool ``(B, M)``, whether the modality shows the label.
        present: bool ``(B, M)``.
        even: float32 ``(M + 1,)``: samples of each modality, and of the batch, that each process would have if they
            were shared evenly.
    """

    embeddings: list[Tensor]
    labels: Tensor
    shows: Tensor
    present: Tensor
    even: Tensor


def fit_experts(
    head: AECF,
    tables: Sequence[FeatureTable],
    sampler: PairSampler,
    config: HeadConfig,
    context: FitContext,
    sets: np.ndarray | None = None,
) -> History:
    """Fit the experts, and a softmax gate with them, in place, on pairs redrawn every epoch.

    Under the evidence gate each expert is fitted by its own likelihood, on the samples in which its modality is
    present. Under any other gate the layer is fitted by its likelihood, with a random subset of the present
    modalities in every sample.

    Args:
        tables: of each modality, recorded samples and corrupted copies.
        sampler: draws pairs of their rows.
        sets: bool ``(K, C)``, the labels of each class index of a multilabel corpus.

    Raises:
        DatasetError: early stopping has too few clusters to hold any out.
    """
    size, seed = config.optimizer.batch_size, context.seed
    count = max(config.samples_per_epoch // size, 1)
    key = fingerprint(
        [table.digest() for table in tables],
        sampler.digest(),
        config.model_dump(mode="json", exclude={"reliability"}),
        seed,
        module_digest(head),
        *context.key(),
        *([] if sets is None else [sets.tobytes()]),
    )
    stopping = None
    if config.early_stopping is not None:
        generator = np.random.default_rng([seed, _HELD_OUT])
        sampler, held_out = sampler.split(config.early_stopping.share, generator)
        held_pairs, held_tables = (
            held_out.draw(config.early_stopping.pairs, generator),
            [table.embeddings for table in tables],
        )
        stopping = EarlyStopping(
            config.early_stopping.patience, lambda: subset_nll(head, held_tables, held_pairs, sets)
        )
    embeddings = [torch.from_numpy(table.embeddings) for table in tables]
    loss_of = _expert_loss if isinstance(head.gate, EvidenceGate) else _joint_loss
    targets = _targets(head, config.label_smoothing, sets)

    def losses(epoch: int, generator: torch.Generator) -> Iterator[Tensor]:
        pairs = sampler.draw(count * size, np.random.default_rng([seed, epoch]))
        for start in range(0, len(pairs), size):
            batch = _batch(embeddings, pairs.at(slice(start, start + size)), context.processes)
            yield loss_of(head, batch, targets, generator)

    return fit(head, Batches(count, losses), config.optimizer, f"head-{key}", context, stopping)


def _batch(embeddings: Sequence[Tensor], pairs: Pairs, processes: ProcessGroup) -> _Batch:
    even = torch.tensor([*pairs.present.sum(0), len(pairs)]) / processes.size
    own = pairs.at(processes.rows(len(pairs)))
    inputs = [table[own.rows[:, m]] for m, table in enumerate(embeddings)]
    labels, shows, present = (torch.from_numpy(column) for column in (own.labels, own.shows, own.present))
    return _Batch(inputs, labels, shows, present, even)


def _targets(head: AECF, smoothing: float, sets: np.ndarray | None) -> Targets:
    if sets is not None:
        table = torch.from_numpy(sets).float() * (1 - smoothing) + smoothing / 2
        return lambda labels: table[labels]
    uniform = bool((head.log_prior == head.log_prior[0]).all())
    return partial(
        smoothed_targets,
        classes=len(head.log_prior),
        smoothing=smoothing,
        prior=None if uniform else head.log_prior.exp(),
    )


def _mean_loss(head: AECF, logits: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, targets) if head.multilabel else F.cross_entropy(logits, targets)


def _expert_loss(head: AECF, batch: _Batch, targets: Targets, generator: torch.Generator) -> Tensor:
    losses = []
    for m, expert in enumerate(head.experts):
        here = batch.present[:, m]
        if here.any():
            shown = torch.where(batch.shows[here, m], batch.labels[here], NOTHING)
            loss = _mean_loss(head, head.log_prior + expert(batch.embeddings[m][here]), targets(shown))
            losses.append(loss * (here.sum() / batch.even[m]))  # exactly 1 where this process has the whole batch
        elif batch.even[m] > 0:
            losses.append(expert(batch.embeddings[m][:0]).sum())  # other processes have all of its samples
    return torch.stack(losses).mean()


def _joint_loss(head: AECF, batch: _Batch, targets: Targets, generator: torch.Generator) -> Tensor:
    share = len(batch.present) / batch.even[-1]
    present = random_subsets(batch.present, generator)
    shown = torch.where((present & batch.shows).any(1), batch.labels, NOTHING)
    return _mean_loss(head, head(batch.embeddings, present).logits, targets(shown)) * share


def set_prior(head: AECF, labels: np.ndarray, sets: np.ndarray | None = None) -> None:
    """Set the prior of a head to the frequencies of labels, in place.

    One is added to each count, so that no class is impossible.

    Args:
        labels: int64 ``(N,)``; -1 is left out.
        sets: see :func:`fit_experts`.
    """
    if sets is not None:
        share = (sets[labels].sum(0) + 1.0) / (len(labels) + 2.0)
        head.log_prior.copy_(torch.from_numpy(np.log(share / (1.0 - share))))
        return
    counts = np.bincount(labels[labels != NOTHING], minlength=len(head.log_prior)) + 1.0
    head.log_prior.copy_(torch.from_numpy(np.log(counts / counts.sum())))
