"""Labeled moments of a recording, for a trainer: what the pipeline would have seen and heard at each of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from aecf_ros.core.bundle import ModalityRecord
from aecf_ros.core.labeled_samples import Batch
from aecf_ros.core.types import NANOSECONDS
from aecf_ros.replay.bag.discovery import content_digest
from aecf_ros.replay.bag.message_types import needs_info, stream_types
from aecf_ros.replay.bag.reader import Bag, open_bag
from aecf_ros.replay.bag.topics import DEFAULT_READING, NO_TOPIC, Reading, Topics, choose_topics
from aecf_ros.replay.scoring.ground_truth import SETTLING_MARGIN_S
from aecf_ros.replay.scoring.label_spans import Span, label_file, read_spans
from aecf_ros.replay.stream_samples import StreamSamples, stream_samples

_VERSION = 1
"""Of what a moment is; raised when the same recording would give other samples."""


@dataclass(eq=False)
class BagUnit:
    """The labeled moments of one recording; a :class:`aecf_ros.core.labeled_samples.Unit`.

    Attributes:
        modalities: with a name, a kind, and ``height`` and ``width``, ``rate_hz`` and ``window_s``, or ``dim``.
        moments_ns: int64 ``(N,)``, log time, ascending.
        duration_s: of the whole recording.
        missing: modalities that have no topic in it.
        known: problems reported when it was scanned.
    """

    name: str
    recording: str
    digest: str
    labels: np.ndarray
    clusters: np.ndarray
    problems: list[str]
    path: Path
    topics: Topics
    modalities: Sequence[ModalityRecord]
    moments_ns: np.ndarray
    max_age_s: float
    duration_s: float
    missing: Sequence[str] = ()
    known: Sequence[str] = ()
    modality: str = ""
    sources: np.ndarray | None = None

    def only(self, name: str) -> BagUnit:
        """The same moments with one modality, so that only its messages are read."""
        topics = replace(
            self.topics,
            streams={n: topic for n, topic in self.topics.streams.items() if n == name},
            infos={n: topic for n, topic in self.topics.infos.items() if n == name},
            label=None,
        )
        return replace(self, topics=topics, modalities=[m for m in self.modalities if m.name == name])

    def batches(self, size: int) -> Iterator[Batch]:
        """The moments in order, up to ``size`` at a time: one pass in log order, in memory that does not grow with
        the recording.

        Raises:
            BagError: the recording is no longer there.
        """
        streams = {m.name: stream_samples(m, round(self.max_age_s * NANOSECONDS)) for m in self.modalities}
        name_of = {topic: name for name, topic in self.topics.streams.items()}
        name_of_info = {topic: name for name, topic in self.topics.infos.items()}
        infos: dict[str, Any] = dict.fromkeys(self.topics.streams, self.topics.audio_format)
        gathered = _Gathered(streams, size)
        i = 0
        with open_bag(self.path) as bag:
            for one in bag.messages([*name_of, *name_of_info]):
                while i < len(self.moments_ns) and self.moments_ns[i] < one.log_ns:
                    if (batch := gathered.add(bag, int(self.moments_ns[i]))) is not None:
                        yield batch
                    i += 1
                if i == len(self.moments_ns):
                    break
                if one.topic in name_of_info:
                    infos[name_of_info[one.topic]] = bag.deserialize(one)
                else:
                    name = name_of[one.topic]
                    streams[name].take(bag, one, infos.get(name))
            for at_ns in self.moments_ns[i:]:
                if (batch := gathered.add(bag, int(at_ns))) is not None:
                    yield batch
            refused = [
                f"{self.path}: {line}"
                for name, topic in self.topics.streams.items()
                for line in streams[name].rejected.line(topic)
            ]
            self.problems = [*(line for line in bag.problems if line not in self.known), *refused]
        if (batch := gathered.rest()) is not None:
            yield batch


class _Gathered:
    """Moments until they fill a batch."""

    def __init__(self, streams: Mapping[str, StreamSamples], size: int) -> None:
        self._streams = streams
        self._size = size
        self._clear()

    def _clear(self) -> None:
        self._samples: dict[str, list[np.ndarray]] = {name: [] for name in self._streams}
        self._present: list[list[bool]] = []

    def add(self, bag: Bag, at_ns: int) -> Batch | None:
        """What all modalities give at a moment; a batch when it is full."""
        by_name = {name: stream.sample(bag, at_ns) for name, stream in self._streams.items()}
        for name, sample in by_name.items():
            if sample is not None:
                self._samples[name].append(sample)
        self._present.append([sample is not None for sample in by_name.values()])
        return self.rest() if len(self._present) == self._size else None

    def rest(self) -> Batch | None:
        """What there is, ``None`` if nothing."""
        if not self._present:
            return None
        inputs = {
            name: np.stack(samples)
            if (samples := self._samples[name])
            else np.zeros((0, *s.record.sample_shape), s.record.stored_dtype)
            for name, s in self._streams.items()
        }
        batch = Batch(inputs, np.array(self._present, bool))
        self._clear()
        return batch


@dataclass(frozen=True)
class Scan:
    """A recording looked over: which topic carries what, and what is labeled; its moments are read later.

    ``missing`` are the modalities for which it has no topic, ``undescribed`` those whose sound nothing says how to
    read.
    """

    name: str
    path: Path
    content: str
    topics: Topics
    types: Mapping[str, str]
    spans: Sequence[Span]
    duration_s: float
    missing: Sequence[str] = ()
    undescribed: Sequence[str] = ()
    problems: Sequence[str] = ()

    def unit(
        self,
        modalities: Sequence[ModalityRecord],
        classes: Mapping[str, int],
        stride_s: float,
        settle_s: float | None,
        max_age_s: float,
    ) -> BagUnit:
        """Its moments: every ``stride_s`` of each span from ``settle_s`` after its start on.

        Args:
            classes: label -> class index, or -1 for nothing.
            settle_s: ``None`` for the longest audio window and 0.25 s.
        """
        if settle_s is None:
            settle_s = max((m.span_s for m in modalities), default=0.0) + SETTLING_MARGIN_S
        stride_ns, settle_ns = round(stride_s * NANOSECONDS), round(settle_s * NANOSECONDS)
        of_spans = [np.arange(s.start_ns + settle_ns, s.end_ns, stride_ns, dtype=np.int64) for s in self.spans]
        counts = [len(span_times) for span_times in of_spans]
        moments_ns = np.concatenate(of_spans) if of_spans else np.zeros(0, np.int64)
        labels = np.repeat(np.array([classes[s.label] for s in self.spans], np.int64), counts)
        settings = {
            "version": _VERSION,
            "content": self.content,
            "max_age_s": max_age_s,
            "topics": [dict(self.topics.streams), dict(self.topics.infos)],
            "audio_format": None if self.topics.audio_format is None else asdict(self.topics.audio_format),
            "modalities": [[m.name, m.kind, *m.sizes.values()] for m in modalities],
        }
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        digest.update(moments_ns.tobytes())
        return BagUnit(
            self.name,
            self.name,
            digest.hexdigest(),
            labels,
            np.repeat(np.arange(len(counts)), counts),
            [],
            self.path,
            self.topics,
            tuple(modalities),
            moments_ns,
            max_age_s,
            self.duration_s,
            tuple(self.missing),
            tuple(self.problems),
        )


def scan_recording(
    name: str,
    path: Path,
    modalities: Sequence[ModalityRecord],
    reading: Reading = DEFAULT_READING,
) -> Scan:
    """Look a recording over.

    Args:
        reading: a topic that it names and this recording does not have is missing, as is a modality of which it has no
            topic.

    Raises:
        BagError: it cannot be read, or several topics fit a modality.
        LabelError: its file of labels cannot be used.
    """
    with open_bag(path) as bag:
        named, missing = dict(reading.topics), []
        for m in modalities:
            types = stream_types(m.kind)
            if (
                (named[m.name] not in bag.types)
                if m.name in named
                else not any(kind in types for kind in bag.types.values())
            ):
                named[m.name] = NO_TOPIC
                missing.append(m.name)
        for other in [n for n in named if n.removesuffix("_info") in missing or n == "label"]:
            if other not in missing and named[other] not in bag.types:
                named[other] = NO_TOPIC
        topics = choose_topics(bag.path, bag.types, modalities, replace(reading, topics=named), option="data.topics.")
        undescribed = [
            n
            for n, topic in topics.streams.items()
            if needs_info(bag.types[topic]) and n not in topics.infos and reading.audio_format is None
        ]
        empty = bag.end_ns < bag.start_ns
        spans = [] if empty else read_spans(bag, label_file(path), topics.label)
        problems = [*bag.problems, *([f"{path}: holds no message"] if empty else [])]
        return Scan(
            name,
            path,
            content_digest(path),
            topics,
            bag.types,
            spans,
            0.0 if empty else bag.duration_s,
            missing,
            undescribed,
            problems,
        )
