"""Features: the embeddings of every moment of a corpus, kept in one file for each unit, modality and corrupted copy.

A file is named by a hash of all that it depends on (the encoder, the unit, the corruption). So features are computed
once, a run that was killed continues with the next file, and a changed encoder costs the files of its modality alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from aecf_ros.core.files import replacing
from aecf_ros.core.labeled_samples import Batch, Unit
from aecf_ros.training.data.corpus import Corpus
from aecf_ros.training.data.npy_dataset import PARTS
from aecf_ros.training.features.corruption import CLEAN, Corruptions, corrupt, corruption_code, draw_corruptions
from aecf_ros.training.features.onnx_encoder import Encoder, as_input
from aecf_ros.training.features.prefetch import prefetch
from aecf_ros.training.head.fit_loop import fingerprint

CORRUPTION_SEED = 15
_NO_SAMPLES = np.empty(0)

Select = Callable[[Sequence[Unit]], Sequence[Unit]]
Advance = Callable[[int, int, float], None]
"""Called with (samples done, samples in all, samples encoded each second)."""


@dataclass(frozen=True)
class Shard:
    """Embeddings of one unit by one encoder, as recorded or corrupted; K moments at which the modality is present.

    Attributes:
        embeddings: float32 ``(K, D)``.
        present: bool ``(N,)``, at which of the unit's moments.
        kind: int64 ``(K,)``, kind of corruption, :data:`aecf_ros.training.features.corruption.CLEAN` as recorded.
        severity: float32 ``(K,)``, 0 as recorded.
    """

    embeddings: np.ndarray
    present: np.ndarray
    kind: np.ndarray
    severity: np.ndarray


@dataclass(frozen=True)
class UnitFeatures:
    """The features of a unit: for each modality the shard as recorded, then its corrupted copies."""

    unit: Unit
    shards: Mapping[str, Sequence[Shard]]


@dataclass(frozen=True)
class Extraction:
    """The features to compute, and where they are kept.

    Attributes:
        encoders: by modality name.
        copies: part -> corrupted copies of each moment; other parts are left out.
        seed: kinds and severities of the corruptions are drawn from it.
        cache: folder of the files; several processes may share it.
    """

    corpus: Corpus
    encoders: Mapping[str, Encoder]
    copies: Mapping[str, int]
    seed: int
    cache: Path


@dataclass(frozen=True)
class _Job:
    """One file of features.

    Attributes:
        modality: its number.
        size: moments that are read at a time; what a corruption draws depends on it.
        corruptions: of each moment of the unit; ``None`` as recorded.
        first: the seed of the first moment's draws.
    """

    encoder: Encoder
    path: Path
    modality: int
    size: int
    corruptions: Corruptions | None = None
    first: int = 0

    def prepare(self, batch: Batch, start: int) -> np.ndarray:
        """Samples of a batch, from moment ``start`` of the unit on, as the encoder takes them: (K, ...)."""
        samples, present = batch.inputs.get(self.encoder.spec.name, _NO_SAMPLES), batch.present[:, self.modality]
        if self.corruptions is None or len(samples) == 0:
            return samples
        corruptions = self.corruptions.rows(slice(start, start + len(present))).rows(present)
        draws = torch.Generator().manual_seed(self.first + start)
        return corrupt(torch.from_numpy(np.array(as_input(samples))), corruptions, draws).numpy()

    def shard(self, embeddings: Sequence[np.ndarray], present: np.ndarray) -> Shard:
        """The whole file, from the embeddings of each batch and presence bool (N, M) of the whole unit."""
        here = present[:, self.modality]
        width = self.encoder.embedding_dim
        kind, severity = (
            (np.full(here.sum(), CLEAN), np.zeros(here.sum(), np.float32))
            if self.corruptions is None
            else (self.corruptions.kind[here], self.corruptions.severity[here])
        )
        return Shard(np.concatenate([np.empty((0, width), np.float32), *embeddings]), here, kind, severity)


def extract(
    extraction: Extraction, select: Select = lambda units: units, progress: Advance = lambda *_: None
) -> dict[str, list[UnitFeatures]]:
    """Features of every unit by part, computed where the cache lacks them; batches are prefetched.

    Args:
        select: chooses the units of a part to work on, for processes that share the work.
        progress: see :data:`Advance`.

    Raises:
        EncoderError: an encoder fails on the data. Errors from reading a unit are passed on.
    """
    extraction.cache.mkdir(parents=True, exist_ok=True)
    plans = {
        part: [
            (unit, _jobs(extraction, part, unit, first)) for unit, first in _selected(extraction.corpus, part, select)
        ]
        for part in extraction.copies
    }
    everything = [(unit, job) for plan in plans.values() for unit, jobs in plan for job in jobs]
    shards = {job.path: shard for _, job in everything if (shard := _load(job.path)) is not None}
    meter = _Meter(
        sum(len(shard.present) for shard in shards.values()), sum(len(unit.labels) for unit, _ in everything), progress
    )
    lacking: dict[int, tuple[Unit, list[_Job]]] = {}
    for unit, job in {job.path: (unit, job) for unit, job in everything if job.path not in shards}.values():
        lacking.setdefault(id(unit), (unit, []))[1].append(job)
    for path, shard in _encoded(list(lacking.values()), meter):
        _save(path, shard)
        shards[path] = shard
    return {part: [_features(unit, jobs, shards) for unit, jobs in plan] for part, plan in plans.items()}


def _features(unit: Unit, jobs: Sequence[_Job], shards: Mapping[Path, Shard]) -> UnitFeatures:
    by_modality: dict[str, list[Shard]] = {}
    for job in jobs:
        by_modality.setdefault(job.encoder.spec.name, []).append(shards[job.path])
    return UnitFeatures(unit, by_modality)


def _selected(corpus: Corpus, part: str, select: Select) -> Iterator[tuple[Unit, int]]:
    """The selected units of a part, each with the number of moments of its modality before it."""
    units = corpus.parts[part]
    before: dict[str, int] = {}
    first = {}
    for unit in units:
        first[id(unit)] = before.get(unit.modality, 0)
        before[unit.modality] = first[id(unit)] + len(unit.labels)
    return ((unit, first[id(unit)]) for unit in select(units))


def _jobs(extraction: Extraction, part: str, unit: Unit, first: int) -> list[_Job]:
    """The files of one unit: for each of its modalities as recorded, then each copy.

    The corruptions of a recording depend on that recording alone, so that more recordings leave its files as they are.
    Samples that are paired by label get their kinds in equal shares over the whole part.
    """
    corpus, encoders, cache = extraction.corpus, extraction.encoders, extraction.cache
    jobs = []
    size = min(encoder.batch for encoder in encoders.values()) if corpus.paired else encoders[unit.modality].batch
    for m, name in enumerate(corpus.names):
        if not corpus.paired and unit.modality != name:
            continue
        encoder = encoders[name]
        kind, code = encoder.spec.kind, corruption_code(encoder.spec.kind)
        key = (encoder.digest, unit.digest, name, size)
        jobs.append(_Job(encoder, cache / f"{name}-{fingerprint(*key)}.safetensors", m, size))
        for copy in range(extraction.copies[part]):
            if corpus.paired:
                draws = int(unit.digest[:8], 16)
                seed = [extraction.seed, CORRUPTION_SEED, draws, m, copy]
                corruptions = draw_corruptions(kind, len(unit.labels), seed)
            else:
                draws, count = first, sum(len(other.labels) for other in corpus.parts[part] if other.modality == name)
                seed = [extraction.seed, CORRUPTION_SEED, PARTS.index(part), m, copy]
                corruptions = draw_corruptions(kind, count, seed).rows(slice(first, first + len(unit.labels)))
            copy_key = fingerprint(*key, corruptions.kind.tobytes(), corruptions.severity.tobytes(), draws, code)
            jobs.append(_Job(encoder, cache / f"{name}-{copy_key}.safetensors", m, size, corruptions, draws))
    return jobs


def _encoded(lacking: Sequence[tuple[Unit, list[_Job]]], meter: _Meter) -> Iterator[tuple[Path, Shard]]:
    """The content of every file that the cache lacks, unit by unit, as soon as it is complete."""
    presents: list[np.ndarray] = []
    parts: dict[Path, list[np.ndarray]] = {}
    for unit, jobs, present, prepared in prefetch(_read(lacking)):
        presents.append(present)
        for job, samples in zip(jobs, prepared, strict=True):
            if len(samples):
                parts.setdefault(job.path, []).append(job.encoder.encode(samples))
            meter.advance(len(present))
        if sum(map(len, presents)) < len(unit.labels):
            continue
        present = np.concatenate(presents)
        for job in jobs:
            yield job.path, job.shard(parts.get(job.path, []), present)
        presents, parts = [], {}


def _read(
    lacking: Sequence[tuple[Unit, list[_Job]]],
) -> Iterator[tuple[Unit, list[_Job], np.ndarray, list[np.ndarray]]]:
    """For each batch: the unit, its files that the cache lacks, presence bool (N, M), and for each file its samples."""
    for unit, jobs in lacking:
        start = 0
        for batch in unit.batches(jobs[0].size):
            yield unit, jobs, batch.present, [job.prepare(batch, start) for job in jobs]
            start += len(batch.present)


class _Meter:
    """Reports progress, and how many samples are encoded each second."""

    def __init__(self, done: int, total: int, progress: Advance) -> None:
        self._before = self._done = done
        self._total, self._progress, self._since = total, progress, time.monotonic()
        progress(done, total, 0.0)

    def advance(self, samples: int) -> None:
        self._done += samples
        self._progress(self._done, self._total, (self._done - self._before) / max(time.monotonic() - self._since, 1e-9))


def _load(path: Path) -> Shard | None:
    """The content of a file; ``None`` where there is none, or one that cannot be read."""
    try:
        return Shard(**load_file(path))
    except (OSError, SafetensorError, TypeError):
        return None


def _save(path: Path, shard: Shard) -> None:
    with replacing(path) as temporary:
        save_file({name: np.ascontiguousarray(array) for name, array in vars(shard).items()}, temporary)
