"""Modalities that a table suggests by its columns, where no encoder gives their sizes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aecf_ros.modalities.base import Modality, ModalitySpec
from aecf_ros.modalities.registry import MODALITIES
from aecf_ros.training.config import DataConfig
from aecf_ros.training.data.npy_dataset import DatasetError
from aecf_ros.training.data.table_rows import Cell, Numbers, Rows, numbers_in

_TRIED = 20
"""Cells of a column that are looked at."""


def probe_table(path: Path, rows: Rows, config: DataConfig) -> list[ModalitySpec]:
    """A modality for each column that names files of a kind of sensor or lists numbers, sized as the first readable
    one.

    Raises:
        DatasetError: there is no such column, or none of its files can be read.
    """
    names = {column: name for name, column in config.columns.items()}
    others = {config.columns.get(name, name) for name in ("label", "split", "recording")}
    specs: list[ModalitySpec] = []
    for at, column in enumerate(rows.header):
        cells = [cells[at] for _, cells in rows.lines if cells[at]][:_TRIED]
        kind = next((kind for kind in MODALITIES.values() if column not in others and _holds(cells, kind)), None)
        if kind is not None:
            name = re.sub(r"[^a-z0-9_]", "_", names.get(column, column).lower()).lstrip("_0123456789") or "column"
            specs.append(kind.spec(name=name, kind=kind.name, **_sizes(path, name, cells, kind)))
    if not specs:
        suffixes = ", ".join(suffix for kind in MODALITIES.values() for suffix in kind.file_suffixes)
        raise DatasetError(
            f"{path}: no column names files of a sensor ({suffixes}) or lists numbers; it has {', '.join(rows.header)}"
        )
    return specs


def _numbers(cell: Cell) -> Numbers | None:
    return cell if isinstance(cell, Numbers) else numbers_in(cell)


def _holds(cells: Sequence[Cell], kind: Modality) -> bool:
    """Whether the cells of a column are of a kind: files by their suffix, or lists of numbers."""
    if kind.takes_numbers and cells and _numbers(cells[0]) is not None:
        return True
    return any(isinstance(cell, str) and Path(cell).suffix.lower() in kind.file_suffixes for cell in cells)


def _sizes(path: Path, name: str, cells: Sequence[Cell], kind: Modality) -> dict[str, Any]:
    for cell in cells:
        if kind.takes_numbers and (numbers := _numbers(cell)) is not None:
            return {kind.spec.SIZES[0]: len(numbers.values)}
        if isinstance(cell, str) and (sizes := kind.probe_file(path.parent / cell)) is not None:
            return sizes
    raise DatasetError(
        f"{path}: none of the first files of '{name}' can be read as {kind.name}; paths count from the table's folder"
    )
