"""Prefetching: a background thread makes the next items while the caller works on one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
_END = object()


def prefetch(items: Iterable[T], depth: int = 3) -> Iterator[T]:
    """Yield the items in order, with up to ``depth`` of them made in advance by one background thread.

    An exception raised by ``items`` is raised here, after the items before it. The thread ends with the iterator, also
    where that is closed early.

    >>> list(prefetch(range(5)))
    [0, 1, 2, 3, 4]
    """
    source, pool = iter(items), ThreadPoolExecutor(1, "prefetch")
    try:
        pending = deque(pool.submit(next, source, _END) for _ in range(depth + 1))
        item: Any
        while (item := pending.popleft().result()) is not _END:
            pending.append(pool.submit(next, source, _END))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
