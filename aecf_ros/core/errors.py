"""What other libraries say when they fail, short enough for our own line."""

from __future__ import annotations

FIRST_LINE, ONE_LINE = 160, 200
"""Characters kept."""


def first_line(error: Exception, limit: int | None = FIRST_LINE) -> str:
    """The first line of what an exception says, its type where it says nothing; ``limit`` in characters.

    >>> first_line(ValueError("no such axis\\nin node 3")), first_line(KeyError())
    ('no such axis', 'KeyError')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:limit]


def one_line(error: Exception) -> str:
    """All of what an exception says, on one line: libraries that say what matters in the second.

    >>> one_line(ValueError("shape mismatch:\\n  [3] and [4]"))
    'shape mismatch: [3] and [4]'
    """
    return " ".join(str(error).split())[:ONE_LINE]
