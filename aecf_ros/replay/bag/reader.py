"""Read rosbag2 recordings (MCAP or sqlite3, a directory or one file) by rosbags, without ROS."""

from __future__ import annotations

import sqlite3
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.interfaces import Connection
from rosbags.rosbag2 import ReaderError
from rosbags.typesys.store import Typestore

from aecf_ros.core.bundle import Manifest
from aecf_ros.core.errors import first_line
from aecf_ros.core.types import NANOSECONDS
from aecf_ros.replay.bag.errors import BagError, UnreadableBag
from aecf_ros.replay.bag.mcap_recovery import salvage
from aecf_ros.replay.bag.message_types import types_without_definitions
from aecf_ros.replay.bag.sqlite_recovery import salvage_sqlite
from aecf_ros.replay.bag.topics import DEFAULT_READING, Reading, Topics, choose_topics


@dataclass(frozen=True, slots=True)
class RecordedMessage:
    """One message of a recording, still serialized (CDR)."""

    topic: str
    type: str
    log_ns: int
    data: bytes


class Bag:
    """An open recording. Make it with :func:`open_bag`.

    Attributes:
        problems: a line for each part that cannot be read. It may grow while :meth:`messages` is iterated.
    """

    def __init__(self, path: Path, reader: AnyReader, problems: Sequence[str] = ()) -> None:
        self.path = path
        self.problems = list(problems)
        self._reader = reader
        self.types: dict[str, str] = {c.topic: c.msgtype for c in reader.connections}
        self.start_ns: int = reader.start_time
        self.end_ns: int = reader.end_time

    @property
    def duration_s(self) -> float:
        """Seconds from the first message to the last."""
        return (self.end_ns - self.start_ns) / NANOSECONDS

    def seconds(self, recorded: RecordedMessage) -> float:
        """Time of a message in seconds from the start of the recording."""
        return (recorded.log_ns - self.start_ns) / NANOSECONDS

    def messages(self, topics: list[str] | None = None) -> Iterator[RecordedMessage]:
        """Messages in log order, of the named topics or of all."""
        connections = [c for c in self._reader.connections if topics is None or c.topic in topics]
        try:
            for connection, log_ns, data in self._reader.messages(connections):
                yield RecordedMessage(connection.topic, connection.msgtype, log_ns, data)
        except (ReaderError, sqlite3.DatabaseError, RuntimeError, EOFError, zlib.error, OverflowError) as error:
            line = f"{self.path}: breaks off ({first_line(error, None)}); what follows is not read"
            if line not in self.problems:
                self.problems.append(line)

    @property
    def connections(self) -> Sequence[Connection]:
        """The connections (topics) of the recording, as rosbags reads them."""
        return list(self._reader.connections)

    @property
    def typestore(self) -> Typestore:
        """Message types of the recording."""
        return self._reader.typestore

    def deserialize(self, recorded: RecordedMessage) -> Any:
        """Deserialize a message; its attributes are the fields of its definition.

        Raises:
            BagError: the bytes do not match the type.
        """
        try:
            return self._reader.deserialize(recorded.data, recorded.type)
        except AnyReaderError as error:
            raise BagError(
                f"{self.path}: {recorded.topic}: a message is not a {recorded.type} ({first_line(error, None)}); "
                "check it with `ros2 bag info`"
            ) from None

    def label_text(self, recorded: RecordedMessage, labels: Sequence[str] = ()) -> str:
        """Label in a message of a label topic, empty for none.

        A number that is not itself one of ``labels`` is an index into them; a negative number is no label.

        Raises:
            BagError: the bytes do not match the type.
        """
        data = self.deserialize(recorded).data
        if isinstance(data, str):
            return data.strip()
        name = str(data) if data >= 0 else ""
        return name if name in labels or not 0 <= data < len(labels) else labels[data]

    def choose_topics(self, manifest: Manifest, reading: Reading = DEFAULT_READING) -> Topics:
        """Topics for the modalities of a manifest, as :func:`aecf_ros.replay.bag.topics.choose_topics` finds them.

        Raises:
            BagError: as there.
        """
        return choose_topics(self.path, self.types, manifest.modalities, reading)


_CANNOT_READ = (
    AnyReaderError,
    ReaderError,
    OSError,
    struct.error,
    TypeError,
    ValueError,
    EOFError,
    RuntimeError,
    OverflowError,
    MemoryError,
)
"""Errors of rosbags for a cut-off or malformed file; its readers trust the lengths in the file."""


def _open(paths: Sequence[Path]) -> tuple[AnyReader, ExitStack]:
    """Open a recording: its reader, and the stack that closes it."""
    with ExitStack() as stack:
        reader = stack.enter_context(AnyReader(paths, default_typestore=types_without_definitions(dialect=0)))
        if any(c.msgtype == "audio_common_msgs/msg/AudioStamped" for c in reader.connections):
            # Both origins of audio_common_msgs use the same type names; only one of them has this type.
            stack.pop_all().close()
            reader = stack.enter_context(AnyReader(paths, default_typestore=types_without_definitions(dialect=1)))
        return reader, stack.pop_all()
    raise AssertionError("unreachable")


def _candidates(file: Path, folder: Path) -> Iterator[Path]:
    """Paths to try for a file: itself, then its readable part. Copies are made in ``folder``."""
    yield file
    if file.suffix == ".mcap":
        yield from salvage(file)
    elif (rescued := salvage_sqlite(file, folder)) is not None:
        yield rescued


def _open_readable_files(path: Path, folder: Path) -> tuple[AnyReader, ExitStack, list[str]] | None:
    """Open the readable files of a recording: reader, closing stack, problems; ``None`` if no file is readable."""
    files = sorted(p for p in path.iterdir() if p.suffix in (".mcap", ".db3")) if path.is_dir() else [path]
    readable: list[Path] = []
    problems = (
        []
        if not path.is_dir() or (path / "metadata.yaml").exists()
        else [f"{path}: no metadata.yaml; its files are read one by one"]
    )
    for file in files:
        for candidate in _candidates(file, folder):
            try:
                reader, stack = _open([candidate])
            except _CANNOT_READ:
                continue
            with stack:
                whole = candidate is file
                if not whole and not reader.message_count:
                    continue
                if not whole:
                    seconds = (reader.end_time - reader.start_time) / NANOSECONDS
                    problems.append(
                        f"{file}: is cut off: {reader.message_count} messages are whole, which hold {seconds:.1f} s"
                    )
            readable.append(candidate)
            break
        else:
            problems.append(f"{file}: cannot be read at all")
    return (*_open(readable), problems) if readable else None


def _unread_logs(path: Path) -> list[str]:
    logs = sorted(path.glob("*.db3-wal")) if path.is_dir() else [path.with_name(path.name + "-wal")]
    return [
        f"{log}: the recorder was killed before it moved this log into the recording, and it is not read; "
        f"run `sqlite3 {log.name.removesuffix('-wal')} .schema` there once, which moves it"
        for log in logs
        if log.is_file() and log.stat().st_size
    ]


@contextmanager
def open_bag(path: Path | str) -> Iterator[Bag]:
    """Open a recording for reading. Of a cut-off recording the readable part is opened.

    Raises:
        BagError: there is no such recording.
        UnreadableBag: nothing of it can be read.
    """
    path = Path(path)
    if not path.exists():
        raise BagError(f"{path}: no such recording; name a rosbag2 directory, an .mcap or a .db3 file")
    problems: list[str] = []
    with ExitStack() as outer:
        try:
            reader, stack = _open([path])
        except _CANNOT_READ as error:
            opened = _open_readable_files(path, Path(outer.enter_context(TemporaryDirectory(prefix="aecf_bag_"))))
            if opened is None:
                raise UnreadableBag(
                    f"{path}: cannot be read as rosbag2 ({first_line(error, None)}); check it with `ros2 bag info`"
                ) from None
            reader, stack, problems = opened
        outer.enter_context(stack)
        yield Bag(path, reader, problems + _unread_logs(path))
