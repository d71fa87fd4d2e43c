"""Read rosbag2 recordings (MCAP or sqlite3, a directory or one file) by rosbags, without ROS."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.rosbag2 import ReaderError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from aecf_ros.core.bundle import Manifest
from aecf_ros.core.types import NANOSECONDS

IMAGE_TYPES = ("sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image")
AUDIO_TYPES = ("audio_common_msgs/msg/AudioDataStamped", "audio_common_msgs/msg/AudioData")
INFO_TYPE = "audio_common_msgs/msg/AudioInfo"
LABEL_TYPE = "std_msgs/msg/String"
_AUDIO_DEFINITIONS = {
    "audio_common_msgs/msg/AudioData": "uint8[] data",
    "audio_common_msgs/msg/AudioDataStamped": "std_msgs/Header header\naudio_common_msgs/AudioData audio",
    "audio_common_msgs/msg/AudioInfo": "uint8 channels\nuint32 sample_rate\nstring sample_format\nuint32 bitrate\nstring coding_format",
}


class BagError(ValueError):
    """A recording that cannot be used; names it and says what to do."""


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


class Bag:
    """An open recording. Make it with :func:`open_bag`."""

    def __init__(self, path: Path, reader: AnyReader) -> None:
        self.path = path
        self._reader = reader
        self.types: dict[str, str] = {c.topic: c.msgtype for c in reader.connections}
        self.start_ns: int = reader.start_time
        self.end_ns: int = reader.end_time

    @property
    def duration_s(self) -> float:
        """Seconds from the first message to the last."""
        return (self.end_ns - self.start_ns) / NANOSECONDS

    def messages(self, topics: list[str] | None = None) -> Iterator[Recorded]:
        """Messages in log order, of the named topics or of all."""
        connections = [c for c in self._reader.connections if topics is None or c.topic in topics]
        try:
            for connection, log_ns, data in self._reader.messages(connections):
                yield Recorded(connection.topic, connection.msgtype, log_ns, data)
        except ReaderError as error:
            raise BagError(f"{self.path}: breaks off ({_first_line(error)}); check it with `ros2 bag info`") from None

    def deserialize(self, recorded: Recorded) -> Any:
        """The message, with the field names of its definition.

        Raises:
            BagError: its bytes are not what its type says.
        """
        try:
            return self._reader.deserialize(recorded.data, recorded.type)
        except AnyReaderError as error:
            raise BagError(f"{self.path}: {recorded.topic}: a message is not a {recorded.type} ({_first_line(error)}); "
                           "check it with `ros2 bag info`") from None

    def choose_topics(self, manifest: Manifest) -> Topics:
        """Find a topic for every modality: the one its name suggests if there is one, else the only one of a fitting type.

        Raises:
            BagError: none fits, or several do and no name decides.
        """
        streams, infos = {}, {}
        for modality in manifest.modalities:
            types = IMAGE_TYPES if modality.kind == "image" else AUDIO_TYPES
            streams[modality.name] = self._choose(modality.name, types, taken=set(streams.values()))
            if modality.kind == "audio":
                info = self._choose_info(modality.name, streams[modality.name])
                if info is not None:
                    infos[modality.name] = info
        labels = [t for t, kind in self.types.items() if kind == LABEL_TYPE and "label" in t]
        named = [t for t in labels if t.split("/")[-1] == "label"]
        return Topics(streams, infos, (named or labels or [None])[0])

    def _choose_info(self, name: str, stream: str) -> str | None:
        fitting = [t for t, kind in self.types.items() if kind == INFO_TYPE]
        chosen = [t for t in fitting if t == f"{stream}_info"] or [t for t in fitting if t.startswith(stream)] or fitting
        if len(chosen) > 1:
            raise BagError(f"{self.path}: modality '{name}': several topics of type {INFO_TYPE} may describe {stream} ({', '.join(chosen)}); "
                           f"name the right one {stream}_info")
        return chosen[0] if chosen else None

    def _choose(self, name: str, types: tuple[str, ...], taken: set[str]) -> str:
        fitting = [t for t, kind in self.types.items() if kind in types and t not in taken]
        named = [t for t in fitting if name in t.split("/")]
        chosen = named or fitting
        if len(chosen) == 1:
            return chosen[0]
        held = ", ".join(f"{t} ({kind})" for t, kind in sorted(self.types.items()))
        found = f"several topics fit ({', '.join(chosen)})" if chosen else f"no topic of type {' or '.join(types)}"
        raise BagError(f"{self.path}: modality '{name}': {found}; the recording holds {held}")


def _types_without_definitions() -> Typestore:
    """Types for recordings that carry no definitions of theirs, as sqlite3 ones of Humble do not."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    for name, definition in _AUDIO_DEFINITIONS.items():
        store.register(get_types_from_msg(definition, name))
    return store


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextmanager
def open_bag(path: Path | str) -> Iterator[Bag]:
    """Open a recording for reading.

    Raises:
        BagError: it is not there or cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise BagError(f"{path}: no such recording; name a rosbag2 directory, an .mcap or a .db3 file")
    with ExitStack() as stack:
        try:
            reader = stack.enter_context(AnyReader([path], default_typestore=_types_without_definitions()))
        except (AnyReaderError, OSError) as error:
            raise BagError(f"{path}: cannot be read as rosbag2 ({_first_line(error)}); check it with `ros2 bag info`") from None
        yield Bag(path, reader)
