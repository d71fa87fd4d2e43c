"""How long each stage took, from stamp to publication: the last durations of every stage, and their medians."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from statistics import median

KEPT = 128
"""Durations kept of each stage: four seconds of a camera at 30 Hz."""

STAGES = ("transport", "decode", "preprocess", "encoder", "head", "publish", "total", "check")
"""In the order in which they happen. ``total`` is from the arrival of a message in the loop to the end of its publication, ``check`` the
look at the content, which no prediction waits for. All but ``head``, ``publish`` and ``total`` are followed by the name of a modality."""


class Trace:
    """Durations by stage. Adding one costs 0.1 us. Not thread-safe: it belongs to the thread that owns the pipeline."""

    def __init__(self) -> None:
        self._kept: dict[str, deque[int]] = {}

    def add(self, stage: str, duration_ns: int) -> None:
        """Note that ``stage`` took so long."""
        kept = self._kept.get(stage)
        if kept is None:
            kept = self._kept[stage] = deque(maxlen=KEPT)
        kept.append(duration_ns)

    def last_ns(self, stage: str) -> int | None:
        """The newest duration of a stage, ``None`` where it never ran."""
        kept = self._kept.get(stage)
        return kept[-1] if kept else None

    def medians_ms(self) -> dict[str, float]:
        """Median of the kept durations by stage, in milliseconds."""
        return {stage: median(self._kept[stage]) / 1e6 for stage in _in_order(self._kept)}


def _in_order(stages: Iterable[str]) -> list[str]:
    return sorted(stages, key=lambda stage: STAGES.index(stage.split()[0]))
