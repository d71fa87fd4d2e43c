"""The dataset folder that `aecf train` reads.

A folder holds ``dataset.yaml`` and, for each part P and modality m, ``P/m.npy`` with ``P/m_labels.npy`` (int16 class
index, or -1 where there is nothing to recognize: an empty scene, silence, noise). Images are uint8 ``(N, H, W, 3)``
RGB,
sound is int16 ``(N, samples)``, vectors are float32 ``(N, dim)``. The part ``encoders`` may be absent where encoders
are frozen ones. Two files are
optional: ``P/m_sources.npy`` (int16 index into the modality's ``sources``, -1 for none) says which corpus a sample is
from, and ``P/m_clusters.npy`` (integers) which samples are not independent: those made from one recording, one
drawing or
one session share a number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from aecf_ros.core.labeled_samples import NOTHING
from aecf_ros.core.yaml_records import read_record
from aecf_ros.modalities.base import AnyModalitySpec, ModalitySpec

DATASET = "dataset.yaml"
PARTS = ("encoders", "fusion", "calibration", "test")


class DatasetError(ValueError):
    """A dataset folder that cannot be used. The message is one line: the file, what was found, what to do."""


class DatasetSpec(BaseModel):
    """The contents of ``dataset.yaml``; keys that others add for people are kept out of the way."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    labels: list[str] = Field(min_length=2)
    description: str = ""
    sources: list[str] = []
    modalities: list[AnyModalitySpec] = Field(min_length=1, max_length=8)


@dataclass(frozen=True)
class Samples:
    """One modality of one part, memory-mapped.

    Attributes:
        data: ``(N, *sample_shape)``, uint8 images, int16 sound or float32 vectors.
        labels: int64 ``(N,)``, class index or -1.
        sources: int64 ``(N,)``, index into the modality's sources, or -1 where unknown.
        clusters: int64 ``(N,)``, shared by samples of one recording; each sample its own where the folder does not say.
        digest: SHA-256 of the data and the labels.
    """

    data: np.ndarray
    labels: np.ndarray
    sources: np.ndarray
    clusters: np.ndarray
    digest: str

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """A validated dataset folder."""

    directory: Path
    spec: DatasetSpec
    parts: Mapping[str, Mapping[str, Samples]]


def load_dataset(directory: Path | str) -> Dataset:
    """Open and validate a dataset folder; arrays stay on disk.

    Raises:
        DatasetError: a missing file, a manifest that is not what it should be, an array with the wrong type, shape,
            length or labels, or a class that a part lacks.
    """
    directory = Path(directory)
    spec = _load_spec(directory)
    there = [part for part in PARTS if part != "encoders" or (directory / part).is_dir()]
    parts = {
        part: {m.name: _load_samples(directory, part, m, len(spec.labels)) for m in spec.modalities} for part in there
    }
    return Dataset(directory, spec, parts)


def _load_spec(directory: Path) -> DatasetSpec:
    path = directory / DATASET
    if not path.is_file():
        raise DatasetError(
            f"{path}: no such file; name a dataset folder with --data (dev/prepare_av_digits.py makes one)"
        )
    spec = read_record(path, DatasetSpec, DatasetError, "make the dataset again")
    names = [m.name for m in spec.modalities]
    if len(set(names)) != len(names):
        raise DatasetError(f"{path}: modality names {names} repeat; give each its own")
    return spec


def _load_array(path: Path) -> np.ndarray:
    if not path.is_file():
        raise DatasetError(f"{path}: missing; make the dataset again")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError):
        raise DatasetError(
            f"{path}: not a NumPy array, or one of objects; save a plain array with numpy.save"
        ) from None


def _load_labels(path: Path, count: int, low: int, high: int) -> np.ndarray:
    labels = _load_array(path)
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise DatasetError(
            f"{path}: {labels.dtype} {labels.shape} where integers ({count},) are due; make the dataset again"
        )
    labels = labels.astype(np.int64)
    if count and (labels.min() < low or labels.max() >= high):
        raise DatasetError(
            f"{path}: values {labels.min()}..{labels.max()} where {low}..{high - 1} are allowed; correct the labels"
        )
    return labels


def _load_samples(directory: Path, part: str, modality: ModalitySpec, classes: int) -> Samples:
    path = directory / part / f"{modality.name}.npy"
    data = _load_array(path)
    if data.dtype != modality.stored_dtype or data.shape[1:] != modality.sample_shape or len(data) == 0:
        due = "N, " + ", ".join(str(n) for n in modality.sample_shape)
        raise DatasetError(
            f"{path}: {data.dtype} {data.shape} where {modality.stored_dtype} ({due}) is due; make it "
            f"as dataset.yaml says"
        )
    labels_path = directory / part / f"{modality.name}_labels.npy"
    labels = _load_labels(labels_path, len(data), NOTHING, classes)
    lacking = sorted(set(range(classes)) - set(labels.tolist()))
    if lacking:
        raise DatasetError(f"{labels_path}: no sample of class {lacking[0]}; every part needs every class for pairing")
    sources_path = directory / part / f"{modality.name}_sources.npy"
    known = sources_path.is_file() and modality.sources
    sources = (
        _load_labels(sources_path, len(data), -1, len(modality.sources)) if known else np.full(len(data), -1, np.int64)
    )
    clusters_path = directory / part / f"{modality.name}_clusters.npy"
    clusters = np.arange(len(data))
    if clusters_path.is_file():
        anything = np.iinfo(np.int64)
        clusters = _load_labels(clusters_path, len(data), anything.min, anything.max)
    digest = hashlib.sha256(np.ascontiguousarray(labels).data)
    for start in range(0, len(data), 1024):
        digest.update(np.ascontiguousarray(data[start : start + 1024]).data)
    return Samples(data, labels, sources, clusters, digest.hexdigest())
