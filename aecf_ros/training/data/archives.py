"""A folder of the benchmark's NumPy archives as a corpus: each unit is a block of rows of one modality, at the size
that its encoder takes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from aecf_ros.core.bundle import sha256
from aecf_ros.core.labeled_samples import Batch
from aecf_ros.modalities.audio.spec import AudioSpec
from aecf_ros.modalities.base import ModalitySpec
from aecf_ros.modalities.image.decode import resize_image
from aecf_ros.modalities.image.spec import ImageSpec
from aecf_ros.training.config import DataConfig
from aecf_ros.training.data.corpus import Corpus
from aecf_ros.training.data.npy_dataset import DatasetError
from aecf_ros.training.data.npy_units import BLOCK_ROWS, FolderUnit
from aecf_ros.training.data.protocols import PROTOCOLS, RATE_HZ, Made

_VERSION = 1
"""Of how archives are read; raised when the same ones would give other samples."""


@lru_cache(maxsize=4)
def _made(folder: Path, name: str, part: str, digest: str) -> dict[str, Made]:
    return PROTOCOLS[name].make(folder, part)


@dataclass(eq=False)
class ArchiveUnit(FolderUnit):
    """Rows of one modality of a part; ``path`` is the folder of the archives, ``spec`` what its encoder takes."""

    protocol: str = ""
    part: str = ""
    spec: ModalitySpec | None = None

    def load(self) -> np.ndarray:
        """The samples of the part, at the archive's own size."""
        return _made(self.path, self.protocol, self.part, self.array_digest)[self.modality].samples

    def batches(self, size: int) -> Iterator[Batch]:
        """The rows in order, up to ``size`` at a time, at the encoder's size."""
        for batch in super().batches(size):
            yield replace(batch, inputs={self.modality: self._fitted(batch.inputs[self.modality])})

    def _fitted(self, rows: np.ndarray) -> np.ndarray:
        if isinstance(self.spec, ImageSpec):
            return np.stack([resize_image(image, self.spec.height, self.spec.width) for image in rows])
        assert isinstance(self.spec, AudioSpec)  # the archives hold images and sound
        if (self.spec.rate_hz, self.spec.window_s) == (RATE_HZ, 1.0):
            return rows
        import soxr

        count = self.spec.sample_shape[0]
        sound = [soxr.resample(clip, RATE_HZ, self.spec.rate_hz)[-count:] for clip in rows]
        return np.stack([np.pad(clip, (count - len(clip), 0)) for clip in sound])


def archives_in(folder: Path) -> list[str]:
    """Protocols of which a folder holds the archives."""
    return [
        name
        for name, row in PROTOCOLS.items()
        if folder.is_dir() and all((folder / file).is_file() for file in row.archives)
    ]


def archives_corpus(folder: Path, modalities: Sequence[ModalitySpec] | None, config: DataConfig) -> Corpus:
    """Open the archives of a folder.

    Args:
        modalities: what the encoders take, where they are somebody's; ``camera`` and ``audio`` are there.
        config: ``protocol`` decides where the folder holds both data sets.

    Raises:
        DatasetError: they cannot be used, or nothing says which of two is meant.
    """
    folder, archives = folder.resolve(), archives_in(folder)
    if config.protocol is None and len(archives) > 1:
        raise DatasetError(
            f"{folder}: holds the archives of {' and '.join(archives)}; say which with data.protocol={archives[0]}"
        )
    name = config.protocol or archives[0]
    if name not in archives:
        raise DatasetError(
            f"{folder}: has no {' and '.join(PROTOCOLS[name].archives)} for data.protocol={name}; "
            f"name the folder that holds them"
        )
    protocol = PROTOCOLS[name]
    own = (
        ImageSpec(name="camera", kind="image", height=protocol.side, width=protocol.side),
        AudioSpec(name="audio", kind="audio", rate_hz=RATE_HZ, window_s=1.0),
    )
    specs = [next((w for w in modalities or () if w.name == m.name), m) for m in own]
    for wanted in modalities or ():
        if (wanted.name, wanted.kind) not in [(m.name, m.kind) for m in own]:
            raise DatasetError(
                f"{folder}: no modality '{wanted.name}' of kind {wanted.kind}; it has camera (image) "
                f"and audio (audio), name encoders like them"
            )
    digest = hashlib.sha256(
        "".join([str(_VERSION), *(sha256(folder / file) for file in protocol.archives)]).encode()
    ).hexdigest()
    parts = {
        part: [unit for m, spec in enumerate(specs) for unit in _units(folder, name, part, digest, m, specs)]
        for part in protocol.parts
    }
    return Corpus(
        name=name, labels=protocol.labels(folder), modalities=specs, parts=parts, paired=False, sources=protocol.sources
    )


def _units(
    folder: Path, name: str, part: str, digest: str, column: int, specs: Sequence[ModalitySpec]
) -> Iterator[ArchiveUnit]:
    spec = specs[column]
    made = _made(folder, name, part, digest)[spec.name]
    for start in range(0, len(made.labels), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        labels = made.labels[rows].astype(np.int64)
        yield ArchiveUnit(
            name=f"{part}/{spec.name}/{start}",
            recording=f"{part}/{spec.name}",
            digest=hashlib.sha256(
                f"{digest} {part} {spec.model_dump_json()} {start} {len(labels)}".encode()
            ).hexdigest(),
            labels=labels,
            clusters=made.clusters[rows].astype(np.int64),
            modality=spec.name,
            sources=np.full(len(labels), -1, np.int64),
            path=folder,
            start=start,
            column=column,
            columns=len(specs),
            array_digest=digest,
            protocol=name,
            part=part,
            spec=spec,
        )
