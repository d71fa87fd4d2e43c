"""Training samples of a head, drawn anew every epoch: by label, or moments as they were recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from aecf_ros.training.data.npy_dataset import DatasetError
from aecf_ros.training.head.feature_tables import Part
from aecf_ros.training.head.fit_loop import fingerprint
from aecf_ros.training.head.pairing import MISSING, Pairs, pair_by_label, spread
from aecf_ros.training.run.config import HeadConfig


class PairSampler(Protocol):
    """Where training pairs come from. Rows count in :meth:`aecf_ros.training.head.feature_tables.Part.tables`."""

    def draw(self, count: int, generator: np.random.Generator) -> Pairs:
        """``count`` pairs."""
        ...

    def digest(self) -> str:
        """Changes when what is drawn does, from the same tables."""
        ...

    def split(self, share: float, generator: np.random.Generator) -> tuple[PairSampler, PairSampler]:
        """Two sources that share no cluster, the second of about ``share`` of them.

        Raises:
            DatasetError: there are too few clusters.
        """
        ...


@dataclass(frozen=True)
class LabelSampler:
    """Modalities of one label. ``labels`` and ``clusters`` int64 ``(N_m,)`` of each modality, ``rows`` those to draw from."""

    labels: Sequence[np.ndarray]
    clusters: Sequence[np.ndarray]
    rows: Sequence[np.ndarray]
    nothing_share: float
    all_nothing_share: float

    def draw(self, count: int, generator: np.random.Generator) -> Pairs:
        """See :class:`PairSampler`; classes are drawn evenly."""
        labels = [of[rows] for of, rows in zip(self.labels, self.rows, strict=True)]
        pairs = pair_by_label(labels, count, self.nothing_share, self.all_nothing_share, generator)
        chosen = [rows[pairs.rows[:, m]] for m, rows in enumerate(self.rows)]
        return replace(pairs, rows=np.stack(chosen, axis=1))

    def digest(self) -> str:
        """See :class:`PairSampler`."""
        return fingerprint([self.nothing_share, self.all_nothing_share], *(of.tobytes() for of in self.rows))

    def split(self, share: float, generator: np.random.Generator) -> tuple[LabelSampler, LabelSampler]:
        """See :class:`PairSampler`; each class of a modality gives about ``share`` of its clusters."""
        held = []
        for labels, clusters in zip(self.labels, self.clusters, strict=True):
            out: list[np.ndarray] = []
            for value in np.unique(labels):
                out.append(_some(np.unique(clusters[labels == value]), share, generator))
            held.append(np.isin(clusters, np.concatenate(out)))
        sides = [[rows[of[rows] == side] for rows, of in zip(self.rows, held, strict=True)] for side in (False, True)]
        return replace(self, rows=sides[0]), replace(self, rows=sides[1])


@dataclass(frozen=True)
class MomentSampler:
    """Moments of recordings, each modality as recorded or as one of its corrupted copies.

    Attributes:
        moments: those to draw from.
        clusters: int64 ``(N,)`` of them.
        counts: samples of each modality as recorded; copy c of sample k is row ``k + c * counts[m]``.
        copies: corrupted copies of each sample.
        balanced: draw each class, nothing to recognize among them, equally often; else as often as it comes.
        by_class: split each class by itself; of moments with several labels there are too many kinds for that.
    """

    moments: Pairs
    clusters: np.ndarray
    counts: Sequence[int]
    copies: int
    balanced: bool
    by_class: bool = True

    def draw(self, count: int, generator: np.random.Generator) -> Pairs:
        """See :class:`PairSampler`; none is drawn twice before all of its class were drawn once."""
        labels = self.moments.labels
        if self.balanced:
            classes = np.unique(labels)
            target = classes[np.arange(count) % len(classes)]
            generator.shuffle(target)
            drawn = np.empty(count, np.int64)
            for value in classes:
                at = np.flatnonzero(target == value)
                drawn[at] = spread(np.flatnonzero(labels == value), len(at), generator)
        else:
            drawn = spread(np.arange(len(labels)), count, generator)
        rows = self.moments.rows[drawn]
        copy = generator.integers(self.copies + 1, size=rows.shape) * np.asarray(self.counts)
        return Pairs(np.where(rows == MISSING, MISSING, rows + copy), labels[drawn], self.moments.shows[drawn])

    def digest(self) -> str:
        """See :class:`PairSampler`."""
        of = self.moments
        return fingerprint(
            [self.copies, self.balanced], *(a.tobytes() for a in (of.rows, of.labels, of.shows, self.clusters))
        )

    def split(self, share: float, generator: np.random.Generator) -> tuple[MomentSampler, MomentSampler]:
        """See :class:`PairSampler`; each class gives about ``share`` of its clusters."""
        labels = self.moments.labels if self.by_class else np.zeros(len(self.moments), np.int64)
        out = [_some(np.unique(self.clusters[labels == value]), share, generator) for value in np.unique(labels)]
        held = np.isin(self.clusters, np.concatenate(out))
        return self._of(~held), self._of(held)

    def _of(self, rows: np.ndarray) -> MomentSampler:
        return replace(self, moments=self.moments.at(rows), clusters=self.clusters[rows])


def _some(clusters: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    if len(clusters) < 2:
        raise DatasetError(
            "head.early_stopping holds clusters of each class out of the part 'fusion', and a class has only one; "
            "record it more often, or leave early_stopping out"
        )
    count = min(max(round(share * len(clusters)), 1), len(clusters) - 1)
    return generator.permutation(clusters)[:count]


def pair_sampler(part: Part, config: HeadConfig) -> PairSampler:
    """What a head is trained on, of the part ``fusion``.

    Raises:
        DatasetError: no moment has any modality.
    """
    if part.moments is None:
        tables = part.tables(config.field_copies)
        everything = [np.arange(len(of)) for of in tables]
        return LabelSampler(
            [of.labels for of in tables],
            [of.clusters for of in tables],
            everything,
            config.nothing_share,
            config.all_nothing_share,
        )
    usable = part.moments.present.any(1)
    clusters = np.full(len(part.moments), MISSING)
    for m, of in enumerate(part.clean):
        here = part.moments.present[:, m]
        clusters[here] = of.clusters[part.moments.rows[here, m]]
    counts = [len(of) for of in part.clean]
    one = part.sets is None
    return MomentSampler(
        part.moments.at(usable), clusters[usable], counts, config.field_copies, config.balanced and one, by_class=one
    )
