"""Drive the node's own pipeline with a recording, in the recording's time."""
from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from aecf_ros.core.bundle import Manifest
from aecf_ros.core.messages import (
    FormatUnknown,
    read_compressed_image,
    read_image,
    read_plain_audio,
    read_stamped_audio,
)
from aecf_ros.core.types import NANOSECONDS
from aecf_ros.replay.bag import Bag, Topics
from aecf_ros.replay.faults import Fault, is_dropped
from aecf_ros.replay.score import Answer, summarize
from aecf_ros.replay.truth import Truth, read_label_file, truth_from_labels
from aecf_ros.runtime.pipeline import Pipeline

_READ_IMAGE = {"sensor_msgs/msg/Image": read_image, "sensor_msgs/msg/CompressedImage": read_compressed_image}
_READ_AUDIO = {"audio_common_msgs/msg/AudioDataStamped": read_stamped_audio, "audio_common_msgs/msg/AudioData": read_plain_audio}


def read_truth(bag: Bag, topics: Topics, manifest: Manifest, labels_path: Path | None = None) -> Truth | None:
    """Truth from a CSV, else from the recording's label topic, else ``None``.

    Raises:
        LabelError: the CSV cannot be used.
    """
    window_s = max((m.window_s for m in manifest.modalities if m.kind == "audio"), default=0.0)
    if labels_path is not None:
        return truth_from_labels(read_label_file(labels_path, manifest.labels), manifest.labels, window_s)
    if topics.label is None:
        return None
    named = (((r.log_ns - bag.start_ns) / NANOSECONDS, bag.deserialize(r).data) for r in bag.messages([topics.label]))
    return truth_from_labels(named, manifest.labels, window_s)


def drive(bag: Bag, topics: Topics, pipeline: Pipeline, faults: Sequence[Fault] = ()) -> Iterator[Answer]:
    """Answers of the pipeline to a recording, as the node would publish them; every clock is the log time."""
    modality_of = {topic: name for name, topic in topics.streams.items()}
    name_of_info = {topic: name for name, topic in topics.infos.items()}
    infos: dict[str, Any] = {}
    yield _answer(pipeline, bag.start_ns, bag.start_ns)
    for recorded in bag.messages([*modality_of, *name_of_info]):
        now_ns = recorded.log_ns
        yield from _silence(pipeline, bag, now_ns)
        if recorded.topic in name_of_info:
            infos[name_of_info[recorded.topic]] = bag.deserialize(recorded)
            continue
        name = modality_of[recorded.topic]
        if is_dropped(faults, name, (now_ns - bag.start_ns) / NANOSECONDS):
            continue
        message = bag.deserialize(recorded)
        try:
            raw = _READ_IMAGE[recorded.type](message, now_ns) if recorded.type in _READ_IMAGE else \
                _READ_AUDIO[recorded.type](message, infos.get(name), now_ns)
        except FormatUnknown as error:
            pipeline.reject(name, str(error), now_ns)
            continue
        if pipeline.observe(name, raw, now_ns).due:
            frame_ns = raw.stamp_ns if recorded.type in _READ_IMAGE else None
            yield _answer(pipeline, now_ns, bag.start_ns, frame_ns)
    yield from _silence(pipeline, bag, bag.end_ns)


def _silence(pipeline: Pipeline, bag: Bag, until_ns: int) -> Iterator[Answer]:
    while (due_ns := pipeline.next_due_ns()) is not None and due_ns < until_ns:
        yield _answer(pipeline, due_ns, bag.start_ns)


def _answer(pipeline: Pipeline, now_ns: int, start_ns: int, frame_ns: int | None = None) -> Answer:
    started = time.perf_counter()
    prediction = pipeline.step(now_ns)
    took_s = time.perf_counter() - started
    latency_s = None if frame_ns is None else (now_ns - frame_ns) / NANOSECONDS + took_s
    return Answer((now_ns - start_ns) / NANOSECONDS, prediction, latency_s)


def evaluate(bag: Bag, pipeline: Pipeline, faults: Sequence[Fault] = (), labels_path: Path | None = None,
             progress: Callable[[float], None] = lambda at_s: None) -> tuple[dict, list[Answer], Truth | None]:
    """Drive, score and summarize one recording.

    Returns:
        The summary of DESIGN.md, the answers behind it, and the truth they were scored against.
    """
    topics = bag.choose_topics(pipeline.manifest)
    truth = read_truth(bag, topics, pipeline.manifest, labels_path)
    started = time.perf_counter()
    answers = []
    for answer in drive(bag, topics, pipeline, faults):
        answers.append(answer)
        progress(answer.at_s)
    factor = bag.duration_s / (time.perf_counter() - started)
    return summarize(answers, truth, faults, pipeline.manifest, bag.duration_s, factor), answers, truth
