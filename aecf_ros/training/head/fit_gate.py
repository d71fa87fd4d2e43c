"""Fitting of the evidence gate: the reliability of each modality, out of fold, then settled on the calibration part."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch.nn import functional as F

from aecf_ros.core.labeled_samples import NOTHING
from aecf_ros.fusion.calibration.monotone import choose_reach
from aecf_ros.fusion.crossfit import CrossFitConfig, ModalitySamples, fit_reliability, settle
from aecf_ros.fusion.layer import AECF
from aecf_ros.training.calibration.calibrate import subset_logits
from aecf_ros.training.config import ReliabilityConfig
from aecf_ros.training.head.feature_tables import FeatureTable
from aecf_ros.training.head.fit_loop import FitContext, fingerprint, load_arrays, module_digest, save_arrays
from aecf_ros.training.head.pairing import Pairs

MOST_ROWS = 50_000
"""Most rows of a modality that its cross-fit uses: a stand-in draws some 77,000 samples in any case, and the distances
of more rows only cost time."""


@dataclass(frozen=True)
class Settled:
    """What the calibration part decided. ``kept``: for each modality, whether its cross-fitted reliability was kept.

    ``reach``: of the soft monotone lift, 0 for none.
    """

    kept: list[bool]
    reach: float


def fit_gate(head: AECF, tables: Sequence[FeatureTable], config: ReliabilityConfig, context: FitContext) -> AECF:
    """A copy of an evidence-gate head with the reliability of every modality fitted out of fold.

    Folds are over the kinds of corruption in each table. Samples of nothing are left out: experts were trained on them
    and stand-ins would not be, so that doubt learned from guessing stand-ins would be applied to experts that know.
    Each fitted reliability is kept in the run folder. Each process fits its own modalities, then loads the others; each
    thread fits one modality at a time, because the matrices are too small to share.
    """
    head = copy.deepcopy(head)
    settings = CrossFitConfig(**config.cross_fit.model_dump())
    done = itertools.count(1)

    def take(m: int) -> None:
        _fit_modality(head, m, tables[m], settings, context)
        context.progress(next(done), "")

    processes = context.processes
    mine = range(processes.rank, len(tables), processes.size)
    threads = torch.get_num_threads()
    workers = max(min(threads, len(mine)), 1)
    torch.set_num_threads(threads // workers)
    try:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(take, mine))
    finally:
        torch.set_num_threads(threads)
    processes.wait()
    for m in {*range(len(tables))} - {*mine}:
        take(m)
    return head.eval()


def _fit_modality(head: AECF, m: int, table: FeatureTable, settings: CrossFitConfig, context: FitContext) -> None:
    """Fit the reliability of modality ``m``, or load it from the run folder, in place."""
    reliability = head.reliability(m)
    key = fingerprint(
        table.digest(),
        asdict(settings),
        context.seed,
        module_digest(head.experts[m]),
        module_digest(reliability),
        head.log_prior.numpy().tobytes(),
    )
    path = context.folder / f"reliability-{key}.npz"
    stored = load_arrays(path)
    if stored is None:
        rows = _cross_fit_rows(table)
        embeddings, labels, groups, clusters = (torch.from_numpy(column[rows]) for column in vars(table).values())
        samples = ModalitySamples(embeddings, labels, clusters, groups)
        fit_reliability(head, m, samples, settings, torch.Generator().manual_seed(context.seed + m))
        stored = {name: value.numpy() for name, value in reliability.state_dict().items()}
        save_arrays(path, stored)
    reliability.load_state_dict({name: torch.from_numpy(value) for name, value in stored.items()})


def _cross_fit_rows(table: FeatureTable) -> np.ndarray:
    """The labeled rows, or :data:`MOST_ROWS` at equal distances, which keeps the shares of kinds and clusters."""
    rows = np.flatnonzero(table.labels != NOTHING)
    return rows if len(rows) <= MOST_ROWS else rows[np.arange(MOST_ROWS) * len(rows) // MOST_ROWS]


def settle_gate(
    head: AECF, tables: Sequence[FeatureTable], pairs: Pairs, config: ReliabilityConfig
) -> tuple[AECF, Settled]:
    """A copy of a cross-fitted head, settled on the calibration part.

    The reliability of each modality is shifted to that part, or dropped where it costs too much there. Then the
    smallest lift of confidence is chosen that brings violations down to ``config.violation``.

    Args:
        head: from :func:`fit_gate`.
        tables: of the calibration part.
        pairs: of the calibration part.
    """
    head = copy.deepcopy(head).eval()
    kept = []
    for m, table in enumerate(tables):
        columns = (torch.from_numpy(column) for column in (table.embeddings, table.labels, table.clusters))
        kept.append(settle(head, m, ModalitySamples(*columns), config.deviation, config.price))
    if head.monotone != "soft" or len(tables) == 1:
        return head, Settled(kept, 0.0)
    labeled = np.flatnonzero((pairs.labels != NOTHING) & pairs.present.all(1))
    if not len(labeled):
        return head, Settled(kept, 0.0)
    inputs = [torch.from_numpy(table.embeddings[pairs.rows[labeled, m]]) for m, table in enumerate(tables)]
    targets = torch.from_numpy(pairs.labels[labeled])
    head.monotone = "off"
    own = F.cross_entropy(subset_logits(head, inputs, (True,) * len(tables)), targets).item()
    reach = choose_reach(head, inputs, targets, violation=config.violation, ceiling=own + config.lift_cost)
    head.monotone, head.monotone_reach = ("soft", reach) if reach else ("off", head.monotone_reach)
    return head, Settled(kept, reach)
