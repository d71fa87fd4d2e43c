"""A table of files as a corpus: CSV or Parquet with a column for each modality, the label and, optionally, split and
recording.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from aecf_ros.core.labeled_samples import Batch
from aecf_ros.modalities.audio.spec import AudioSpec
from aecf_ros.modalities.base import ModalitySpec
from aecf_ros.modalities.messages import DecodeError
from aecf_ros.modalities.registry import MODALITIES
from aecf_ros.training.config import DataConfig
from aecf_ros.training.data.classes import checked_corpus, naming_of
from aecf_ros.training.data.corpus import Corpus
from aecf_ros.training.data.npy_dataset import DatasetError
from aecf_ros.training.data.split import SPLIT_PARTS, split_recordings
from aecf_ros.training.data.table_probe import probe_table
from aecf_ros.training.data.table_rows import SUFFIXES, Numbers, read_rows
from aecf_ros.training.data.table_samples import Sample, find_columns, group_samples, read_samples

BLOCK_ROWS = 512
_RECORDING_ROWS = 16
"""Rows that a recording has on average where recordings are units; smaller ones are read together."""
_PROBED = 3
_MEASURED = 200
"""Sound files whose length is looked up."""
_VERSION = 1
"""Of how files are read; raised when the same file would give another sample."""


def find_table(path: Path) -> Path | None:
    """The table at a path, or the only one in a folder; ``None`` if there is none.

    Raises:
        DatasetError: there are several.
    """
    if path.is_file():
        return path if path.suffix.lower() in SUFFIXES else None
    tables = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    if len(tables) > 1:
        raise DatasetError(
            f"{path}: several tables ({', '.join(p.name for p in tables[:5])}); name one of them with --data"
        )
    return tables[0] if tables else None


def _read(source: Path | Numbers, spec: ModalitySpec) -> np.ndarray:
    """The sample that a file or a list of numbers in a cell holds.

    Raises:
        DecodeError: it cannot be read.
    """
    kind = MODALITIES[spec.kind]
    return kind.read_numbers(source.values, spec) if isinstance(source, Numbers) else kind.read_file(source, spec)


@dataclass(eq=False)
class TableUnit:
    """Some rows of a table; a :class:`aecf_ros.core.labeled_samples.Unit`.

    Attributes:
        files: for each row, in the order of the modalities, a file or ``None``; a vector may stand in the table itself.
        lines: where the rows stand in the table.
        recordings: of each row, where the table says.
    """

    name: str
    recording: str
    digest: str
    labels: np.ndarray
    clusters: np.ndarray
    path: Path
    modalities: Sequence[ModalitySpec]
    files: Sequence[tuple[Path | Numbers | None, ...]]
    lines: Sequence[int]
    recordings: Sequence[str]
    problems: list[str] = field(default_factory=list)
    modality: str = ""
    sources: np.ndarray | None = None
    duration_s: float | None = None

    def only(self, name: str) -> TableUnit:
        """The same rows with one modality, so that only its files are read."""
        m = next(i for i, spec in enumerate(self.modalities) if spec.name == name)
        return replace(self, modalities=self.modalities[m : m + 1], files=[row[m : m + 1] for row in self.files])

    def batches(self, size: int) -> Iterator[Batch]:
        """The rows in order, up to ``size`` at a time. A file that cannot be read is missing, and said in
        ``problems``.
        """
        unread: dict[str, list[str]] = defaultdict(list)
        for start in range(0, len(self.files), size):
            rows = range(start, min(start + size, len(self.files)))
            samples: dict[str, list[np.ndarray]] = {m.name: [] for m in self.modalities}
            present = np.zeros((len(rows), len(self.modalities)), bool)
            for i in rows:
                for m, (spec, file) in enumerate(zip(self.modalities, self.files[i], strict=True)):
                    if file is None:
                        continue
                    try:
                        samples[spec.name].append(_read(file, spec))
                        present[i - start, m] = True
                    except DecodeError as error:
                        unread[spec.name].append(f"line {self.lines[i]}, {file.name}: {_what(error)}")
            inputs = {
                m.name: np.stack(stored)
                if (stored := samples[m.name])
                else np.zeros((0, *m.sample_shape), m.stored_dtype)
                for m in self.modalities
            }
            yield Batch(inputs, present)
        self.problems = [
            f"{self.path}: {len(lines)} files of '{name}' in {self.name} cannot be read, the first in {lines[0]}"
            for name, lines in unread.items()
        ]


def sound_lengths(corpus: Corpus) -> list[str]:
    """How long the sound files of a table last beside the encoder's window, a line for each microphone; nothing for
    other data.
    """
    units = [unit for units in corpus.parts.values() for unit in units if isinstance(unit, TableUnit)]
    lines = []
    for m, spec in enumerate(corpus.modalities):
        files = [row[m] for unit in units for row in unit.files if row[m] is not None]
        if files and isinstance(spec, AudioSpec):
            from aecf_ros.modalities.audio.files import lengths_s

            spread = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, _MEASURED).astype(int))]
            if lasting := lengths_s(spread):
                lines.append(
                    f"files of '{spec.name}' last {min(lasting):.3g} to {max(lasting):.3g} s, "
                    f"{float(np.median(lasting)):.3g} s in the median; "
                    f"of a longer one the loudest {spec.window_s:.3g} s are taken"
                )
    return lines


def table_corpus(path: Path, modalities: Sequence[ModalitySpec] | None, config: DataConfig) -> Corpus:
    """Open a table.

    Columns are called like the modalities (``image``, and ``sound`` or ``audio``, do for the only one of a kind),
    ``label``, and, if they are
    there, ``split`` (a part for each row) and ``recording`` (rows of one recording go to one part); ``data.columns``
    names others. Paths count
    from the table's folder. An empty cell is a missing modality, an empty label an unlabeled row, which is left
    out. Where no ``modalities``
    are given, columns that hold pictures, sound or vectors are taken, at their own sizes.

    Raises:
        DatasetError: it cannot be used; one line that says what was found and what to do.
    """
    rows = read_rows(path)
    modalities = probe_table(path, rows, config) if modalities is None else modalities
    columns = find_columns(path, rows.header, modalities, config)
    samples, warnings = read_samples(path, rows, columns, modalities, config)
    naming = naming_of(str(path), (s.label for s in samples), config)
    for m, spec in enumerate(modalities):
        _probe(path, [s for s in samples if s.files[m] is not None][:_PROBED], m, spec)
    group = group_samples(path, samples, config.nothing)
    counts: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(len(naming.labels) + 1, np.int64))
    given = {}
    for s, g in zip(samples, group, strict=True):
        counts[str(g)] += naming.counts(np.array([naming.index[s.label]]))
        if s.part:
            given[str(g)] = s.part
    parts = split_recordings(counts, config, given)
    members = {
        part: [(s, g) for s, g in zip(samples, group, strict=True) if parts[str(g)] == part] for part in SPLIT_PARTS
    }
    units = {part: _units(path, part, rows_of_part, modalities, naming.index) for part, rows_of_part in members.items()}
    return checked_corpus(path, naming, modalities, units, [f"{path.name}: {len(samples)} rows"], warnings)


def _what(error: DecodeError) -> str:
    """What was found; what to do about it is said for a stream, and would mislead for a file."""
    return str(error).split(";")[0]


def _probe(path: Path, samples: Sequence[Sample], m: int, spec: ModalitySpec) -> None:
    """Refuse a column whose first files cannot be read."""
    first = ""
    for sample in samples:
        source = sample.files[m]
        assert source is not None  # the caller passes rows that have the modality
        try:
            _read(source, spec)
            return
        except DecodeError as error:
            first = first or f"line {sample.line}: {source.name}: {_what(error)}"
        except ModuleNotFoundError as error:
            raise DatasetError(
                f"to read files of '{spec.name}', install {error.name} (pip install {error.name})"
            ) from None
    raise DatasetError(f"{path}: none of the first files of '{spec.name}' can be read; {first}")


def _units(
    path: Path,
    part: str,
    members: Sequence[tuple[Sample, int]],
    modalities: Sequence[ModalitySpec],
    classes: Mapping[str, int],
) -> list[TableUnit]:
    recordings: dict[str, list[tuple[Sample, int]]] = defaultdict(list)
    for s, g in members:
        recordings[s.recording].append((s, g))
    if len(members) < _RECORDING_ROWS * len(recordings):
        recordings = {"": list(members)}
    units = []
    for recording, block_rows in recordings.items():
        for start in range(0, len(block_rows), BLOCK_ROWS):
            block = block_rows[start : start + BLOCK_ROWS]
            name = f"{recording or part}/{start}" if len(block_rows) > BLOCK_ROWS else recording or part
            files = [s.files for s, _ in block]
            units.append(
                TableUnit(
                    name,
                    recording or f"{path.name} ({part})",
                    _digest(path.parent, modalities, files),
                    np.array([classes[s.label] for s, _ in block], np.int64),
                    np.array([g for _, g in block], np.int64),
                    path,
                    tuple(modalities),
                    files,
                    [s.line for s, _ in block],
                    [s.recording for s, _ in block],
                )
            )
    return units


def _digest(
    folder: Path, modalities: Sequence[ModalitySpec], files: Sequence[tuple[Path | Numbers | None, ...]]
) -> str:
    """Of each file its size and time of change: to read a hundred thousand of them anew at each start would cost
    what the cache saves.
    """
    digest = hashlib.sha256(f"{_VERSION} {[m.model_dump(mode='json') for m in modalities]}".encode())
    for row in files:
        for file in row:
            if isinstance(file, Numbers):
                digest.update(file.data)
                continue
            state = file.stat() if file is not None else None
            name = file.relative_to(folder) if file is not None and file.is_relative_to(folder) else file
            digest.update(f"{name} {state.st_size} {state.st_mtime_ns}\n".encode() if state is not None else b"\n")
    return digest.hexdigest()
