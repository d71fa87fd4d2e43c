"""Pairing of the samples of several modalities: those of one moment, or those of one label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aecf_ros.core.labeled_samples import NOTHING
from aecf_ros.training.data.npy_dataset import DatasetError

MISSING = -1
"""Row of a modality that a multimodal sample does not have."""


@dataclass(frozen=True)
class Pairs:
    """Multimodal samples: which sample of each modality belongs to them.

    Attributes:
        rows: int64 ``(N, M)``, sample index in each modality, :data:`MISSING` where it has none.
        labels: int64 ``(N,)``, the label that at least one modality shows, or -1 where none shows any.
        shows: bool ``(N, M)``, whether that modality shows the label; the others show nothing, or are missing.
    """

    rows: np.ndarray
    labels: np.ndarray
    shows: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def present(self) -> np.ndarray:
        """bool ``(N, M)``, whether the modality has a sample."""
        present: np.ndarray = self.rows != MISSING
        return present

    def at(self, rows: np.ndarray | slice) -> Pairs:
        """The pairs at ``rows``: numbers, a mask or a slice."""
        return Pairs(self.rows[rows], self.labels[rows], self.shows[rows])


def pair_by_label(
    labels: Sequence[np.ndarray],
    count: int,
    nothing_share: float,
    all_nothing_share: float,
    generator: np.random.Generator,
) -> Pairs:
    """Draw multimodal samples: modalities of one label, some of them showing nothing instead.

    Classes are drawn evenly. Within a class no sample is drawn twice before every sample was drawn once, so that a
    corpus of few recordings is used evenly.

    Args:
        labels: int64 ``(N_m,)`` of each modality, -1 for nothing.
        count: samples to draw.
        nothing_share: share of samples in which one modality, drawn evenly, shows nothing. Needs two modalities.
        all_nothing_share: share of samples in which all show nothing; their label is -1.

    Raises:
        DatasetError: a share above zero for a modality that has no sample of nothing.
    """
    modalities = len(labels)
    nothing = [np.flatnonzero(column == NOTHING) for column in labels]
    if (all_nothing_share > 0 or (nothing_share > 0 and modalities > 1)) and any(len(rows) == 0 for rows in nothing):
        lacking_nothing = next(m for m, rows in enumerate(nothing) if len(rows) == 0)
        raise DatasetError(
            f"modality {lacking_nothing} has no sample of label -1 to pair with; add some, "
            "or set pairs.nothing_share=0 head.nothing_share=0 head.all_nothing_share=0"
        )
    classes = int(max(column.max() for column in labels)) + 1
    target = np.arange(count) % classes
    generator.shuffle(target)
    shows = np.ones((count, modalities), bool)
    draw = generator.random(count)
    if modalities > 1:
        lacking = np.flatnonzero(draw < nothing_share)
        shows[lacking, generator.integers(modalities, size=len(lacking))] = False
    empty = (draw >= nothing_share) & (draw < nothing_share + all_nothing_share)
    shows[empty] = False
    target[empty] = NOTHING
    rows = np.empty((count, modalities), np.int64)
    for m, column in enumerate(labels):
        wanted = np.where(shows[:, m], target, NOTHING)
        for value in range(NOTHING, classes):
            at = np.flatnonzero(wanted == value)
            if len(at):
                rows[at, m] = draw_evenly(np.flatnonzero(column == value), len(at), generator)
    return Pairs(rows, target, shows)


def draw_evenly(rows: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """``count`` of ``rows`` int64 ``(K,)``, K > 0, in random order, none twice before all were taken once."""
    rounds = -(-count // len(rows))
    return np.concatenate([generator.permutation(rows) for _ in range(rounds)])[:count]


def pair_by_moment(present: np.ndarray, labels: np.ndarray) -> Pairs:
    """Pair the samples of each moment: row k of a modality is its sample at the k-th moment at which it is present.

    Args:
        present: bool ``(N, M)``.
        labels: int64 ``(N,)``, -1 for nothing to recognize.

    >>> pair_by_moment(np.array([[True, True], [False, True]]), np.array([0, 1])).rows.tolist()
    [[0, 0], [-1, 1]]
    """
    rows = np.where(present, np.cumsum(present, axis=0) - 1, MISSING)
    return Pairs(rows, labels, present & (labels != NOTHING)[:, None])
