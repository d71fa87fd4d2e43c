"""What can still be read of a sqlite3 recording that was cut off: its rows are copied, in their order, until one cannot be read."""
from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import takewhile
from pathlib import Path

ROWS = "messages"


def salvage_sqlite(path: Path, folder: Path) -> Path | None:
    """A whole database in ``folder`` with the rows of ``path`` that can be read; ``None`` where not even its tables can.

    It takes as much room as what it saves; whoever gives the folder removes it.
    """
    rescued = folder / path.name
    rescued.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as broken, closing(sqlite3.connect(rescued)) as whole:
            broken.execute("PRAGMA writable_schema=ON")  # else a file shorter than its header says is refused altogether
            tables = broken.execute("SELECT name, sql FROM sqlite_master WHERE type='table' AND name NOT LIKE 'sqlite_%'").fetchall()
            for name, definition in tables:
                whole.execute(definition)
                columns = [row[1] for row in broken.execute(f'PRAGMA table_info("{name}")')]
                rows = broken.execute(f'SELECT {", ".join(columns)} FROM "{name}" NOT INDEXED ORDER BY rowid')
                whole.executemany(f'INSERT INTO "{name}" VALUES ({", ".join("?" * len(columns))})', _until_broken(rows, may_be_empty=name != ROWS))
            if ROWS not in dict(tables):
                return None
            whole.execute(f"CREATE INDEX timestamp_idx ON {ROWS} (timestamp ASC)")
            whole.commit()
    except sqlite3.DatabaseError:
        return None
    return rescued


def _until_broken(rows: sqlite3.Cursor, may_be_empty: bool) -> Iterator[tuple]:
    """Rows before the first that cannot be read, or of which a part is missing: the last page may have lost the end of a row."""
    with suppress(sqlite3.DatabaseError):
        yield from rows if may_be_empty else takewhile(lambda row: None not in row, rows)
