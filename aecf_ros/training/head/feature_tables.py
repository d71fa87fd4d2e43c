"""Features of a corpus as a head takes them: a table for each modality, and the pairs of their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aecf_ros.training.config import PairsConfig
from aecf_ros.training.data.corpus import Corpus
from aecf_ros.training.data.npy_dataset import DatasetError
from aecf_ros.training.features.cache import UnitFeatures
from aecf_ros.training.head.fit_loop import fingerprint
from aecf_ros.training.head.pairing import Pairs, pair_by_label, pair_by_moment


@dataclass(frozen=True)
class FeatureTable:
    """Samples of one modality, unpaired.

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

    def __len__(self) -> int:
        return len(self.labels)

    def digest(self) -> str:
        """Changes when the table does."""
        return fingerprint(*(np.ascontiguousarray(column).tobytes() for column in vars(self).values()))


def stacked(tables: Sequence[FeatureTable]) -> FeatureTable:
    """Concatenate tables."""
    return FeatureTable(
        *(np.concatenate(columns) for columns in zip(*(vars(table).values() for table in tables), strict=True))
    )


@dataclass(frozen=True)
class PartFeatures:
    """Features of one part of a corpus.

    Attributes:
        clean: for each modality, its samples as recorded.
        copies: for each modality, its corrupted copies, each as long as the recorded samples.
        moments: rows of the same moment; ``None`` where modalities are paired by label.
        sources: for each modality, int64 ``(N,)``, index into ``source_names``, or -1.
        source_names: for each modality, the corpora or recordings of its samples.
        sets: see :class:`aecf_ros.training.data.corpus.Corpus`.
    """

    clean: Sequence[FeatureTable]
    copies: Sequence[Sequence[FeatureTable]]
    moments: Pairs | None
    sources: Sequence[np.ndarray]
    source_names: Sequence[Sequence[str]]
    sets: np.ndarray | None = None

    @property
    def embeddings(self) -> list[np.ndarray]:
        """As recorded: float32 ``(N_m, D_m)`` of each modality."""
        return [table.embeddings for table in self.clean]

    @property
    def labels(self) -> list[np.ndarray]:
        """int64 ``(N_m,)`` of each modality."""
        return [table.labels for table in self.clean]

    @property
    def spans(self) -> int:
        """Labeled spans of recordings, or clusters of a dataset, of the modality that has the fewest."""
        return min(len(np.unique(table.clusters)) for table in self.clean)

    def tables(self, copies: int) -> list[FeatureTable]:
        """For each modality, its samples as recorded and then the first ``copies`` corrupted copies."""
        return [stacked([clean, *others[:copies]]) for clean, others in zip(self.clean, self.copies, strict=True)]

    def pairs(self, count: int, nothing_share: float, seed: Sequence[int]) -> Pairs:
        """Fixed pairs to fit or measure on: all moments, or ``count`` pairs drawn by label."""
        if self.moments is not None:
            return self.moments
        return pair_by_label(self.labels, count, nothing_share, 0.0, np.random.default_rng(seed))

    def calibration_pairs(self, config: PairsConfig, seed: int) -> Pairs:
        """The pairs of a calibration part in a run with this seed."""
        return self.pairs(config.calibration, config.nothing_share, [seed, CALIBRATION_DRAW])

    def test_pairs(self, config: PairsConfig, seed: int) -> Pairs:
        """The pairs of a test part in a run with this seed."""
        return self.pairs(config.test, config.nothing_share, [seed, TEST_DRAW])


CALIBRATION_DRAW, TEST_DRAW = 12, 13


def gather(corpus: Corpus, features: Mapping[str, Sequence[UnitFeatures]]) -> dict[str, PartFeatures]:
    """The parts from the features that :func:`aecf_ros.training.features.cache.extract` gives.

    Raises:
        DatasetError: a part in which a modality is never present.
    """
    return {part: _gather(corpus, part, units) for part, units in features.items()}


def _gather(corpus: Corpus, part: str, features: Sequence[UnitFeatures]) -> PartFeatures:
    clean, copies, sources, names = [], [], [], []
    recordings = list(dict.fromkeys(item.unit.recording for item in features))
    for spec in corpus.modalities:
        own = [item for item in features if spec.name in item.shards]
        count = min((len(item.shards[spec.name]) for item in own), default=0)
        versions = [
            stacked([_table(corpus, item, spec.name, version, recordings) for item in own]) for version in range(count)
        ]
        if not versions or not len(versions[0]):
            raise DatasetError(
                f"{corpus.name}: {spec.name} is never present in the part '{part}'; "
                "add recordings that have it, or leave it out"
            )
        clean.append(versions[0])
        copies.append(versions[1:])
        if corpus.paired:
            where = [
                np.full(item.shards[spec.name][0].present.sum(), recordings.index(item.unit.recording)) for item in own
            ]
        else:
            where = [item.unit.sources for item in own if item.unit.sources is not None]
        sources.append(np.concatenate(where))
        names.append(recordings if corpus.paired else spec.sources)
    moments = None
    if corpus.paired:
        present = np.concatenate(
            [np.stack([item.shards[name][0].present for name in corpus.names], axis=1) for item in features]
        )
        moments = pair_by_moment(present, np.concatenate([item.unit.labels for item in features]))
    return PartFeatures(clean, copies, moments, sources, names, corpus.sets)


def _table(corpus: Corpus, features: UnitFeatures, name: str, version: int, recordings: Sequence[str]) -> FeatureTable:
    unit, shard = features.unit, features.shards[name][version]
    clusters = unit.clusters
    if corpus.paired:  # numbered within a recording
        clusters = recordings.index(unit.recording) * 2**32 + clusters
    return FeatureTable(shard.embeddings, unit.labels[shard.present], shard.kind, clusters[shard.present])
