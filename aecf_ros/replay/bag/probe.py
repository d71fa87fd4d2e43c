"""What recordings hold where no encoder says what it takes: a modality for each topic of a sensor, at its own size."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aecf_ros.core.types import RawAudio, RawImage
from aecf_ros.modalities.audio.pcm import decode_audio
from aecf_ros.modalities.image.decode import decode_image
from aecf_ros.modalities.messages import DecodeError, FormatUnknown
from aecf_ros.modalities.vector.messages import RawVector
from aecf_ros.replay.bag.errors import BagError, UnreadableBag
from aecf_ros.replay.bag.message_types import INFO_TYPE, STREAM_TYPES
from aecf_ros.replay.bag.reader import open_bag
from aecf_ros.replay.bag.topics import DEFAULT_READING, Reading
from aecf_ros.replay.faults.message_edit import raw_record

_GENERIC = {"image", "image_raw", "image_color", "image_rect", "compressed", "color", "raw", "stamped", "audio_stamped"}
"""Parts of a topic that do not tell one camera or microphone from another."""
WINDOW_S = 1.0
"""Of sound, which has no size of its own."""


@dataclass(frozen=True)
class Found:
    """A topic as a modality: ``size`` is height and width of a picture, rate in Hz and window in s of sound, the number of numbers of a vector."""

    name: str
    kind: str
    topic: str
    size: tuple[float, ...]


def find_modalities(paths: Iterable[Path], reading: Reading = DEFAULT_READING) -> list[Found]:
    """Of the first recording that has any; one of which nothing can be read is passed over.

    Args:
        reading: a modality is called as the user names its topic.

    Raises:
        BagError: a description of sound is not what its type says.
    """
    for path in paths:
        try:
            found = _found_in(path, reading)
        except UnreadableBag:  # whoever reads its moments says so
            continue
        if found:
            return sorted(found, key=lambda f: (list(STREAM_TYPES).index(f.kind), f.topic))
    return []


def _found_in(path: Path, reading: Reading) -> list[Found]:
    called = {topic: name for name, topic in reading.topics.items()}
    found: dict[str, Found] = {}
    with open_bag(path) as bag:
        kinds = {
            topic: kind
            for topic, found_type in bag.types.items()
            for kind, types in STREAM_TYPES.items()
            if found_type in types
        }
        infos = [topic for topic, kind in bag.types.items() if kind == INFO_TYPE]
        info: Any = reading.audio_format
        for one in bag.messages([*kinds, *infos]):
            if len(found) == len(kinds):
                break
            if one.topic in infos:
                info = bag.deserialize(one)
            elif one.topic not in found:
                try:
                    size = _size(raw_record(bag.deserialize(one), info, one.log_ns))
                except (BagError, DecodeError, FormatUnknown):
                    continue
                name = _unused(
                    called.get(one.topic) or _name(one.topic, kinds[one.topic]), {f.name for f in found.values()}
                )
                found[one.topic] = Found(name, kinds[one.topic], one.topic, size)
    return list(found.values())


def _size(raw: RawImage | RawAudio | RawVector) -> tuple[float, ...]:
    if isinstance(raw, RawVector):
        return (len(raw.values),)
    return decode_image(raw).image.shape[:2] if isinstance(raw, RawImage) else (decode_audio(raw).rate_hz, WINDOW_S)


def _name(topic: str, kind: str) -> str:
    parts = [part for part in topic.lower().split("/") if part and part not in _GENERIC]
    name = re.sub(r"[^a-z0-9_]", "_", parts[0] if parts else "").lstrip("_0123456789")
    return name or ("camera" if kind == "image" else kind)


def _unused(name: str, taken: set[str]) -> str:
    number = 2
    candidate = name
    while candidate in taken:
        candidate, number = f"{name}_{number}", number + 1
    return candidate
