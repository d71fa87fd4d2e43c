"""Read rosbag2 recordings (MCAP or sqlite3, a directory or one file) by rosbags, without ROS."""
from __future__ import annotations

import sqlite3
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.interfaces import Connection
from rosbags.rosbag2 import ReaderError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from aecf_ros.core.bundle import Manifest
from aecf_ros.core.decode import SAMPLE_BYTES
from aecf_ros.core.errors import first_line
from aecf_ros.core.types import NANOSECONDS
from aecf_ros.replay.salvage import salvage
from aecf_ros.replay.salvage_sqlite import salvage_sqlite

IMAGE_TYPES = ("sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image")
AUDIO_TYPES = ("audio_common_msgs/msg/AudioDataStamped", "audio_common_msgs/msg/AudioData", "audio_common_msgs/msg/AudioStamped",
               "foxglove_msgs/msg/RawAudio")
VECTOR_TYPES = ("aecf_msgs/msg/EmbeddingStamped",)
STREAM_TYPES = {"image": IMAGE_TYPES, "audio": AUDIO_TYPES, "vector": VECTOR_TYPES}
"""Kind of modality -> message types that carry it."""
UNDESCRIBED_TYPES = AUDIO_TYPES[:2]
"""Those whose messages do not say how to read them."""
NO_TOPIC = "none"
"""In place of a topic: this modality has none in the recording."""
INFO_TYPE = "audio_common_msgs/msg/AudioInfo"
LABEL_TYPES = ("std_msgs/msg/String", *(f"std_msgs/msg/{sign}Int{bits}" for bits in (8, 16, 32, 64) for sign in ("", "U")))
"""Names, or numbers of classes."""
_AUDIO_DEFINITIONS = {
    "audio_common_msgs/msg/AudioData": "uint8[] data",
    "audio_common_msgs/msg/AudioDataStamped": "std_msgs/Header header\naudio_common_msgs/AudioData audio",
    "audio_common_msgs/msg/AudioInfo": "uint8 channels\nuint32 sample_rate\nstring sample_format\nuint32 bitrate\nstring coding_format",
}
_OTHER_AUDIO_DEFINITIONS = {
    "audio_common_msgs/msg/AudioData": "float32[] float32_data\nint32[] int32_data\nint16[] int16_data\nint8[] int8_data\nuint8[] uint8_data",
    "audio_common_msgs/msg/AudioInfo": "int32 format\nint32 channels\nint32 rate\nint32 chunk",
    "audio_common_msgs/msg/Audio": "audio_common_msgs/AudioData audio_data\naudio_common_msgs/AudioInfo info",
    "audio_common_msgs/msg/AudioStamped": "std_msgs/Header header\naudio_common_msgs/Audio audio",
}
_OUR_DEFINITIONS = {"aecf_msgs/msg/EmbeddingStamped": "std_msgs/Header header\nfloat32[] values"}
_FOXGLOVE_DEFINITIONS = {
    "foxglove_msgs/msg/RawAudio":
        "builtin_interfaces/Time timestamp\nuint8[] data\nstring format\nuint32 sample_rate\nuint32 number_of_channels",
}


class BagError(ValueError):
    """A recording that cannot be used; names it and says what to do."""


class UnreadableBag(BagError):
    """A recording of which nothing can be read."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One message of a recording, still serialized (CDR)."""

    topic: str
    type: str
    log_ns: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Topics:
    """Which topic carries what: a topic for each modality, for each audio modality's info, and for labels."""

    streams: Mapping[str, str]
    infos: Mapping[str, str]
    label: str | None

    def line(self, types: Mapping[str, str]) -> str:
        """Which topic carries what, in one line."""
        chosen = [f"{name} from {topic} ({types[topic].rsplit('/', 1)[-1]})" for name, topic in self.streams.items()]
        described = [f"described by {topic}" for topic in self.infos.values()]
        return ", ".join([*chosen, *described, f"labels from {self.label}" if self.label else "no labels"])


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """How to read sound that no ``AudioInfo`` describes: shaped like one."""

    sample_format: str
    sample_rate: int
    channels: int
    coding_format: str = "wave"

    def __post_init__(self) -> None:
        if self.sample_format not in SAMPLE_BYTES:
            raise BagError(f"audio format '{self.sample_format}' is not known; use one of {', '.join(SAMPLE_BYTES)}")


class Bag:
    """An open recording. Make it with :func:`open_bag`.

    ``losses`` says in a line each what of it could not be read; it may grow while :meth:`messages` is run through.
    """

    def __init__(self, path: Path, reader: AnyReader, losses: Sequence[str] = ()) -> None:
        self.path = path
        self.losses = list(losses)
        self._reader = reader
        self.types: dict[str, str] = {c.topic: c.msgtype for c in reader.connections}
        self.start_ns: int = reader.start_time
        self.end_ns: int = reader.end_time

    @property
    def duration_s(self) -> float:
        """Seconds from the first message to the last."""
        return (self.end_ns - self.start_ns) / NANOSECONDS

    def seconds(self, recorded: Recorded) -> float:
        """Where a message stands in the recording."""
        return (recorded.log_ns - self.start_ns) / NANOSECONDS

    def messages(self, topics: list[str] | None = None) -> Iterator[Recorded]:
        """Messages in log order, of the named topics or of all."""
        connections = [c for c in self._reader.connections if topics is None or c.topic in topics]
        try:
            for connection, log_ns, data in self._reader.messages(connections):
                yield Recorded(connection.topic, connection.msgtype, log_ns, data)
        except (ReaderError, sqlite3.DatabaseError, RuntimeError, EOFError, zlib.error, OverflowError) as error:
            line = f"{self.path}: breaks off ({first_line(error, None)}); what follows is not read"
            if line not in self.losses:
                self.losses.append(line)

    @property
    def connections(self) -> Sequence[Connection]:
        """What the recording knows of each topic, as rosbags has it."""
        return self._reader.connections

    @property
    def typestore(self) -> Typestore:
        """The types of the recording."""
        return self._reader.typestore

    def deserialize(self, recorded: Recorded) -> Any:
        """The message, with the field names of its definition.

        Raises:
            BagError: its bytes are not what its type says.
        """
        try:
            return self._reader.deserialize(recorded.data, recorded.type)
        except AnyReaderError as error:
            raise BagError(f"{self.path}: {recorded.topic}: a message is not a {recorded.type} ({first_line(error, None)}); "
                           "check it with `ros2 bag info`") from None

    def label_of(self, recorded: Recorded, labels: Sequence[str] = ()) -> str:
        """What a message of a label topic says; a number that is none of ``labels`` counts into them from 0, one below 0 is nothing.

        Raises:
            BagError: its bytes are not what its type says.
        """
        data = self.deserialize(recorded).data
        if isinstance(data, str):
            return data.strip()
        name = str(data) if data >= 0 else ""
        return name if name in labels or not 0 <= data < len(labels) else labels[data]

    def choose_topics(self, manifest: Manifest, named: Mapping[str, str] | None = None, option: str = "--topic ") -> Topics:
        """Find a topic for every modality: the one its name suggests if there is one, else the only one of a fitting type.

        Args:
            manifest: or anything else with ``modalities`` that have a name and a kind.
            named: topics that are named: by modality, by modality and ``_info``, and for ``label``; ``none`` for no topic.
            option: what stands in front of ``NAME=TOPIC`` where a user names one.

        Raises:
            BagError: none fits, or several do and no name decides; or a named topic is not there or of another type.
        """
        named = dict(named or {})
        streams: dict[str, str] = {}
        infos: dict[str, str] = {}
        given = {name: self._given(name, topic, STREAM_TYPES[m.kind])
                 for m in manifest.modalities if (topic := named.pop(name := m.name, None)) is not None}
        for modality in manifest.modalities:
            name = modality.name
            types = STREAM_TYPES[modality.kind]
            info = named.pop(f"{name}_info", None)
            topic = given[name] if name in given else self._choose(name, types, {*streams.values(), *given.values()}, option)
            if topic is None:
                continue
            streams[name] = topic
            if modality.kind == "audio":
                info = self._given(f"{name}_info", info, (INFO_TYPE,)) if info is not None else self._choose_info(name, topic, option)
                if info is not None:
                    infos[name] = info
        label = self._given("label", named.pop("label"), LABEL_TYPES) if "label" in named else self._choose_label()
        for name in named:
            known = [part for m in manifest.modalities for part in ([m.name, f"{m.name}_info"] if m.kind == "audio" else [m.name])]
            raise BagError(f"topic for '{name}': this model has no such stream; use one of {', '.join([*known, 'label'])}")
        return Topics(streams, infos, label)

    def _given(self, name: str, topic: str, types: tuple[str, ...]) -> str | None:
        if topic == NO_TOPIC:
            return None
        if topic not in self.types:
            near = get_close_matches(topic, self.types, 1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(sorted(self.types))}"
            raise BagError(f"{self.path}: no topic {topic} for '{name}'; {hint}")
        if self.types[topic] not in types:
            raise BagError(f"{self.path}: {topic} is {self.types[topic]}, and '{name}' takes {' or '.join(types)}")
        return topic

    def _choose_label(self) -> str | None:
        found = [(LABEL_TYPES.index(kind), t) for t, kind in self.types.items() if kind in LABEL_TYPES and "label" in t]
        labels = [t for _, t in sorted(found)]
        named = [t for t in labels if t.split("/")[-1] == "label"]
        return (named or labels or [None])[0]

    def _choose_info(self, name: str, stream: str, option: str) -> str | None:
        if self.types[stream] not in UNDESCRIBED_TYPES:
            return None  # its messages say themselves how to read them
        fitting = [t for t, kind in self.types.items() if kind == INFO_TYPE]
        chosen = [t for t in fitting if t == f"{stream}_info"] or [t for t in fitting if t.startswith(stream)] or fitting
        if len(chosen) > 1:
            raise BagError(f"{self.path}: modality '{name}': several topics of type {INFO_TYPE} may describe {stream} ({', '.join(chosen)}); "
                           f"name one with {option}{name}_info=/...")
        return chosen[0] if chosen else None

    def _choose(self, name: str, types: tuple[str, ...], taken: set[str], option: str) -> str:
        fitting = [t for t, kind in self.types.items() if kind in types and t not in taken]
        named = [t for t in fitting if name in t.split("/")]
        chosen = named or fitting
        if len(chosen) == 1:
            return chosen[0]
        held = ", ".join(f"{t} ({kind})" for t, kind in sorted(self.types.items()))
        found = f"several topics fit ({', '.join(chosen)})" if chosen else f"no topic of type {' or '.join(types)}"
        raise BagError(f"{self.path}: modality '{name}': {found}; name one with {option}{name}=/..., or {option}{name}=none; the recording holds {held}")


def _types_without_definitions(other_dialect: bool) -> Typestore:
    """Types for recordings that carry no definitions of theirs, as sqlite3 ones of Humble do not."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    for name, definition in {**(_OTHER_AUDIO_DEFINITIONS if other_dialect else _AUDIO_DEFINITIONS), **_FOXGLOVE_DEFINITIONS, **_OUR_DEFINITIONS}.items():
        store.register(get_types_from_msg(definition, name))
    return store


_CANNOT_READ = (AnyReaderError, ReaderError, OSError, struct.error, TypeError, ValueError, EOFError, RuntimeError, OverflowError, MemoryError)
"""What rosbags raises for a file that is cut off or not what it seems: readers trust what they have read so far, lengths too."""


def _open(paths: Sequence[Path]) -> tuple[AnyReader, ExitStack]:
    """A reader of one recording and what closes it."""
    with ExitStack() as stack:
        reader = stack.enter_context(AnyReader(paths, default_typestore=_types_without_definitions(other_dialect=False)))
        if any(c.msgtype == "audio_common_msgs/msg/AudioStamped" for c in reader.connections):
            # Both dialects have types of the same names; without definitions of its own only this type tells which a recording speaks.
            stack.pop_all().close()
            reader = stack.enter_context(AnyReader(paths, default_typestore=_types_without_definitions(other_dialect=True)))
        return reader, stack.pop_all()
    raise AssertionError("unreachable")


def _ways(file: Path, folder: Path) -> Iterator[Path]:
    """Paths by which a file may be read: itself, then what is whole of it. What must be copied for that goes to ``folder``."""
    yield file
    if file.suffix == ".mcap":
        yield from salvage(file)
    elif (rescued := salvage_sqlite(file, folder)) is not None:
        yield rescued


def _open_what_is_whole(path: Path, folder: Path) -> tuple[AnyReader, ExitStack, list[str]] | None:
    """A reader of the files of a recording that can be read on their own, and what was lost; ``None`` if there is none."""
    files = sorted(p for p in path.iterdir() if p.suffix in (".mcap", ".db3")) if path.is_dir() else [path]
    readable: list[Path] = []
    losses = [] if not path.is_dir() or (path / "metadata.yaml").exists() else [f"{path}: no metadata.yaml; its files are read one by one"]
    for file in files:
        for way in _ways(file, folder):
            try:
                reader, stack = _open([way])
            except _CANNOT_READ:
                continue
            with stack:
                whole = way is file
                if not whole and not reader.message_count:
                    continue
                if not whole:
                    seconds = (reader.end_time - reader.start_time) / NANOSECONDS
                    losses.append(f"{file}: is cut off: {reader.message_count} messages are whole, which hold {seconds:.1f} s")
            readable.append(way)
            break
        else:
            losses.append(f"{file}: cannot be read at all")
    return (*_open(readable), losses) if readable else None


def _unread_logs(path: Path) -> list[str]:
    logs = sorted(path.glob("*.db3-wal")) if path.is_dir() else [path.with_name(path.name + "-wal")]
    return [f"{log}: the recorder was killed before it moved this log into the recording, and it is not read; "
            f"run `sqlite3 {log.name.removesuffix('-wal')} .schema` there once, which moves it" for log in logs if log.is_file() and log.stat().st_size]


@contextmanager
def open_bag(path: Path | str) -> Iterator[Bag]:
    """Open a recording for reading; of one that is cut off, what is whole.

    Raises:
        BagError: it is not there, or, as :class:`UnreadableBag`, nothing of it can be read.
    """
    path = Path(path)
    if not path.exists():
        raise BagError(f"{path}: no such recording; name a rosbag2 directory, an .mcap or a .db3 file")
    losses: list[str] = []
    with ExitStack() as outer:
        try:
            reader, stack = _open([path])
        except _CANNOT_READ as error:
            found = _open_what_is_whole(path, Path(outer.enter_context(TemporaryDirectory(prefix="aecf_bag_"))))
            if found is None:
                raise UnreadableBag(f"{path}: cannot be read as rosbag2 ({first_line(error, None)}); check it with `ros2 bag info`") from None
            reader, stack, losses = found
        outer.enter_context(stack)
        yield Bag(path, reader, losses + _unread_logs(path))
