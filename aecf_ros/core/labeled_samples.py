"""Labeled moments on their way to a trainer: the label, and what each sensor gave.

A unit is what is read, encoded and cached in one go: a recording, or a block of a table or of an array. ``replay`` and
``training`` make units of what they can read; the trainer takes them all alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

NOTHING = -1
"""Label of a moment with nothing to recognize."""


@dataclass(frozen=True)
class Batch:
    """Consecutive moments of a unit.

    Attributes:
        inputs: for each modality the samples of the K moments at which it is present, as the modality's record says:
            uint8 ``(K, H, W, 3)`` RGB, int16 ``(K, samples)`` mono, or float32 ``(K, dim)``.
        present: bool ``(N, M)``, modalities in the corpus's order.
    """

    inputs: dict[str, np.ndarray]
    present: np.ndarray


class Unit(Protocol):
    """Labeled moments that are read together. Units pickle: another process may read them.

    Attributes:
        name: for people, unique in a corpus.
        recording: what must not be in two parts: moments of one recording, or of one session.
        digest: hexadecimal; changes when what :meth:`batches` gives does.
        labels: int64 ``(N,)``, class index or :data:`NOTHING`.
        clusters: int64 ``(N,)``; moments that share a number are not independent (one labeled span, one file).
        problems: what of it could not be read, a line each, once :meth:`batches` has run through.
        modality: the only one in it, where the modalities of a corpus are not paired; else empty.
        sources: int64 ``(N,)``, index into the sources of ``modality``, -1 where unknown; ``None`` where paired.
        duration_s: length of the recording, where it is one.
    """

    name: str
    recording: str
    digest: str
    labels: np.ndarray
    clusters: np.ndarray
    problems: list[str]

    @property
    def modality(self) -> str: ...

    @property
    def sources(self) -> np.ndarray | None: ...

    @property
    def duration_s(self) -> float | None: ...

    def only(self, name: str) -> Unit:
        """The same moments with one modality, so that only its samples are read."""
        ...

    def batches(self, size: int) -> Iterator[Batch]:
        """All N moments in order, up to ``size`` at a time. May be called again."""
        ...
