"""The classes of labeled data: their names, how often each is there, and what that may do to a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from aecf_ros.core.labeled_samples import NOTHING, Unit
from aecf_ros.core.labels import split_labels
from aecf_ros.modalities.base import ModalitySpec
from aecf_ros.training.config import DataConfig
from aecf_ros.training.data.corpus import Corpus, label_counts
from aecf_ros.training.data.npy_dataset import DatasetError

IMBALANCE = 10
"""The most frequent class may have so many times the moments of the rarest before it is named."""


@dataclass(frozen=True)
class Naming:
    """What the labels in the data mean.

    Attributes:
        labels: their names, in order.
        index: what stands in the data -> the class index of such a moment.
        sets: see :class:`aecf_ros.training.data.corpus.Corpus`.
    """

    labels: list[str]
    index: Mapping[str, int]
    sets: np.ndarray | None = None

    def counts(self, index: np.ndarray) -> np.ndarray:
        """int ``(C + 1,)`` of class indices int64 ``(N,)``; see :func:`aecf_ros.training.data.corpus.label_counts`."""
        return label_counts(index, len(self.labels), self.sets)


def naming_of(where: str, names_found: Iterable[str], config: DataConfig) -> Naming:
    """The names in order, ``config.labels`` or those found, sorted, without those of ``config.nothing``; and what
    each label found means.

    Where ``config.task`` is multilabel, ``dog|siren`` has both labels, in any order, and a label of
    ``config.nothing`` has none.

    Raises:
        DatasetError: one is not among ``config.labels``.
    """
    names_found = sorted(set(names_found))
    several = {
        text: frozenset(split_labels(text)) - set(config.nothing)
        if config.task == "multilabel"
        else {text} - set(config.nothing)
        for text in names_found
    }
    names = sorted(set().union(*several.values()))
    if config.labels:
        _refuse_unknown(where, names, config.labels)
        names = list(config.labels)
    if config.task == "multiclass":
        return Naming(names, {**{label: i for i, label in enumerate(names)}, **dict.fromkeys(config.nothing, NOTHING)})
    kinds = sorted({tuple(name in members for name in names) for members in several.values()}, reverse=True)
    index = {text: kinds.index(tuple(name in members for name in names)) for text, members in several.items()}
    return Naming(names, index, np.array(kinds, bool).reshape(-1, len(names)))


def _refuse_unknown(where: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"those are {', '.join(known)};"
            raise DatasetError(
                f"{where}: the label '{name[:40]}' is not in data.labels: {hint} correct it, or name it in data.nothing"
            )


def check_classes(where: str, labels: Sequence[str], counts: Mapping[str, np.ndarray]) -> list[str]:
    """What the classes of a corpus may do to a model, a line each.

    A class that the part ``calibration`` or ``test`` lacks is a warning: a model comes out, but its confidence in
    that class is
    not calibrated, or not measured.

    Args:
        counts: part -> int ``(C,)``, its moments of each class.

    Raises:
        DatasetError: there are fewer than two classes, or a class cannot be learned because the part ``fusion``
        lacks it.
    """
    total = np.sum(list(counts.values()), axis=0)
    if (total > 0).sum() < 2:
        only = f"only '{labels[int(total.argmax())]}' is" if total.any() else "nothing is"
        raise DatasetError(f"{where}: {only} labeled; two classes at least are needed to tell anything apart")
    if lacking := _lacking(labels, counts["fusion"]):
        raise DatasetError(
            f"{where}: the part 'fusion', which is trained on, lacks {lacking}; record more of it, "
            f"decide with data.parts, "
            "or name it in data.nothing"
        )
    means = {
        "calibration": "the confidence in it is not calibrated",
        "test": "how well it is recognized is not measured",
    }
    warnings = [
        f"the part '{part}' lacks {missing}: {means[part]}; record more of it"
        for part in means
        if (missing := _lacking(labels, counts[part]))
    ]
    most, least = int(total.argmax()), int(total.argmin())
    if total[most] >= IMBALANCE * total[least]:
        warnings.append(
            f"classes are imbalanced: '{labels[most]}' has {total[most]} moments and '{labels[least]}' {total[least]}; "
            "record more of the rare ones"
        )
    return warnings


def _lacking(labels: Sequence[str], counts: np.ndarray) -> str:
    names = [f"'{labels[c]}'" for c in np.flatnonzero(counts == 0).tolist()]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def checked_corpus(
    path: Path,
    naming: Naming,
    modalities: Sequence[ModalitySpec],
    parts: Mapping[str, Sequence[Unit]],
    sources: Sequence[str],
    warnings: Sequence[str],
) -> Corpus:
    """A corpus of paired moments whose classes were looked over.

    Raises:
        DatasetError: as :func:`check_classes`.
    """
    labels = naming.labels
    counts = {
        part: sum((naming.counts(u.labels) for u in units), np.zeros(len(labels) + 1, np.int64))[:-1]
        for part, units in parts.items()
    }
    warnings = [*warnings, *check_classes(str(path), labels, counts)]
    return Corpus(
        path.resolve().name,
        labels,
        modalities,
        parts,
        paired=True,
        sources=sources,
        warnings=warnings,
        sets=naming.sets,
    )
