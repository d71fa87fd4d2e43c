"""The rows of a table, CSV or Parquet: text, and lists of numbers."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from aecf_ros.training.data.npy_dataset import DatasetError

SUFFIXES = (".csv", ".parquet")


@dataclass(frozen=True)
class Numbers:
    """A vector that stands in a cell; ``data`` is that of a float32 array."""

    data: bytes

    @property
    def name(self) -> str:
        """What it is called where files have names."""
        return "its numbers"

    @property
    def values(self) -> np.ndarray:
        """float32 ``(dim,)``."""
        return np.frombuffer(self.data, np.float32)


Cell = Any
"""Text, or :class:`Numbers` where a Parquet column is lists of them."""


@dataclass(frozen=True)
class Rows:
    """Column names, and the cells of each row with the number of its line (its row in a Parquet file)."""

    header: list[str]
    lines: list[tuple[int, list[Cell]]]


def numbers_in(text: str) -> Numbers | None:
    """The numbers that a cell of a CSV lists, in brackets or not, with spaces, commas or semicolons between;
    ``None`` if it is no such list.

    >>> numbers_in("[0.5, 2]").values.tolist(), numbers_in("0.5 2").values.tolist(), numbers_in("a.npy"),
    numbers_in("7")
    ([0.5, 2.0], [0.5, 2.0], None, None)
    """
    parts = text.strip("[]() ").replace(",", " ").replace(";", " ").split()
    try:
        return (
            Numbers(np.array([float(part) for part in parts], np.float32).tobytes())
            if len(parts) > 1 or text[:1] == "[" and parts
            else None
        )
    except ValueError:
        return None


def read_rows(path: Path) -> Rows:
    """Read a table; what is missing is an empty cell.

    Raises:
        DatasetError: it is not what its name says, its columns repeat, or a row has too many cells.
    """
    (_, header), *lines = (_csv if path.suffix.lower() == ".csv" else _parquet)(path) or [(0, [])]
    if not lines:
        raise DatasetError(f"{path}: no rows in it; write a header (image,sound,label) and a row for each sample")
    if repeated := [name for i, name in enumerate(header) if name in header[:i]]:
        raise DatasetError(f"{path}: the column '{repeated[0]}' stands there twice; give each its own name")
    for number, row in lines:
        if len(row) > len(header):
            raise DatasetError(
                f"{path}: line {number}: {len(row)} cells under {len(header)} columns; quote cells that hold a comma"
            )
        row += [""] * (len(header) - len(row))
    return Rows(header, lines)


def _csv(path: Path) -> list[tuple[int, list[str]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: byte {error.start} is not UTF-8; save the table as UTF-8") from None
    reader = csv.reader(StringIO(text, newline=""))
    try:
        return [
            (reader.line_num, [cell.strip() for cell in row]) for row in reader if any(cell.strip() for cell in row)
        ]
    except csv.Error as error:
        raise DatasetError(
            f"{path}: line {reader.line_num}: not CSV ({error}); save the table as comma-separated text"
        ) from None


def _parquet(path: Path) -> list[tuple[int, list[Cell]]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise DatasetError(
            f"{path}: to read Parquet, install pyarrow (pip install pyarrow), or save the table as CSV"
        ) from None
    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DatasetError(f"{path}: not Parquet ({str(error).splitlines()[0][:80]}); write the table again") from None
    kinds = pyarrow.types

    def cells(column: Any) -> Sequence[Cell]:
        lists = (kinds.is_list, kinds.is_large_list, kinds.is_fixed_size_list)
        numbers = (kinds.is_floating, kinds.is_integer)
        if any(of_kind(column.type) for of_kind in lists) and any(
            of_kind(column.type.value_type) for of_kind in numbers
        ):
            return [
                Numbers(cell.values.to_numpy(zero_copy_only=False).astype(np.float32).tobytes())
                if cell.is_valid
                else ""
                for cell in column
            ]
        return ["" if cell is None else str(cell).strip() for cell in column.to_pylist()]

    columns = [cells(column) for column in table.columns]
    rows = [list(row) for row in zip(*columns, strict=True)]
    return list(enumerate([table.column_names, *rows]))
