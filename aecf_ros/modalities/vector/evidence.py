"""The newest vector of a stream."""

from __future__ import annotations

from time import perf_counter_ns

import numpy as np

from aecf_ros.health.monitor import SampleReceived
from aecf_ros.modalities.base import Evidence, Raw, Timings
from aecf_ros.modalities.messages import DecodeError
from aecf_ros.modalities.vector.content import VectorWatch
from aecf_ros.modalities.vector.messages import RawVector, decode_vector
from aecf_ros.modalities.vector.spec import VectorEntry, VectorSpec


class VectorEvidence(Evidence):
    """The newest vector: float32 ``(dim,)``."""

    def __init__(self, record: VectorEntry | VectorSpec, trace: Timings | None = None) -> None:
        super().__init__(record, trace)
        self._dim = record.dim
        self._watch = VectorWatch()
        self._next: tuple[int, np.ndarray] | None = None
        self.clear()

    def clear(self) -> None:
        super().clear()
        self._vector = np.zeros(self._dim, np.float32)

    def decode(self, raw: Raw) -> int:
        if not isinstance(raw, RawVector):
            raise DecodeError(f"got {type(raw).__name__} on a stream of vectors; check the topic's remapping")
        started_ns = perf_counter_ns()
        self._next = raw.stamp_ns, decode_vector(raw.values, self._dim)
        self.note("decode", started_ns)
        return 0

    def read(self, raw: Raw, now_ns: int) -> SampleReceived:
        self.decode(raw)
        assert self._next is not None  # decode() has seen to it
        return SampleReceived(raw.stamp_ns, raw.received_ns, content=self._watch.look(self._next[1]))

    def keep(self) -> None:
        assert self._next is not None  # decode() comes first
        self.stamp_ns, self._vector = self._next
        self.changed = True

    def sample(self) -> np.ndarray:
        return self._vector
