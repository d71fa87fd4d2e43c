"""Who does the pipeline's work, and when: the thread that brings a message, or one worker that takes the newest.

Everything that touches a pipeline is submitted here, so that one thread owns it at any time. Inline is quicker while the encoders keep up, since
nothing changes threads. A worker keeps the loop free while they do not: sound, services and shutdown are served during inference, and of the frames
that wait only the newest is ever decoded.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

Work = Callable[[], None]
SCHEDULINGS = ("auto", "inline", "worker")

EXPECTED_PERIOD_NS = 1_000_000_000 // 30
"""Taken for the period of the frames, which nobody knows at warm-up."""
WORKER_FROM = 0.6
"""Share of that period that the graphs may take before a worker is chosen: sound, decoding and publishing need the rest."""


def choose_scheduling(wanted: str, inference_ns: int) -> str:
    """``inline`` or ``worker``, for graphs that together take ``inference_ns``.

    >>> choose_scheduling("auto", 5_000_000), choose_scheduling("auto", 30_000_000), choose_scheduling("inline", 30_000_000)
    ('inline', 'worker', 'inline')
    """
    if wanted != "auto":
        return wanted
    return "worker" if inference_ns > WORKER_FROM * EXPECTED_PERIOD_NS else "inline"


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
    """Takes work from the thread of the loop and does it in one thread, in order."""

    name: str
    dropped: Counter[str]
    """Work that newer work in the same slot replaced before it was done."""

    def submit(self, work: Work, slot: str | None = None) -> None:
        """Do ``work``, now or soon; of what waits in a ``slot`` only the newest is done.

        Raises:
            Exception: what earlier work raised.
        """

    def stop(self) -> None:
        """Finish the work under way, forget the rest and take no more."""


class Inline:
    """Does the work where it is submitted."""

    name = "inline"

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()

    def submit(self, work: Work, slot: str | None = None) -> None:
        work()

    def stop(self) -> None:
        """Nothing is ever under way."""


class Worker:
    """Does the work in a thread of its own.

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
                for index, (taken, _) in enumerate(self._waiting):
                    if taken == slot:
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
        except Exception as error:  # given to the loop, which must not go on as if nothing had happened
            with self._changed:
                self._failure = error

    def _next(self) -> Work | None:
        """The next work, waited for; ``None`` when stopping."""
        wait_s = self._deadline.remaining_s()
        with self._changed:
            if not self._waiting and not self._stopping:
                self._changed.wait(wait_s)
            if self._stopping:
                return None
            return self._waiting.popleft()[1] if self._waiting else self._deadline.run
