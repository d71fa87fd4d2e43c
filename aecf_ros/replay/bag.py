"""Read rosbag2 recordings (MCAP or sqlite3, a directory or one file) by rosbags, without ROS."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.highlevel import AnyReader, AnyReaderError

from aecf_ros.core.bundle import Manifest
from aecf_ros.core.types import NANOSECONDS

IMAGE_TYPES = ("sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image")
AUDIO_TYPES = ("audio_common_msgs/msg/AudioDataStamped", "audio_common_msgs/msg/AudioData")
INFO_TYPE = "audio_common_msgs/msg/AudioInfo"
LABEL_TYPE = "std_msgs/msg/String"


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
        for connection, log_ns, data in self._reader.messages(connections):
            yield Recorded(connection.topic, connection.msgtype, log_ns, data)

    def deserialize(self, recorded: Recorded) -> Any:
        """The message, with the field names of its definition."""
        return self._reader.deserialize(recorded.data, recorded.type)

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
                info = [t for t, kind in self.types.items() if kind == INFO_TYPE]
                named = [t for t in info if t.startswith(streams[modality.name])]
                if named or info:
                    infos[modality.name] = (named or info)[0]
        labels = [t for t, kind in self.types.items() if kind == LABEL_TYPE and "label" in t]
        return Topics(streams, infos, labels[0] if labels else None)

    def _choose(self, name: str, types: tuple[str, ...], taken: set[str]) -> str:
        fitting = [t for t, kind in self.types.items() if kind in types and t not in taken]
        named = [t for t in fitting if name in t.split("/")]
        chosen = named or fitting
        if len(chosen) == 1:
            return chosen[0]
        held = ", ".join(f"{t} ({kind})" for t, kind in sorted(self.types.items()))
        found = f"several topics fit ({', '.join(chosen)})" if chosen else f"no topic of type {' or '.join(types)}"
        raise BagError(f"{self.path}: modality '{name}': {found}; the recording holds {held}")


@contextmanager
def open_bag(path: Path | str) -> Iterator[Bag]:
    """Open a recording for reading.

    Raises:
        BagError: it is not there or cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise BagError(f"{path}: no such recording; name a rosbag2 directory, an .mcap or a .db3 file")
    try:
        with AnyReader([path]) as reader:
            yield Bag(path, reader)
    except (AnyReaderError, FileNotFoundError) as error:
        raise BagError(f"{path}: cannot be read as rosbag2 ({error}); check it with `ros2 bag info`") from None
