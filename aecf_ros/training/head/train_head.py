"""The experts of a fusion head, fitted on clean and corrupted samples, and its prior. What is fitted is kept in the run folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from aecf_ros.fusion.gates.reliability import EvidenceGate
from aecf_ros.fusion.layer import AECF
from aecf_ros.fusion.presence.masking import random_subsets
from aecf_ros.training.calibration.calibrate import subset_nll
from aecf_ros.training.data.npy_dataset import NOTHING
from aecf_ros.training.features.encoder_training import smoothed_targets
from aecf_ros.training.head.batch_sampler import Draws
from aecf_ros.training.head.distributed import ALONE, Ranks
from aecf_ros.training.head.feature_tables import Table
from aecf_ros.training.head.fit_loop import Advance, History, Stopping, fingerprint, fit, module_digest, precision_key
from aecf_ros.training.run.config import HeadConfig

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
        stopping = Stopping(
            config.early_stopping.patience, lambda: subset_nll(head, [of.embeddings for of in tables], pairs, sets)
        )

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

    return fit(
        head,
        losses,
        batches,
        config.optimizer,
        folder / f"head-{key}.npz",
        seed,
        advance,
        stopping=stopping,
        mixed=mixed,
        ranks=ranks,
    )


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


def _expert_loss(
    head: AECF,
    inputs: list[Tensor],
    label: Tensor,
    shows: Tensor,
    present: Tensor,
    targets: Targets,
    generator,
    due: Tensor,
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
    head: AECF,
    inputs: list[Tensor],
    label: Tensor,
    shows: Tensor,
    present: Tensor,
    targets: Targets,
    generator,
    due: Tensor,
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
