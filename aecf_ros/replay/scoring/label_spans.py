"""Labeled spans of a recording."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from aecf_ros.core.types import NANOSECONDS
from aecf_ros.replay.bag.reader import Bag
from aecf_ros.replay.scoring.ground_truth import LabelError, read_label_file


@dataclass(frozen=True, slots=True)
class Span:
    """A label from ``start_ns`` to ``end_ns``, log time."""

    start_ns: int
    end_ns: int
    label: str


def label_file(path: Path) -> Path | None:
    """The CSV that goes with a recording: ``NAME.csv`` beside it, or ``labels.csv`` in its directory; ``None`` if
    there is none.
    """
    beside = [
        path.with_name(f"{path.name}.csv"),
        *([path.with_suffix(".csv")] if path.is_file() else [path / "labels.csv"]),
    ]
    return next((file for file in beside if file.is_file()), None)


def read_spans(bag: Bag, file: Path | None, topic: str | None) -> list[Span]:
    """Labeled spans, in order, by the CSV if there is one, else by the label topic; empty where nothing is labeled.

    An empty label ends the one before. A label that is repeated goes on.

    Raises:
        LabelError: the CSV cannot be used, or none of its spans lies in the recording.
    """
    if file is None:
        named = ((one.log_ns, bag.label_text(one)) for one in bag.messages([topic])) if topic is not None else iter(())
        return _spans(named, bag.end_ns)
    spans = _spans(
        ((bag.start_ns + round(at_s * NANOSECONDS), name) for at_s, name in read_label_file(file)), bag.end_ns
    )
    if not spans:
        raise LabelError(
            f"{file}: no span begins in the {bag.duration_s:.1f} s of {bag.path.name}; count seconds "
            f"from its first message"
        )
    return spans


def _spans(named: Iterable[tuple[int, str]], end_ns: int) -> list[Span]:
    spans: list[Span] = []
    since_ns, label = 0, ""
    for at_ns, name in [*named, (end_ns, "")]:
        at_ns = min(at_ns, end_ns)
        if name == label:
            continue
        if label and at_ns > since_ns:
            spans.append(Span(since_ns, at_ns, label))
        since_ns, label = at_ns, name
    return spans
