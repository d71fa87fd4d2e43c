"""Content of a corpus: samples of each class, part and recording, missing modalities, and examples."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from aecf_ros.core.labeled_samples import Unit
from aecf_ros.core.types import subset_name
from aecf_ros.training.data.corpus import Corpus
from aecf_ros.training.data.npy_dataset import DatasetError
from aecf_ros.training.data.table import sound_lengths

EXAMPLES = 6
"""Of each class and modality."""
_PER_UNIT = 2
_BATCH = 64
NOTHING_NAME = "(nothing)"


@dataclass(frozen=True)
class UnitRow:
    """One unit: its moments, and those of each class ``(C + 1,)``, nothing last (one of several labels counts for
    each); of how many each
    modality is missing; its length where it is a recording."""

    name: str
    part: str
    moments: int
    counts: np.ndarray
    missing: dict[str, int]
    duration_s: float | None


@dataclass(frozen=True)
class Example:
    """One sample, uint8 ``(H, W, 3)`` or int16 ``(samples,)``, and the unit it is from."""

    modality: str
    sample: np.ndarray
    unit: str


@dataclass
class Inspection:
    """What was found.

    Attributes:
        units: in the order of the parts.
        subsets: part -> which modalities are there together -> moments.
        held: modality -> part -> int64 ``(C + 1,)``, its samples of each class, nothing last.
        examples: class index or -1 -> examples, of several labels the first.
        problems: what could not be read, a line each.
        notes: what else is worth knowing, a line each.
    """

    corpus: Corpus
    units: list[UnitRow] = field(default_factory=list)
    subsets: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    held: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    examples: dict[int, list[Example]] = field(default_factory=lambda: defaultdict(list))
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, and of nothing behind them."""
        return [*self.corpus.labels, NOTHING_NAME]

    def counts(self, part: str) -> np.ndarray:
        """int64 ``(C + 1,)``: moments of each class in a part; where modalities are unpaired, samples."""
        return sum((row.counts for row in self.units if row.part == part), np.zeros(len(self.class_names), np.int64))

    def moments(self, part: str) -> int:
        """Moments of a part; where modalities are unpaired, samples."""
        return sum(row.moments for row in self.units if row.part == part)

    @property
    def warnings(self) -> list[str]:
        """Everything that is to be said, once."""
        return list(dict.fromkeys([*self.corpus.warnings, *self.problems]))


def inspect_corpus(corpus: Corpus, advance: Callable[[int], None] = lambda moments: None) -> Inspection:
    """Read a corpus once.

    Args:
        advance: told how many moments were read since.

    Raises:
        DatasetError: of a modality nothing at all can be read.
    """
    inspection = Inspection(corpus)
    inspection.held = {
        name: {part: np.zeros(len(inspection.class_names), np.int64) for part in corpus.parts} for name in corpus.names
    }
    for part, units in corpus.parts.items():
        for unit in units:
            inspection.units.append(_read(inspection, part, unit, advance))
            inspection.problems += unit.problems
    for name, by_part in inspection.held.items():
        if not sum(counts.sum() for counts in by_part.values()):
            why = next((line for line in inspection.problems), "the modality is missing at every moment")
            raise DatasetError(f"{corpus.name}: nothing of '{name}' can be used; {why}")
    inspection.notes = sound_lengths(corpus)
    return inspection


def _read(inspection: Inspection, part: str, unit: Unit, advance: Callable[[int], None]) -> UnitRow:
    corpus, names = inspection.corpus, inspection.corpus.names
    taken: Counter[tuple[int, str]] = Counter()
    missing = dict.fromkeys(names, 0)
    start = 0
    for batch in unit.batches(_BATCH):
        labels = unit.labels[start : start + len(batch.present)]
        start += len(labels)
        headings = np.array([corpus.first_label(index) for index in labels.tolist()], np.int64)
        for m, name in enumerate(names):
            present = batch.present[:, m]
            inspection.held[name][part] += corpus.counts(labels[present])
            missing[name] += int((~present).sum())
        if corpus.paired:
            inspection.subsets[part].update(subset_name(names, row) for row in batch.present.tolist())
        for example in _examples(inspection, batch.inputs, batch.present, headings, unit.name, taken):
            inspection.examples[example[0]].append(example[1])
        advance(len(labels))
    if not corpus.paired:
        missing = {}
    return UnitRow(unit.name, part, len(unit.labels), corpus.counts(unit.labels), missing, unit.duration_s)


def _examples(
    inspection: Inspection,
    inputs: dict[str, np.ndarray],
    present: np.ndarray,
    labels: np.ndarray,
    unit: str,
    taken: Counter[tuple[int, str]],
) -> Iterator[tuple[int, Example]]:
    for m, name in enumerate(inspection.corpus.names):
        if name not in inputs:
            continue
        rows = np.flatnonzero(present[:, m])
        for label in np.unique(labels[rows]).tolist():
            have = sum(example.modality == name for example in inspection.examples[label])
            wanted = min(EXAMPLES - have, _PER_UNIT - taken[label, name])
            of_label = np.flatnonzero(labels[rows] == label)
            # Spread over the batch: neighbors are of one scene.
            for k in of_label[np.linspace(0, len(of_label) - 1, min(max(wanted, 0), len(of_label))).astype(int)]:
                taken[label, name] += 1
                yield label, Example(name, inputs[name][k].copy(), unit)


def balance(counts: np.ndarray) -> float:
    """How even classes are, from their counts int ``(C,)``: the entropy of their shares over that of even ones, 1
    for even and 0 for one
    class only.

    >>> round(balance(np.array([10, 10])), 3), round(balance(np.array([10, 0])), 3)
    (1.0, 0.0)
    """
    share = counts[counts > 0] / max(counts.sum(), 1)
    return float(-(share * np.log(share)).sum() / np.log(len(counts))) + 0.0 if len(counts) > 1 else 1.0
