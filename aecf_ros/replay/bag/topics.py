"""Which topic of a recording carries what: named by a user, or found by type and name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol

from aecf_ros.modalities.audio.messages import PcmInfo
from aecf_ros.modalities.audio.pcm import SAMPLE_BYTES
from aecf_ros.modalities.base import Modality
from aecf_ros.modalities.registry import MODALITIES
from aecf_ros.replay.bag.errors import BagError
from aecf_ros.replay.bag.message_types import LABEL_TYPES, stream_types

NO_TOPIC = "none"
"""In place of a topic: this modality has none in the recording."""


@dataclass(frozen=True, slots=True)
class AudioFormat(PcmInfo):
    """How to read sound that no ``AudioInfo`` describes.

    Raises:
        BagError: the sample format is not known.
    """

    def __post_init__(self) -> None:
        if self.sample_format not in SAMPLE_BYTES:
            raise BagError(f"audio format '{self.sample_format}' is not known; use one of {', '.join(SAMPLE_BYTES)}")


@dataclass(frozen=True, slots=True)
class Reading:
    """How a user wants recordings to be read, where types and names of topics do not decide.

    Attributes:
        topics: by modality, by modality and ``_info``, and for ``label``; :data:`NO_TOPIC` for none.
        audio_format: of sound that no ``AudioInfo`` describes.
    """

    topics: Mapping[str, str] = field(default_factory=dict)
    audio_format: AudioFormat | None = None


DEFAULT_READING = Reading()


class HasKind(Protocol):
    """A modality, of a manifest or of training data."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Topics:
    """Which topic carries what: a topic for each modality, for each audio modality's info, and for labels.

    Attributes:
        audio_format: of sound until an ``AudioInfo`` comes.
    """

    streams: Mapping[str, str]
    infos: Mapping[str, str]
    label: str | None
    audio_format: AudioFormat | None = None

    def line(self, types: Mapping[str, str]) -> str:
        """Which topic carries what, in one line."""
        chosen = [f"{name} from {topic} ({types[topic].rsplit('/', 1)[-1]})" for name, topic in self.streams.items()]
        described = [f"described by {topic}" for topic in self.infos.values()]
        return ", ".join([*chosen, *described, f"labels from {self.label}" if self.label else "no labels"])


def choose_topics(
    path: Path,
    types: Mapping[str, str],
    modalities: Sequence[HasKind],
    reading: Reading = DEFAULT_READING,
    option: str = "--topic ",
) -> Topics:
    """Find a topic for every modality: the one its name suggests if there is one, else the only one of a fitting type.

    Args:
        path: of the recording, for errors.
        types: message type of each of its topics.
        modalities: those that the recording is to be read for.
        reading: topics that the user names.
        option: what stands in front of ``NAME=TOPIC`` where a user names one.

    Raises:
        BagError: none fits, or several do and no name decides; or a named topic is not there or of another type.
    """
    choice, named = _Choice(path, types, option), dict(reading.topics)
    streams: dict[str, str] = {}
    infos: dict[str, str] = {}
    named_by_user = {
        m.name: choice.check(m.name, topic, stream_types(m.kind))
        for m in modalities
        if (topic := named.pop(m.name, None)) is not None
    }
    for modality in modalities:
        name = modality.name
        info = named.pop(f"{name}_info", None)
        if name in named_by_user:
            topic = named_by_user[name]
        else:
            taken = {*streams.values(), *filter(None, named_by_user.values())}
            topic = choice.stream(name, stream_types(modality.kind), taken)
        if topic is None:
            continue
        streams[name] = topic
        if info_type := MODALITIES[modality.kind].info_type:
            info = (
                choice.check(f"{name}_info", info, (info_type,))
                if info is not None
                else choice.info(name, topic, MODALITIES[modality.kind])
            )
            if info is not None:
                infos[name] = info
    label = choice.check("label", named.pop("label"), LABEL_TYPES) if "label" in named else choice.label()
    for name in named:
        known = [
            part
            for m in modalities
            for part in ([m.name, f"{m.name}_info"] if MODALITIES[m.kind].info_type else [m.name])
        ]
        raise BagError(f"topic for '{name}': this model has no such stream; use one of {', '.join([*known, 'label'])}")
    return Topics(streams, infos, label, reading.audio_format)


@dataclass(frozen=True, slots=True)
class _Choice:
    """Of one recording: its path, the message type of each topic, and what stands in front of ``NAME=TOPIC`` in
    errors.
    """

    path: Path
    types: Mapping[str, str]
    option: str

    def check(self, name: str, topic: str, types: tuple[str, ...]) -> str | None:
        if topic == NO_TOPIC:
            return None
        if topic not in self.types:
            near = get_close_matches(topic, self.types, 1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(sorted(self.types))}"
            raise BagError(f"{self.path}: no topic {topic} for '{name}'; {hint}")
        if self.types[topic] not in types:
            raise BagError(f"{self.path}: {topic} is {self.types[topic]}, and '{name}' takes {' or '.join(types)}")
        return topic

    def label(self) -> str | None:
        candidates = [t for t, kind in self.types.items() if kind in LABEL_TYPES and "label" in t]
        labels = sorted(candidates, key=lambda topic: (LABEL_TYPES.index(self.types[topic]), topic))
        named = [t for t in labels if t.split("/")[-1] == "label"]
        return next(iter(named or labels), None)

    def info(self, name: str, stream: str, modality: Modality) -> str | None:
        if self.types[stream] not in modality.described_types:
            return None  # its messages describe themselves
        fitting = [t for t, kind in self.types.items() if kind == modality.info_type]
        chosen = (
            [t for t in fitting if t == f"{stream}_info"] or [t for t in fitting if t.startswith(stream)] or fitting
        )
        if len(chosen) > 1:
            raise BagError(
                f"{self.path}: modality '{name}': several topics of type {modality.info_type} may "
                f"describe {stream} ({', '.join(chosen)}); "
                f"name one with {self.option}{name}_info=/..."
            )
        return chosen[0] if chosen else None

    def stream(self, name: str, types: tuple[str, ...], taken: set[str]) -> str:
        fitting = [t for t, kind in self.types.items() if kind in types and t not in taken]
        named = [t for t in fitting if name in t.split("/")]
        chosen = named or fitting
        if len(chosen) == 1:
            return chosen[0]
        held = ", ".join(f"{t} ({kind})" for t, kind in sorted(self.types.items()))
        problem = f"several topics fit ({', '.join(chosen)})" if chosen else f"no topic of type {' or '.join(types)}"
        raise BagError(
            f"{self.path}: modality '{name}': {problem}; name one with {self.option}{name}=/..., or "
            f"{self.option}{name}=none; "
            f"the recording holds {held}"
        )
