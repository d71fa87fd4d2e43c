"""Durations of the stages of a prediction, from the stamp to publication, and their medians."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from statistics import median

KEPT = 128
"""Durations kept of each stage: four seconds of a camera at 30 Hz."""

STAGES = ("transport", "decode", "preprocess", "encoder", "head", "publish", "total", "check")
"""In the order in which they happen. ``total``: from the arrival of a message to the end of its publication. ``check``:
measuring the content, for which no prediction waits. All but ``head``, ``publish`` and ``total`` are followed by the
name of a modality."""


class Trace:
    """Durations by stage. Adding one takes 0.1 us. Not thread-safe: it belongs to the thread that owns the pipeline."""

    def __init__(self) -> None:
        self._kept: dict[str, deque[int]] = {}

    def add(self, stage: str, duration_ns: int) -> None:
        """Add a duration of a stage."""
        kept = self._kept.get(stage)
        if kept is None:
            kept = self._kept[stage] = deque(maxlen=KEPT)
        kept.append(duration_ns)

    def medians_ms(self) -> dict[str, float]:
        """Median of the kept durations by stage, in milliseconds."""
        return {stage: median(self._kept[stage]) / 1e6 for stage in _in_order(self._kept)}


def _in_order(stages: Iterable[str]) -> list[str]:
    return sorted(stages, key=lambda stage: STAGES.index(stage.split()[0]))
