"""Drive the node's own pipeline with a recording, in the recording's time."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from aecf_ros.core.bundle import Manifest
from aecf_ros.core.types import NANOSECONDS
from aecf_ros.modalities.base import Raw
from aecf_ros.modalities.messages import UnknownFormatError
from aecf_ros.modalities.registry import MODALITIES
from aecf_ros.replay.bag.reader import Bag, RecordedMessage
from aecf_ros.replay.bag.topics import Topics
from aecf_ros.replay.faults.base import Delivery
from aecf_ros.replay.faults.schedule import Fault, FaultInjector
from aecf_ros.replay.scoring.ground_truth import GroundTruth, ground_truth, read_label_file
from aecf_ros.replay.scoring.prediction_log import PredictionLog, PublishedPrediction
from aecf_ros.replay.scoring.score import Run, explained, summarize
from aecf_ros.replay.stream_samples import RejectedMessages
from aecf_ros.runtime.pipeline import Observation, Pipeline


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message of a stream as it reaches whoever listens, faults applied. ``info`` describes sound, where something
    does.
    """

    at_ns: int
    stream: str
    message: Any
    info: Any | None


def stream_kinds(manifest: Manifest) -> dict[str, str]:
    """``image``, ``audio`` or ``vector`` for each modality."""
    return {m.name: m.kind for m in manifest.modalities}


def arrivals(
    recorded: Iterable[RecordedMessage],
    start_ns: int,
    topics: Topics,
    injector: FaultInjector,
    read: Callable[[RecordedMessage], Any],
) -> Iterator[Arrival]:
    """The messages of the streams of a recording, in the order in which they arrive once faults have been applied.

    One schedule, seeded by position, serves the replay and the live player alike. What is still under way when the
    recording ends
    never arrives.

    Args:
        recorded: messages in log order; those of other topics are left out.
        start_ns: log time of the start of the recording, which the times of the faults count from.
        read: deserializes one.
    """
    modality_of = {topic: name for name, topic in topics.streams.items()}
    name_of_info = {topic: name for name, topic in topics.infos.items()}
    infos: dict[str, Any] = dict.fromkeys(topics.streams, topics.audio_format)
    waiting: list[tuple[int, int, str, Delivery]] = []
    order = count()
    now_ns = start_ns
    for one in recorded:
        now_ns = max(now_ns, one.log_ns)
        while waiting and waiting[0][0] < now_ns:
            yield _arrival(heapq.heappop(waiting))
        if one.topic in name_of_info:
            infos[name_of_info[one.topic]] = read(one)
        elif (name := modality_of.get(one.topic)) is not None:
            at_s = (now_ns - start_ns) / NANOSECONDS
            for delivery in injector.apply(name, at_s, read(one), infos.get(name)):
                # Floats would move a message that no fault delays.
                at_ns = now_ns if delivery.at_s == at_s else max(now_ns, start_ns + round(delivery.at_s * NANOSECONDS))
                heapq.heappush(waiting, (at_ns, next(order), name, delivery))
            while waiting and waiting[0][0] <= now_ns:
                yield _arrival(heapq.heappop(waiting))
    for name, delivery in injector.flush():
        heapq.heappush(waiting, (now_ns, next(order), name, delivery))
    while waiting and waiting[0][0] <= now_ns:
        yield _arrival(heapq.heappop(waiting))


def _arrival(entry: tuple[int, int, str, Delivery]) -> Arrival:
    at_ns, _, stream, delivery = entry
    return Arrival(at_ns, stream, delivery.message, delivery.info)


def read_ground_truth(
    bag: Bag, topics: Topics, manifest: Manifest, labels_path: Path | None = None
) -> GroundTruth | None:
    """GroundTruth from a CSV, else from the recording's label topic, else ``None``.

    Raises:
        LabelError: the CSV cannot be used.
    """
    if labels_path is not None:
        nothing = manifest.training.config.get("data", {}).get("nothing", []) if manifest.task == "multilabel" else []
        return ground_truth(
            read_label_file(labels_path, [*manifest.labels, *nothing], several=manifest.task == "multilabel"), manifest
        )
    if topics.label is None:
        return None
    return ground_truth(
        ((bag.seconds(one), bag.label_text(one, manifest.labels)) for one in bag.messages([topics.label])), manifest
    )


Watch = Callable[[str, "Raw | None", Observation, int], None]
"""Told the stream, the record (``None`` where the message could not be read), what became of it, and the log time in
ns.
"""


def drive(
    bag: Bag,
    topics: Topics,
    pipeline: Pipeline,
    faults: Sequence[Fault] = (),
    recorded: Iterable[RecordedMessage] | None = None,
    watch: Watch | None = None,
) -> Iterator[PublishedPrediction]:
    """Answers of the pipeline to a recording, as the node would publish them; every clock is the log time.

    Args:
        recorded: the messages, where the caller reads them itself; they may hold other topics too.
        watch: called after each message of a stream.

    Raises:
        FaultError: a fault cannot act on its stream.
    """
    kinds = stream_kinds(pipeline.manifest)
    injector = FaultInjector(faults, kinds)
    messages = recorded if recorded is not None else bag.messages([*topics.streams.values(), *topics.infos.values()])
    yield _answer(pipeline, bag.start_ns, bag.start_ns)
    for arrival in arrivals(messages, bag.start_ns, topics, injector, bag.deserialize):
        now_ns, name = arrival.at_ns, arrival.stream
        yield from _silence(pipeline, bag, now_ns)
        raw, modality = None, MODALITIES[kinds[name]]
        try:
            raw = modality.read(arrival.message, arrival.info, now_ns)
            seen = pipeline.observe(name, raw, now_ns)
        except UnknownFormatError as error:
            seen = pipeline.reject(name, str(error), now_ns)
        if watch is not None:
            watch(name, raw, seen, now_ns)
        if seen.due:
            yield _answer(
                pipeline, now_ns, bag.start_ns, raw.stamp_ns if raw and modality.entry.paces_predictions else None
            )
    yield from _silence(pipeline, bag, bag.end_ns)


def _silence(pipeline: Pipeline, bag: Bag, until_ns: int) -> Iterator[PublishedPrediction]:
    while (due_ns := pipeline.next_due_ns()) is not None and due_ns < until_ns:
        yield _answer(pipeline, due_ns, bag.start_ns)


def _answer(pipeline: Pipeline, now_ns: int, start_ns: int, frame_ns: int | None = None) -> PublishedPrediction:
    started = time.perf_counter()
    prediction = pipeline.step(now_ns)
    took_s = time.perf_counter() - started
    kept = any(m.evidence_stamp_ns == frame_ns for m in prediction.modalities)  # not where its stamp was faulty
    latency_s = (now_ns - frame_ns) / NANOSECONDS + took_s if frame_ns is not None and kept else None
    return PublishedPrediction((now_ns - start_ns) / NANOSECONDS, prediction, latency_s)


def evaluate(
    bag: Bag,
    pipeline: Pipeline,
    faults: Sequence[Fault] = (),
    labels_path: Path | None = None,
    progress: Callable[[float], None] = lambda at_s: None,
    topics: Topics | None = None,
) -> Run:
    """Drive, score and summarize one recording, in memory that grows by some 130 bytes with each prediction.

    ``bag.problems`` is told of messages that could not be used, where no fault explains it.

    Raises:
        BagError: no topics can be chosen.
        FaultError: a fault cannot act on its stream.
        LabelError: the CSV of labels cannot be used.
    """
    topics = topics or bag.choose_topics(pipeline.manifest)
    truth = read_ground_truth(bag, topics, pipeline.manifest, labels_path)
    started = time.perf_counter()
    log = PredictionLog(pipeline.manifest)
    rejected = {name: RejectedMessages() for name in topics.streams}

    def watch(name: str, _: object, seen: Observation, now_ns: int) -> None:
        at_s = (now_ns - bag.start_ns) / NANOSECONDS
        if seen.rejected is not None and not explained(name, at_s, faults):
            rejected[name].add(at_s, seen.rejected)

    for answer in drive(bag, topics, pipeline, faults, watch=watch):
        log.add(answer)
        progress(answer.at_s)
    factor = bag.duration_s / (time.perf_counter() - started)
    bag.problems += [
        line
        for name, topic in topics.streams.items()
        for line in rejected[name].line(topic)
        if line not in bag.problems
    ]
    summary = summarize(log, truth, faults, pipeline.manifest, bag.duration_s, factor)
    return Run("", pipeline.manifest, summary, log, truth, tuple(faults), bag.duration_s)
