"""What recordings hold where no encoder says what it takes: a modality for each topic of a sensor, at its own size."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aecf_ros.modalities.base import Modality, ModalitySpec
from aecf_ros.modalities.messages import DecodeError, UnknownFormatError
from aecf_ros.modalities.registry import MODALITIES
from aecf_ros.replay.bag.errors import BagError, UnreadableBag
from aecf_ros.replay.bag.message_types import kind_of_type
from aecf_ros.replay.bag.reader import open_bag
from aecf_ros.replay.bag.topics import DEFAULT_READING, Reading

_GENERIC = {"image", "image_raw", "image_color", "image_rect", "compressed", "color", "raw", "stamped", "audio_stamped"}
"""Parts of a topic that do not tell one camera or microphone from another."""


@dataclass(frozen=True)
class ProbedTopic:
    """A topic of a sensor, and the modality that it makes at the sensor's own size."""

    topic: str
    spec: ModalitySpec


def find_modalities(paths: Iterable[Path], reading: Reading = DEFAULT_READING) -> list[ProbedTopic]:
    """The modalities of the first recording that has any; unreadable recordings are skipped.

    Args:
        reading: a modality whose topic it names gets that name.

    Raises:
        BagError: a description of sound is not what its type says.
    """
    for path in paths:
        try:
            topics_found = _probe(path, reading)
        except UnreadableBag:  # whoever reads its moments says so
            continue
        if topics_found:
            return sorted(topics_found, key=lambda f: (list(MODALITIES).index(f.spec.kind), f.topic))
    return []


def _probe(path: Path, reading: Reading) -> list[ProbedTopic]:
    called = {topic: name for name, topic in reading.topics.items()}
    probed: dict[str, ProbedTopic] = {}
    info_types = {kind.info_type for kind in MODALITIES.values()} - {""}
    with open_bag(path) as bag:
        kinds = {topic: kind for topic, name in bag.types.items() if (kind := kind_of_type(name)) is not None}
        infos = [topic for topic, name in bag.types.items() if name in info_types]
        info: Any = reading.audio_format
        for recorded in bag.messages([*kinds, *infos]):
            topic = recorded.topic
            if len(probed) == len(kinds):
                break
            if topic in infos:
                info = bag.deserialize(recorded)
            elif topic not in probed:
                modality = MODALITIES[kinds[topic]]
                try:
                    sizes = modality.probe(modality.read(bag.deserialize(recorded), info, recorded.log_ns))
                except (BagError, DecodeError, UnknownFormatError):
                    continue
                taken = {other.spec.name for other in probed.values()}
                name = _unused(called.get(topic) or _name(topic, modality), taken)
                probed[topic] = ProbedTopic(topic, modality.spec(name=name, kind=modality.name, **sizes))
    return list(probed.values())


def _name(topic: str, modality: Modality) -> str:
    parts = [part for part in topic.lower().split("/") if part and part not in _GENERIC]
    name = re.sub(r"[^a-z0-9_]", "_", parts[0] if parts else "").lstrip("_0123456789")
    return name or modality.sensor


def _unused(name: str, taken: set[str]) -> str:
    number = 2
    candidate = name
    while candidate in taken:
        candidate, number = f"{name}_{number}", number + 1
    return candidate
