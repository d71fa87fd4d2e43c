"""Read an MCAP file that was cut off, because its recorder was killed or the disk was full.

Such a file has whole records up to some point and no footer. :func:`salvage` finds that point and returns a path
that opens as
the file up to there followed by a footer. Nothing is copied or written.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

MAGIC = b"\x89MCAP0\r\n"
_FOOTER = b"\x02" + struct.pack("<Q", 20) + bytes(20) + MAGIC  # no summary: the reader scans the records
_END_OF_DATA = (0x02, 0x0F)


class _PatchedFile(io.RawIOBase):
    """The first ``end`` bytes of a file and a footer, for reading."""

    def __init__(self, path: Path, end: int) -> None:
        self._file = path.open("rb")
        self._end, self._at = end, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._end + len(_FOOTER)}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        if self._at < self._end:
            self._file.seek(self._at)
            data = self._file.read(min(len(buffer), self._end - self._at))
        else:
            data = _FOOTER[self._at - self._end :][: len(buffer)]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


class SalvagedPath(type(Path())):  # type: ignore[misc]
    """A path that opens as the readable part of a file, see :func:`salvage`."""

    end = 0

    def open(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102
        return io.BufferedReader(_PatchedFile(Path(self), self.end), 1 << 16)


def salvage(path: Path) -> list[SalvagedPath]:
    """Readable parts of a cut-off MCAP file, the longest first: up to its last whole record, and up to one or two
    records earlier.

    Empty for a file that does not start as an MCAP file.
    """
    size = path.stat().st_size
    ends: list[int] = []
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            return []
        at = len(MAGIC)
        while True:
            file.seek(at)
            head = file.read(9)
            if len(head) < 9 or head[0] in _END_OF_DATA or head[0] == 0:
                break
            at += 9 + struct.unpack("<Q", head[1:])[0]
            if at > size:
                break
            ends.append(at)
    parts = []
    for end in reversed(ends[1:][-3:]):
        salvaged = SalvagedPath(path)
        salvaged.end = end
        parts.append(salvaged)
    return parts
