"""Labels as they stand in data: one, or several of a moment."""

from __future__ import annotations

SEPARATOR = "|"


def split_labels(text: str) -> tuple[str, ...]:
    """The labels of a moment that may have several.

    >>> split_labels("dog | siren")
    ('dog', 'siren')
    >>> split_labels("")
    ()
    """
    return tuple(name for part in text.split(SEPARATOR) if (name := part.strip()))
