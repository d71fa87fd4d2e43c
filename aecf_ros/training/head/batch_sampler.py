"""Samplers of the pairs that a head is trained on, redrawn every epoch: by label, or by recorded moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from aecf_ros.training.config import HeadConfig
from aecf_ros.training.data.npy_dataset import DatasetError
from aecf_ros.training.head.feature_tables import PartFeatures
from aecf_ros.training.head.fit_loop import fingerprint
from aecf_ros.training.head.pairing import MISSING, Pairs, draw_evenly, pair_by_label


class PairSampler(Protocol):
    """Draws training pairs. Rows are those of :meth:`aecf_ros.training.head.feature_tables.PartFeatures.tables`."""

    def draw(self, count: int, generator: np.random.Generator) -> Pairs:
        """``count`` pairs."""
        ...

    def digest(self) -> str:
        """Changes when the same tables and seed would give other pairs."""
        ...

    def split(self, share: float, generator: np.random.Generator) -> tuple[PairSampler, PairSampler]:
        """Two samplers that share no cluster; the second has about ``share`` of the clusters.

        Raises:
            DatasetError: there are too few clusters.
        """
        ...


@dataclass(frozen=True)
class LabelSampler:
    """Pairs modalities by label.

    Attributes:
        labels, clusters: int64 ``(N_m,)`` of each modality.
        rows: of each modality, the rows to draw from.
        nothing_share, all_nothing_share: see :func:`aecf_ros.training.head.pairing.pair_by_label`.
    """

    labels: Sequence[np.ndarray]
    clusters: Sequence[np.ndarray]
    rows: Sequence[np.ndarray]
    nothing_share: float
    all_nothing_share: float

    def draw(self, count: int, generator: np.random.Generator) -> Pairs:
        """See :class:`PairSampler`; classes are drawn evenly."""
        labels = [column[rows] for column, rows in zip(self.labels, self.rows, strict=True)]
        pairs = pair_by_label(labels, count, self.nothing_share, self.all_nothing_share, generator)
        chosen = [rows[pairs.rows[:, m]] for m, rows in enumerate(self.rows)]
        return replace(pairs, rows=np.stack(chosen, axis=1))

    def digest(self) -> str:
        """See :class:`PairSampler`."""
        return fingerprint([self.nothing_share, self.all_nothing_share], *(rows.tobytes() for rows in self.rows))

    def split(self, share: float, generator: np.random.Generator) -> tuple[LabelSampler, LabelSampler]:
        """See :class:`PairSampler`; each class of a modality gives about ``share`` of its clusters."""
        held = []
        for labels, clusters in zip(self.labels, self.clusters, strict=True):
            out: list[np.ndarray] = []
            for value in np.unique(labels):
                out.append(_some(np.unique(clusters[labels == value]), share, generator))
            held.append(np.isin(clusters, np.concatenate(out)))
        sides = [[rows[out[rows] == side] for rows, out in zip(self.rows, held, strict=True)] for side in (False, True)]
        return replace(self, rows=sides[0]), replace(self, rows=sides[1])


@dataclass(frozen=True)
class MomentSampler:
    """Draws moments of recordings, each modality as recorded or as one of its corrupted copies.

    Attributes:
        moments: to draw from.
        clusters: int64 ``(N,)``, of the moments.
        counts: samples of each modality as recorded; copy c of sample k is row ``k + c * counts[m]``.
        copies: corrupted copies of each sample.
        balanced: draw each class, and nothing, equally often; else as often as recorded.
        by_class: split each class on its own; multilabel moments have too many combinations for that.
    """

    moments: Pairs
    clusters: np.ndarray
    counts: Sequence[int]
    copies: int
    balanced: bool
    by_class: bool = True

    def draw(self, count: int, generator: np.random.Generator) -> Pairs:
        """See :class:`PairSampler`; no moment is drawn twice before all of its class were drawn once."""
        labels = self.moments.labels
        if self.balanced:
            classes = np.unique(labels)
            target = classes[np.arange(count) % len(classes)]
            generator.shuffle(target)
            drawn = np.empty(count, np.int64)
            for value in classes:
                at = np.flatnonzero(target == value)
                drawn[at] = draw_evenly(np.flatnonzero(labels == value), len(at), generator)
        else:
            drawn = draw_evenly(np.arange(len(labels)), count, generator)
        rows = self.moments.rows[drawn]
        copy = generator.integers(self.copies + 1, size=rows.shape) * np.asarray(self.counts)
        return Pairs(np.where(rows == MISSING, MISSING, rows + copy), labels[drawn], self.moments.shows[drawn])

    def digest(self) -> str:
        """See :class:`PairSampler`."""
        columns = (self.moments.rows, self.moments.labels, self.moments.shows, self.clusters)
        return fingerprint([self.copies, self.balanced], *(column.tobytes() for column in columns))

    def split(self, share: float, generator: np.random.Generator) -> tuple[MomentSampler, MomentSampler]:
        """See :class:`PairSampler`; each class gives about ``share`` of its clusters."""
        labels = self.moments.labels if self.by_class else np.zeros(len(self.moments), np.int64)
        out = [_some(np.unique(self.clusters[labels == value]), share, generator) for value in np.unique(labels)]
        held = np.isin(self.clusters, np.concatenate(out))
        return self._at(~held), self._at(held)

    def _at(self, rows: np.ndarray) -> MomentSampler:
        return replace(self, moments=self.moments.at(rows), clusters=self.clusters[rows])


def _some(clusters: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    if len(clusters) < 2:
        raise DatasetError(
            "head.early_stopping holds clusters of each class out of the part 'fusion', and a class has only one; "
            "record it more often, or leave early_stopping out"
        )
    count = min(max(round(share * len(clusters)), 1), len(clusters) - 1)
    return generator.permutation(clusters)[:count]


def pair_sampler(part: PartFeatures, config: HeadConfig) -> PairSampler:
    """The sampler of the part ``fusion``.

    Raises:
        DatasetError: no moment has any modality.
    """
    if part.moments is None:
        tables = part.tables(config.field_copies)
        everything = [np.arange(len(table)) for table in tables]
        return LabelSampler(
            [table.labels for table in tables],
            [table.clusters for table in tables],
            everything,
            config.nothing_share,
            config.all_nothing_share,
        )
    usable = np.flatnonzero(part.moments.present.any(1))
    clusters = np.full(len(part.moments), MISSING)
    for m, table in enumerate(part.clean):
        here = part.moments.present[:, m]
        clusters[here] = table.clusters[part.moments.rows[here, m]]
    counts = [len(table) for table in part.clean]
    single_label = part.sets is None
    return MomentSampler(
        part.moments.at(usable),
        clusters[usable],
        counts,
        config.field_copies,
        config.balanced and single_label,
        by_class=single_label,
    )
