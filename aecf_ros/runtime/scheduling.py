"""Run the pipeline inline, in the thread that receives messages, or in a worker thread.

All calls of a pipeline are submitted here, so that one thread owns it at any time. Inline is faster while the encoders
keep up, because nothing changes threads. If they do not, a worker keeps the receiving thread free: audio, services and
shutdown are served during inference, and only the newest of the waiting frames is decoded.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

Work = Callable[[], object]
SCHEDULINGS = ("auto", "inline", "worker")

EXPECTED_PERIOD_NS = 1_000_000_000 // 30
"""Frame period assumed at warm-up, before any frame."""
WORKER_ABOVE = 0.6
"""Share of that period above which the graphs get a worker: audio, decoding and publishing need the rest."""


def choose_scheduling(setting: str, inference_ns: int) -> str:
    """Choose ``inline`` or ``worker`` for graphs that together take ``inference_ns``.

    >>> choose_scheduling("auto", 5_000_000), choose_scheduling("auto", 30_000_000)
    ('inline', 'worker')
    >>> choose_scheduling("inline", 30_000_000)
    'inline'
    """
    if setting != "auto":
        return setting
    return "worker" if inference_ns > WORKER_ABOVE * EXPECTED_PERIOD_NS else "inline"


@dataclass(frozen=True, slots=True)
class Deadline:
    """Work that must be done at a certain time although no message arrives.

    Attributes:
        remaining_s: seconds until the work is due, 0 if it is due now, ``None`` if there is no deadline.
        run: does the work and sets the next deadline.
    """

    remaining_s: Callable[[], float | None]
    run: Work


class DeadlineKeeper(Protocol):
    """Runs a :class:`Deadline` when it expires: a worker, an executor or a timer."""

    def rearm(self) -> None:
        """Look at the deadline again, because it has changed."""


class Schedule(Protocol):
    """Runs submitted work in one thread, in order."""

    name: str
    dropped: Counter[str]
    """Work replaced by newer work in the same slot before it was run, counted by slot."""

    def submit(self, work: Work, slot: str | None = None) -> None:
        """Run ``work`` now or soon. It replaces work that waits in the same ``slot``.

        Raises:
            Exception: raised by earlier work.
        """

    def stop(self) -> None:
        """Finish the running work, discard the rest and accept no more."""


class Inline:
    """Runs work in the thread that submits it."""

    name = "inline"

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()

    def submit(self, work: Work, slot: str | None = None) -> None:
        work()

    def stop(self) -> None:
        """Nothing to do."""


class Worker:
    """Runs work in a thread of its own.

    ``submit`` and ``stop`` may be called from any thread but the worker's own.

    It keeps ``deadline`` itself: it looks at it before each wait.
    """

    name = "worker"

    def __init__(self, deadline: Deadline) -> None:
        self.dropped: Counter[str] = Counter()
        self._deadline = deadline
        self._waiting: deque[tuple[str | None, Work]] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    def submit(self, work: Work, slot: str | None = None) -> None:
        with self._changed:
            if self._failure is not None:
                raise self._failure
            if slot is not None:
                for index, (other, _) in enumerate(self._waiting):
                    if other == slot:
                        del self._waiting[index]  # the newer one goes to the end: work stays in order of arrival
                        self.dropped[slot] += 1
                        break
            self._waiting.append((slot, work))
            self._changed.notify()

    def rearm(self) -> None:
        """Nothing to do."""

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._waiting.clear()
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while (work := self._next()) is not None:
                work()
        except Exception as error:  # raised by the next submit()
            with self._changed:
                self._failure = error

    def _next(self) -> Work | None:
        """Wait for the next work; ``None`` when stopping."""
        wait_s = self._deadline.remaining_s()
        with self._changed:
            if not self._waiting and not self._stopping:
                self._changed.wait(wait_s)
            if self._stopping:
                return None
            return self._waiting.popleft()[1] if self._waiting else self._deadline.run
