"""Ground truth: the label at each time of a recording."""

from __future__ import annotations

import csv
import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from aecf_ros.core.bundle import Manifest
from aecf_ros.core.labels import split_labels

SETTLING_MARGIN_S = 0.25
"""Added to the audio window: after a change of label no sensor can know the new one sooner."""


_UNKNOWN_NAMED = 5


class LabelError(ValueError):
    """A label file cannot be used; the message names the line and says what to do."""


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """Class index by time.

    Attributes:
        changes_s: times at which the class changes.
        classes: class from each change on, ``None`` for nothing shown.
        settling_s: duration of the settling after a change.
        unknown: the first few labels that the model does not have.
        sets: of a multilabel model, bool ``(K, C)``: the labels of each class index.
    """

    changes_s: tuple[float, ...]
    classes: tuple[int | None, ...]
    settling_s: float
    unknown: tuple[str, ...] = ()
    sets: np.ndarray | None = None

    def at(self, time_s: float) -> tuple[int | None, bool]:
        """Class at a time, and whether that time lies in the settling after a change."""
        i = bisect_right(self.changes_s, time_s) - 1
        if i < 0:
            return None, False
        return self.classes[i], time_s - self.changes_s[i] < self.settling_s

    def over(self, times_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """:meth:`at` for float ``(N,)`` times: int class, -1 for none, and whether it settles, both ``(N,)``."""
        if not self.changes_s:
            return np.full(len(times_s), -1), np.zeros(len(times_s), bool)
        changes = np.array(self.changes_s)
        i = np.searchsorted(changes, times_s, side="right") - 1
        classes = np.array([-1 if c is None else c for c in self.classes])
        return np.where(i < 0, -1, classes[i]), (i >= 0) & (times_s - changes[i] < self.settling_s)

    def named(self, index: int, labels: Sequence[str]) -> str:
        """Name of a class index; labels joined by ``+`` for a multilabel model."""
        if self.sets is None:
            return labels[index]
        return "+".join(labels[int(c)] for c in np.flatnonzero(self.sets[index])) or "none"

    def warning(self, labels: Sequence[str]) -> str | None:
        """A warning about unknown labels, ``None`` without any. They count as nothing shown."""
        if not self.unknown:
            return None
        return (
            f"labels {', '.join(self.unknown)} are none of the model's ({', '.join(labels)}) and count as nothing shown"
        )


def ground_truth_from_labels(named: Iterable[tuple[float, str]], labels: Sequence[str], window_s: float) -> GroundTruth:
    """GroundTruth from label messages ``(time_s, name)`` in time order; a name that is not a label means nothing is
    there.

    Args:
        window_s: the longest window of evidence, which the settling time covers.
    """
    index = {label: i for i, label in enumerate(labels)}
    changes_s: list[float] = []
    classes: list[int | None] = []
    unknown: dict[str, None] = {}
    for time_s, name in named:
        current = index.get(name)
        if current is None and name and len(unknown) < _UNKNOWN_NAMED:
            unknown[f"'{name[:40]}'"] = None
        if not classes or current != classes[-1]:
            changes_s.append(time_s)
            classes.append(current)
    return GroundTruth(tuple(changes_s), tuple(classes), window_s + SETTLING_MARGIN_S, tuple(unknown))


def ground_truth(named: Iterable[tuple[float, str]], manifest: Manifest) -> GroundTruth:
    """GroundTruth for a model from label messages ``(time_s, text)`` in time order.

    For a multilabel model ``dog|siren`` is both labels. Labels that training took for nothing are an empty set; a
    text without any
    known label is unknown ground truth.
    """
    window_s = max((m.span_s for m in manifest.modalities), default=0.0)
    if manifest.task == "multiclass":
        return ground_truth_from_labels(named, manifest.labels, window_s)
    nothing = set(manifest.training.config.get("data", {}).get("nothing", ()))
    kinds: dict[tuple[bool, ...], str] = {}
    unknown: dict[str, None] = {}
    renamed = []
    for time_s, text in named:
        names = split_labels(text)
        unknown |= dict.fromkeys(
            f"'{name[:40]}'" for name in names if name not in manifest.labels and name not in nothing
        )
        shown = tuple(label in names for label in manifest.labels)
        known = any(shown) or (names and nothing.issuperset(names))
        renamed.append((time_s, kinds.setdefault(shown, str(len(kinds))) if known else ""))
    truth = ground_truth_from_labels(renamed, list(kinds.values()), window_s)
    return replace(
        truth,
        unknown=tuple(unknown)[:_UNKNOWN_NAMED],
        sets=np.array(list(kinds), bool).reshape(-1, len(manifest.labels)),
    )


def read_label_file(
    path: Path | str, labels: Sequence[str] | None = None, several: bool = False
) -> list[tuple[float, str]]:
    """Read a CSV ``start_s,end_s,label`` (a header line is skipped) as label messages; between spans nothing is there.

    ``labels`` are those that may stand in it; any may where none are given. ``several``: they are joined by ``|``.

    Raises:
        LabelError: no such file, or a line that does not hold.
    """
    path = Path(path)
    if not path.is_file():
        raise LabelError(f"{path}: no such file; name a CSV of start_s,end_s,label")
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (UnicodeDecodeError, csv.Error):
        raise LabelError(f"{path}: not text; write a CSV of start_s,end_s,label in UTF-8") from None
    named: list[tuple[float, str]] = []
    for number, row in enumerate(rows, 1):
        if not row or (number == 1 and row[0].strip() == "start_s"):
            continue
        try:
            start_s, end_s, name = float(row[0]), float(row[1]), row[2].strip()
        except (ValueError, IndexError):
            raise LabelError(f"{path}: line {number}: '{','.join(row)[:60]}' is not start_s,end_s,label") from None
        strange = (
            next((label for label in (split_labels(name) if several else [name]) if label not in labels), None)
            if labels is not None
            else None
        )
        if strange is not None:
            raise LabelError(f"{path}: line {number}: label '{strange}' is not one of {', '.join(labels or ())}")
        in_order = not named or named[-1][0] <= start_s
        if not (in_order and 0 < end_s - start_s < math.inf):
            raise LabelError(f"{path}: line {number}: spans must be in order, finite and not empty")
        if named and named[-1][0] == start_s:
            named.pop()
        named += [(start_s, name), (end_s, "")]
    if not named:
        raise LabelError(f"{path}: no spans in it; write lines of start_s,end_s,label")
    return named
