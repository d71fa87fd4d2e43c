"""What a training run works on, wherever it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aecf_ros.core.labeled_samples import NOTHING, Unit
from aecf_ros.modalities.base import ModalitySpec


@dataclass(frozen=True)
class Corpus:
    """Labeled data in parts that share no recording.

    Attributes:
        name: of the data, for people.
        labels: class names.
        modalities: in the order of the presence mask.
        parts: ``fusion``, ``calibration`` and ``test``, and ``encoders`` where encoders can be trained on it too.
        paired: whether the modalities of a moment belong together, as in a recording. Where not, each unit holds one
            modality, which its attribute ``modality`` names, and modalities are paired by label.
        sources: where the data comes from, a line each.
        description: one line for the bundle.
        warnings: what was left out and what may harm a model, a line each.
        sets: None where a moment has one label, whose index is the class index of its unit. Where it may have
        several, bool
            ``(K, C)``: which labels each of K class indices stands for.
    """

    name: str
    labels: Sequence[str]
    modalities: Sequence[ModalitySpec]
    parts: Mapping[str, Sequence[Unit]]
    paired: bool
    sources: Sequence[str] = ()
    description: str = ""
    warnings: Sequence[str] = ()
    sets: np.ndarray | None = None

    @property
    def multilabel(self) -> bool:
        """Whether a moment may have several labels, or none."""
        return self.sets is not None

    def counts(self, labels: np.ndarray) -> np.ndarray:
        """Moments of each label, and of nothing behind them, int64 ``(C + 1,)``, from class indices ``(N,)``."""
        return label_counts(labels, self.classes, self.sets)

    def first_label(self, index: int) -> int:
        """The first of the labels that a class index stands for; -1 for nothing."""
        if self.sets is None or index == NOTHING:
            return index
        return int(self.sets[index].argmax()) if self.sets[index].any() else NOTHING

    @property
    def names(self) -> list[str]:
        """Modality names."""
        return [m.name for m in self.modalities]

    @property
    def classes(self) -> int:
        """Number of labels."""
        return len(self.labels)


def label_counts(labels: np.ndarray, classes: int, sets: np.ndarray | None = None) -> np.ndarray:
    """Moments of each label, and of nothing behind them: int64 ``(C + 1,)``. A moment of several labels counts for
    each of them.

    Args:
        labels: class indices int ``(N,)``, -1 for nothing.
        sets: see :class:`Corpus`.

    >>> label_counts(np.array([0, 1, 1, -1]), 3).tolist()
    [1, 2, 0, 1]
    >>> label_counts(np.array([0, 1, 1]), 2, np.array([[False, False], [True, True]])).tolist()
    [2, 2, 1]
    """
    if sets is None:
        return np.bincount(np.where(labels == NOTHING, classes, labels), minlength=classes + 1)
    times = np.bincount(labels, minlength=len(sets))
    return np.append(times @ sets, times[~sets.any(1)].sum())
