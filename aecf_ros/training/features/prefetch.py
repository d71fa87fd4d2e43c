"""Reading ahead: what is read next is prepared in a thread while the caller works on what it has."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
_END = object()


def ahead(items: Iterable[T], depth: int = 3) -> Iterator[T]:
    """The same items in order, up to ``depth`` of them made before they are asked for, in one thread.

    What making them raises is raised here, in its place. The thread ends with the iterator, also where it is closed early.

    >>> list(ahead(range(5)))
    [0, 1, 2, 3, 4]
    """
    waiting: queue.Queue = queue.Queue(maxsize=depth)
    over = threading.Event()

    def put(item: object) -> bool:
        while not over.is_set():
            try:
                waiting.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((_END, None))
        except BaseException as error:  # handed over: it must not die with the thread
            put((_END, error))

    thread = threading.Thread(target=work, name="read ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        over.set()
        thread.join()
