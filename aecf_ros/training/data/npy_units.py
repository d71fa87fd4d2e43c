"""A dataset folder as a corpus: each unit is a block of rows of one modality."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from aecf_ros.core.labeled_samples import Batch
from aecf_ros.modalities.base import ModalitySpec
from aecf_ros.training.data.corpus import Corpus
from aecf_ros.training.data.npy_dataset import Dataset, DatasetError, Samples, load_dataset

BLOCK_ROWS = 4096


@dataclass(eq=False)
class FolderUnit:
    """Rows ``start`` to ``stop`` of an array; one modality each; a :class:`aecf_ros.core.labeled_samples.Unit`.

    Attributes:
        modality: the one it holds.
        sources: int64 ``(N,)``, index into the modality's sources, or -1 where unknown.
        column, columns: which of how many modalities it is.
        array_digest: SHA-256 of the whole array and its labels.
    """

    name: str
    recording: str
    digest: str
    labels: np.ndarray
    clusters: np.ndarray
    modality: str
    sources: np.ndarray
    path: Path
    start: int
    column: int
    columns: int
    array_digest: str
    problems: list[str] = field(default_factory=list)
    duration_s: float | None = None

    def load(self) -> np.ndarray:
        """The whole array that the rows are of, ``(N, ...)`` as the modality's spec says; memory-mapped."""
        return np.load(self.path, mmap_mode="r", allow_pickle=False)

    def only(self, name: str) -> FolderUnit:
        """The same rows: there is one modality in them."""
        return self

    def batches(self, size: int) -> Iterator[Batch]:
        """The rows in order, up to ``size`` at a time."""
        data = self.load()
        for first in range(self.start, self.start + len(self.labels), size):
            rows = np.array(data[first : min(first + size, self.start + len(self.labels))])
            present = np.zeros((len(rows), self.columns), bool)
            present[:, self.column] = True
            yield Batch({self.modality: rows}, present)


def folder_corpus(directory: Path | str, modalities: Sequence[ModalitySpec] | None = None) -> Corpus:
    """Open a dataset folder.

    Args:
        directory: see :mod:`aecf_ros.training.data.npy_dataset`.
        modalities: what the encoders take, where they are somebody's.

    Raises:
        DatasetError: the folder cannot be used, or it is not what the encoders take.
    """
    dataset = load_dataset(directory)
    spec = dataset.spec
    for wanted in modalities or ():
        _fits(directory, spec.modalities, wanted)
    _refuse_copies(dataset)
    parts = {
        part: [
            unit
            for column, m in enumerate(spec.modalities)
            for unit in _units(dataset.directory, part, m, dataset.parts[part][m.name], column, len(spec.modalities))
        ]
        for part in dataset.parts
    }
    return Corpus(
        name=spec.name,
        labels=spec.labels,
        modalities=spec.modalities,
        parts=parts,
        paired=False,
        sources=spec.sources,
        description=spec.description,
    )


def _refuse_copies(dataset: Dataset) -> None:
    first: dict[tuple[str, str], Path] = {}
    for part, by_name in dataset.parts.items():
        for name, samples in by_name.items():
            path = dataset.directory / part / f"{name}.npy"
            other = first.setdefault((name, samples.digest), path)
            if other != path:
                raise DatasetError(
                    f"{path} holds the same as {other}: in two parts a copy is leakage; make the dataset again"
                )


def _units(
    directory: Path, part: str, modality: ModalitySpec, samples: Samples, column: int, columns: int
) -> Iterator[FolderUnit]:
    for start in range(0, len(samples), BLOCK_ROWS):
        rows = slice(start, min(start + BLOCK_ROWS, len(samples)))
        yield FolderUnit(
            name=f"{part}/{modality.name}/{start}",
            recording=f"{part}/{modality.name}",
            digest=hashlib.sha256(f"{samples.digest} {rows.start} {rows.stop}".encode()).hexdigest(),
            labels=samples.labels[rows],
            clusters=samples.clusters[rows],
            modality=modality.name,
            sources=samples.sources[rows],
            path=directory / part / f"{modality.name}.npy",
            start=start,
            column=column,
            columns=columns,
            array_digest=samples.digest,
        )


def _fits(directory: Path | str, held: Sequence[ModalitySpec], wanted: ModalitySpec) -> None:
    recorded = next((m for m in held if m.name == wanted.name), None)
    if recorded is None:
        raise DatasetError(
            f"{directory}: no modality '{wanted.name}'; it has {', '.join(m.name for m in held)}, "
            f"name encoders like them"
        )
    if recorded.kind != wanted.kind or recorded.sample_shape != wanted.sample_shape:
        raise DatasetError(
            f"{directory}: {wanted.name} is {recorded.size_text}, and the encoder takes {wanted.size_text}; "
            "make the dataset at that size or take another encoder"
        )
