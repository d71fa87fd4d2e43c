"""Labelled moments on their way to a trainer: what was before the sensors, and what each of them gave.

A unit is what is read, encoded and cached in one go: a recording, or a block of a table or of an array. Rooms that know
recordings make units, and rooms that train take them; neither knows the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

NOTHING = -1
"""Label of a moment that holds nothing to recognize."""


@dataclass(frozen=True)
class Batch:
    """Some moments of a unit, in its order.

    Attributes:
        inputs: for each modality what its encoder takes, of the moments at which it is present and of no others: uint8
            ``(K, H, W, 3)`` RGB, or int16 ``(K, samples)`` mono, K the number of those moments.
        present: bool ``(N, M)``, modalities in the corpus's order.
    """

    inputs: dict[str, np.ndarray]
    present: np.ndarray


class Unit(Protocol):
    """Labelled moments that are read together.

    Attributes:
        name: for people, unique in a corpus.
        recording: what must not be in two parts: moments of one recording, or of one session.
        digest: hexadecimal; changes when what :meth:`batches` gives does.
        labels: int64 ``(N,)``, class index or :data:`NOTHING`.
        clusters: int64 ``(N,)``; moments that share a number are not independent (one labelled span, one file).
        losses: in a line each what of it could not be read, once :meth:`batches` has run through.
    """

    name: str
    recording: str
    digest: str
    labels: np.ndarray
    clusters: np.ndarray
    losses: list[str]

    def batches(self, size: int) -> Iterator[Batch]:
        """All N moments in order, up to ``size`` at a time. May be called again, from another process too: units pickle."""
        ...
