"""The samples of a table: which files, which label, which part; and which of them must not be parted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from aecf_ros.modalities.base import ModalitySpec
from aecf_ros.modalities.registry import MODALITIES
from aecf_ros.training.config import DataConfig
from aecf_ros.training.data.duplicates import find_copies
from aecf_ros.training.data.npy_dataset import DatasetError
from aecf_ros.training.data.split import given_parts, part_of
from aecf_ros.training.data.table_rows import Cell, Numbers, Rows, numbers_in

_MISSING_SHARE = 0.1
"""Share of a column's files that may not be there; more is a wrong folder."""


@dataclass(frozen=True)
class Sample:
    """A row: its line in the table, its files in the order of the modalities (``None`` for a missing one; a vector
    may stand in the table
    itself), ``part`` where the table says."""

    line: int
    label: str
    files: tuple[Path | Numbers | None, ...]
    recording: str
    part: str


def find_columns(
    path: Path, header: Sequence[str], modalities: Sequence[ModalitySpec], config: DataConfig
) -> dict[str, int]:
    """Where ``label``, ``split``, ``recording`` and each modality stand; the second and third only where there are
    such.

    Raises:
        DatasetError: there is none for the labels or for a modality.
    """
    known = ["label", "split", "recording", *(m.name for m in modalities)]
    for name in config.columns:
        if name not in known:
            raise DatasetError(
                f"data.columns.{name}: nothing is called so; name the column of one of {', '.join(known)}"
            )
    places = {}
    for name in known:
        kind = next((m.kind for m in modalities if m.name == name), "")
        alone = kind and sum(m.kind == kind for m in modalities) == 1
        usual = MODALITIES[kind].column_names if alone else ()
        wanted = (config.columns[name],) if name in config.columns else (name, *usual)
        at = next((header.index(column) for column in wanted if column in header), None)
        if at is not None:
            places[name] = at
        elif name not in ("split", "recording") or name in config.columns:
            near = get_close_matches(wanted[0], header, 1)
            hint = f"did you mean {near[0]}? Name it" if near else f"it has {', '.join(header)}; name one"
            raise DatasetError(
                f"{path}: no column '{wanted[0]}' for {f'the modality {name!r}' if kind else f'the {name}'}: "
                f"{hint} with data.columns.{name}=..."
            )
    return places


def read_samples(
    path: Path, rows: Rows, columns: Mapping[str, int], modalities: Sequence[ModalitySpec], config: DataConfig
) -> tuple[list[Sample], list[str]]:
    """The labeled samples of a table and, a line each, what was left out.

    Raises:
        DatasetError: nothing is labeled, a split is no part, or many of the files are not there.
    """
    samples, unlabeled, empty = [], 0, 0
    for line, cells in rows.lines:
        where = f"{path}: line {line}"
        files = tuple(_file(path.parent, cells[columns[m.name]], m, where) for m in modalities)
        part = part_of(cells[columns["split"]], where) if "split" in columns else ""
        recording = cells[columns["recording"]] if "recording" in columns else ""
        unlabeled += not cells[columns["label"]]
        empty += not any(files)
        if cells[columns["label"]] and any(files):
            samples.append(Sample(line, cells[columns["label"]], files, recording, part))
    if not samples:
        raise DatasetError(f"{path}: no row has a label and a file; fill in the columns")
    warnings = [
        f"{path}: {count} rows have no {what} and are left out"
        for count, what in ((unlabeled, "label"), (empty, "file"))
        if count
    ]
    for m, modality in enumerate(modalities):
        samples, lines = _without_missing_files(path, samples, m, modality.name)
        warnings += lines
    samples = [s for s in samples if any(s.files)]
    if config.parts:
        given = given_parts({s.recording for s in samples if s.recording}, config)
        samples = [replace(s, part=given.get(s.recording, s.part)) for s in samples]
    return samples, warnings


def _file(folder: Path, cell: Cell, modality: ModalitySpec, where: str) -> Path | Numbers | None:
    if not cell:
        return None
    kind = MODALITIES[modality.kind]
    if not kind.takes_numbers:
        if isinstance(cell, Numbers):
            raise DatasetError(
                f"{where}: a list of numbers for '{modality.name}', which is {kind.name}; "
                f"name a file there, or say encoders.{modality.name}.vector=..."
            )
        return folder / cell
    if isinstance(cell, Numbers):
        return cell
    if cell.lower().endswith(kind.file_suffixes):
        return folder / cell
    numbers = numbers_in(cell)
    if numbers is None:
        raise DatasetError(
            f"{where}: '{cell[:40]}' for '{modality.name}' is neither a {' or '.join(kind.file_suffixes)} file "
            "nor a list of numbers; write one of them"
        )
    return numbers


def _without_missing_files(path: Path, samples: list[Sample], m: int, name: str) -> tuple[list[Sample], list[str]]:
    named = [s for s in samples if s.files[m] is not None]
    if not named:
        raise DatasetError(f"{path}: the column of '{name}' is empty; fill it in, or leave that encoder out")
    there = {s.files[m]: not isinstance(file := s.files[m], Path) or file.is_file() for s in named}
    lost = [s for s in named if not there[s.files[m]]]
    if not lost:
        return samples, []
    said = (
        f"{len(lost)} of {len(named)} files of '{name}' are not there, "
        f"the first in line {lost[0].line}: {_short(path, lost[0].files[m])}"
    )
    if len(lost) > _MISSING_SHARE * len(named):
        raise DatasetError(f"{path}: {said}; paths count from the table's folder")
    gone = {id(s) for s in lost}
    return (
        [replace(s, files=(*s.files[:m], None, *s.files[m + 1 :])) if id(s) in gone else s for s in samples],
        [f"{path}: {said}; it is missing in those rows"],
    )


def _short(path: Path, file: Path | Numbers | None) -> str:
    return (
        str(file.relative_to(path.parent)) if isinstance(file, Path) and file.is_relative_to(path.parent) else str(file)
    )


def _tying(s: Sample) -> list[Path]:
    """Files of a sample that no other recording can hold; a short text or a resting sensor gives the same vector
    again.
    """
    return [file for file in s.files if isinstance(file, Path) and file.suffix.lower() != ".npy"]


def group_samples(path: Path, samples: Sequence[Sample], nothing: Sequence[str]) -> list[int]:
    """A number for each sample, shared by those that must not be parted: of one recording, or with the same file.

    A file of a sample that shows nothing may be anywhere: a blank picture or silence gives nothing away.

    Raises:
        DatasetError: the table or ``config.parts`` parts some of them, which is leakage.
    """
    first = find_copies(file for s in samples if s.label not in nothing for file in _tying(s))
    sharing: dict[object, list[int]] = defaultdict(list)
    for i, s in enumerate(samples):
        if s.recording:
            sharing[s.recording].append(i)
        if s.label not in nothing:
            for file in _tying(s):
                sharing[first[file]].append(i)
    group = list(range(len(samples)))

    def root(i: int) -> int:
        while group[i] != i:
            group[i] = group[group[i]]
            i = group[i]
        return i

    for shared, members in sharing.items():
        decided = {samples[i].part: i for i in reversed(members) if samples[i].part}
        if len(decided) > 1:
            (_, one), (_, other) = sorted(decided.items(), key=lambda item: item[1])[:2]
            _refuse(path, samples[one], samples[other], shared, first)
        for i in members[1:]:
            a, b = root(members[0]), root(i)
            group[max(a, b)] = min(a, b)
    return [root(i) for i in range(len(samples))]


def _refuse(path: Path, one: Sample, other: Sample, shared: object, first: Mapping[Path, Path]) -> None:
    if isinstance(shared, str):
        what = f"are of the recording '{shared}'"
    else:
        names = [_short(path, next(f for f in _tying(s) if first[f] == shared)) for s in (one, other)]
        what = f"both have {names[0]}" if names[0] == names[1] else f"hold the same ({names[0]} and {names[1]})"
    raise DatasetError(
        f"{path}: lines {one.line} ({one.part}) and {other.line} ({other.part}) {what}: in two parts that is leakage, "
        "a model would be tested on what it has seen; put them into one part"
    )
