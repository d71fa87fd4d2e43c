"""Recover a sqlite3 recording that was cut off: copy its rows, in order, up to the first that cannot be read.

The recording is untrusted. Its schema is never executed: tables are created from the definitions in this module, and an
authorizer denies every statement except reading their known columns.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import takewhile
from pathlib import Path
from typing import Any
from urllib.parse import quote

ROWS = "messages"

COLUMNS = {
    "schema": {"schema_version": "INTEGER PRIMARY KEY", "ros_distro": "TEXT NOT NULL"},
    "metadata": {"id": "INTEGER PRIMARY KEY", "metadata_version": "INTEGER NOT NULL", "metadata": "TEXT NOT NULL"},
    "topics": {
        "id": "INTEGER PRIMARY KEY",
        "name": "TEXT NOT NULL",
        "type": "TEXT NOT NULL",
        "serialization_format": "TEXT NOT NULL",
        "offered_qos_profiles": "TEXT NOT NULL",
        "type_description_hash": "TEXT NOT NULL",
    },
    "message_definitions": {
        "id": "INTEGER PRIMARY KEY",
        "topic_type": "TEXT NOT NULL",
        "encoding": "TEXT NOT NULL",
        "encoded_message_definition": "TEXT NOT NULL",
        "type_description_hash": "TEXT NOT NULL",
    },
    ROWS: {
        "id": "INTEGER PRIMARY KEY",
        "topic_id": "INTEGER NOT NULL",
        "timestamp": "INTEGER NOT NULL",
        "data": "BLOB NOT NULL",
    },
}
"""The tables of rosbag2's sqlite3 storage, schema 1 to 4; older schemas lack some tables and columns."""

_PRAGMAS = ("writable_schema", "table_info")
_SCHEMA_TABLES = ("sqlite_master", "sqlite_schema")


def salvage_sqlite(path: Path, folder: Path) -> Path | None:
    """Write a whole database in ``folder`` with the rows of ``path`` that can be read.

    Returns:
        Its path, for the caller to remove; ``None`` where the table of messages cannot be read at all.
    """
    rescued = folder / path.name
    rescued.unlink(missing_ok=True)
    source = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(source, uri=True)) as broken, closing(sqlite3.connect(rescued)) as whole:
            broken.set_authorizer(_allow_reading)
            broken.execute(
                "PRAGMA writable_schema=ON"
            )  # else a file shorter than its header says is refused altogether
            present = {name for (name,) in broken.execute("SELECT name FROM sqlite_master WHERE type='table'")}
            if ROWS not in present:
                return None
            for table, known in COLUMNS.items():
                if table in present:
                    _copy(broken, whole, table, known)
            whole.execute(f"CREATE INDEX timestamp_idx ON {ROWS} (timestamp ASC)")
            whole.commit()
    except sqlite3.DatabaseError:
        return None
    return rescued


def _copy(broken: sqlite3.Connection, whole: sqlite3.Connection, table: str, known: dict[str, str]) -> None:
    """Create a known table with the known columns that the recording has, and copy its rows."""
    present = {row[1] for row in broken.execute(f'PRAGMA table_info("{table}")')}
    columns = [name for name in known if name in present]
    whole.execute(f'CREATE TABLE "{table}" ({", ".join(f"{name} {known[name]}" for name in columns)})')
    rows = broken.execute(f'SELECT {", ".join(columns)} FROM "{table}" NOT INDEXED ORDER BY rowid')
    places = ", ".join("?" * len(columns))
    whole.executemany(f'INSERT INTO "{table}" VALUES ({places})', _until_broken(rows, may_be_empty=table != ROWS))


def _allow_reading(action: int, first: str | None, second: str | None, database: str | None, source: str | None) -> int:
    """Authorizer: allow SELECT of the known columns, and the two pragmas that this module uses."""
    allowed = action == sqlite3.SQLITE_SELECT or (action == sqlite3.SQLITE_PRAGMA and first in _PRAGMAS)
    if action == sqlite3.SQLITE_READ:
        allowed = first in _SCHEMA_TABLES or (
            source is None and first in COLUMNS and (not second or second == "ROWID" or second in COLUMNS[first])
        )
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _until_broken(rows: sqlite3.Cursor, may_be_empty: bool) -> Iterator[tuple[Any, ...]]:
    """Rows before the first that is unreadable or incomplete: the last page may have lost the end of a row."""
    with suppress(sqlite3.DatabaseError):
        yield from rows if may_be_empty else takewhile(lambda row: None not in row, rows)
