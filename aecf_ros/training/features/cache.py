"""What encoders say of every moment of a corpus, kept in files: one for each unit, modality and corrupted copy.

A file is found by a hash of all it depends on (the encoder, the unit, the corruption), so features are computed once, a run
that was killed goes on with the next file, and a changed encoder costs its own modality alone.
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
from aecf_ros.training.features.corruption import CLEAN, Field, corrupt, corruption_code, draw_field
from aecf_ros.training.features.onnx_encoder import Encoder, as_input
from aecf_ros.training.features.prefetch import ahead
from aecf_ros.training.head.fit_loop import fingerprint

FIELD_SEED = 15
_NO_SAMPLES = np.empty(0)

Select = Callable[[Sequence[Unit]], Sequence[Unit]]
Advance = Callable[[int, int, float], None]
"""Called with (samples done, samples in all, samples encoded each second)."""


@dataclass(frozen=True)
class Shard:
    """What one encoder says of one unit, as recorded or as a corrupted copy; K moments at which the modality is present.

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
    """A unit and what the encoders say of it: for each modality the shard as recorded, then its corrupted copies."""

    unit: Unit
    shards: Mapping[str, Sequence[Shard]]


@dataclass(frozen=True)
class _Job:
    """One file that is to be there.

    ``modality`` is its number, ``size`` how many moments are read at a time, which what a corruption draws depends on,
    ``field`` what befalls each moment of the unit (None as recorded), ``first`` the seed of the first moment's draws.
    """

    encoder: Encoder
    path: Path
    modality: int
    size: int
    field: Field | None = None
    first: int = 0

    def prepare(self, batch: Batch, start: int) -> np.ndarray:
        """Samples of some moments, from moment ``start`` of the unit on, as the encoder is to see them: (K, ...)."""
        samples, present = batch.inputs.get(self.encoder.spec.name, _NO_SAMPLES), batch.present[:, self.modality]
        if self.field is None or len(samples) == 0:
            return samples
        field = self.field.rows(slice(start, start + len(present))).rows(present)
        draws = torch.Generator().manual_seed(self.first + start)
        return corrupt(torch.from_numpy(np.array(as_input(samples))), field, draws).numpy()

    def shard(self, embeddings: Sequence[np.ndarray], present: np.ndarray) -> Shard:
        """The whole file, from the embeddings of each batch and presence bool (N, M) of the whole unit."""
        here = present[:, self.modality]
        width = self.encoder.embedding_dim
        kind, severity = (
            (np.full(here.sum(), CLEAN), np.zeros(here.sum(), np.float32))
            if self.field is None
            else (self.field.kind[here], self.field.severity[here])
        )
        return Shard(np.concatenate([np.empty((0, width), np.float32), *embeddings]), here, kind, severity)


def extract(
    corpus: Corpus,
    encoders: Mapping[str, Encoder],
    copies: Mapping[str, int],
    seed: int,
    cache: Path,
    select: Select = lambda units: units,
    progress: Advance = lambda *_: None,
) -> dict[str, list[UnitFeatures]]:
    """Features of every unit, computed where ``cache`` lacks them; the next batches are read while these are encoded.

    Args:
        encoders: by modality name.
        copies: part -> corrupted copies of each moment, of kinds and severities drawn from ``seed``; parts that are not
            named are left out.
        cache: folder of the files; several processes may share it.
        select: which units of a part to work on, for processes that share the work.
        progress: see :data:`Advance`.

    Raises:
        EncoderError: an encoder fails on the data. What reading a unit raises comes through.
    """
    cache.mkdir(parents=True, exist_ok=True)
    plans = {
        part: [
            (unit, _jobs(corpus, part, unit, first, encoders, count, seed, cache))
            for unit, first in _selected(corpus, part, select)
        ]
        for part, count in copies.items()
    }
    everything = [(unit, job) for plan in plans.values() for unit, jobs in plan for job in jobs]
    found = {job.path: shard for _, job in everything if (shard := _load(job.path)) is not None}
    meter = _Meter(
        sum(len(shard.present) for shard in found.values()), sum(len(unit.labels) for unit, _ in everything), progress
    )
    lacking: dict[int, tuple[Unit, list[_Job]]] = {}
    for unit, job in {job.path: (unit, job) for unit, job in everything if job.path not in found}.values():
        lacking.setdefault(id(unit), (unit, []))[1].append(job)
    for path, shard in _encoded(list(lacking.values()), meter):
        _save(path, shard)
        found[path] = shard
    return {part: [_features(unit, jobs, found) for unit, jobs in plan] for part, plan in plans.items()}


def _features(unit: Unit, jobs: Sequence[_Job], found: Mapping[Path, Shard]) -> UnitFeatures:
    shards: dict[str, list[Shard]] = {}
    for job in jobs:
        shards.setdefault(job.encoder.spec.name, []).append(found[job.path])
    return UnitFeatures(unit, shards)


def _selected(corpus: Corpus, part: str, select: Select) -> Iterator[tuple[Unit, int]]:
    """The selected units of a part, each with the number of moments of its modality before it."""
    units = corpus.parts[part]
    before: dict[str, int] = {}
    first = {}
    for unit in units:
        name = "" if corpus.paired else unit.modality
        first[id(unit)] = before.get(name, 0)
        before[name] = first[id(unit)] + len(unit.labels)
    return ((unit, first[id(unit)]) for unit in select(units))


def _jobs(
    corpus: Corpus,
    part: str,
    unit: Unit,
    first: int,
    encoders: Mapping[str, Encoder],
    copies: int,
    seed: int,
    cache: Path,
) -> list[_Job]:
    """The files of one unit: for each of its modalities as recorded, then each copy.

    What befalls a moment of a recording depends on that recording alone, so that more recordings leave its files as they
    are. Samples that are paired by label get their kinds in equal shares over the whole part.
    """
    jobs = []
    size = min(of.batch for of in encoders.values()) if corpus.paired else encoders[unit.modality].batch
    for m, name in enumerate(corpus.names):
        if not corpus.paired and unit.modality != name:
            continue
        encoder = encoders[name]
        key = (encoder.digest, unit.digest, name, size)
        code = corruption_code(encoder.spec.kind)
        jobs.append(_Job(encoder, cache / f"{name}-{fingerprint(*key)}.safetensors", m, size))
        for copy in range(copies):
            if corpus.paired:
                draws = int(unit.digest[:8], 16)
                field = draw_field(encoder.spec.kind, len(unit.labels), [seed, FIELD_SEED, draws, m, copy])
            else:
                draws, count = first, sum(len(of.labels) for of in corpus.parts[part] if of.modality == name)
                whole = draw_field(encoder.spec.kind, count, [seed, FIELD_SEED, PARTS.index(part), m, copy])
                field = whole.rows(slice(first, first + len(unit.labels)))
            befalls = (field.kind.tobytes(), field.severity.tobytes(), draws, code)
            jobs.append(
                _Job(encoder, cache / f"{name}-{fingerprint(*key, *befalls)}.safetensors", m, size, field, draws)
            )
    return jobs


def _encoded(lacking: Sequence[tuple[Unit, list[_Job]]], meter: _Meter) -> Iterator[tuple[Path, Shard]]:
    """Every lacking file's content, unit by unit, as soon as it is complete."""
    presents: list[np.ndarray] = []
    parts: dict[Path, list[np.ndarray]] = {}
    for unit, jobs, present, prepared in ahead(_read(lacking)):
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
    """Batch by batch: the unit, its files that are lacking, presence of their modality, and for each file what is encoded."""
    for unit, jobs in lacking:
        start = 0
        for batch in unit.batches(jobs[0].size):
            yield unit, jobs, batch.present, [job.prepare(batch, start) for job in jobs]
            start += len(batch.present)


class _Meter:
    """Tells progress, and how many samples are encoded each second."""

    def __init__(self, done: int, total: int, progress: Advance) -> None:
        self._before = self._done = done
        self._total, self._progress, self._since = total, progress, time.monotonic()
        progress(done, total, 0.0)

    def advance(self, samples: int) -> None:
        self._done += samples
        self._progress(self._done, self._total, (self._done - self._before) / max(time.monotonic() - self._since, 1e-9))


def _load(path: Path) -> Shard | None:
    """A file's content; None where there is none, or one that cannot be read."""
    try:
        return Shard(**load_file(path))
    except (OSError, SafetensorError, TypeError):
        return None


def _save(path: Path, shard: Shard) -> None:
    """Write a file in one step, so that a kill leaves all of it or nothing."""
    with replacing(path) as temporary:
        save_file({name: np.ascontiguousarray(array) for name, array in vars(shard).items()}, temporary)
