"""Labels as text in data sets: one, or several joined by ``|``."""

from __future__ import annotations

SEPARATOR = "|"


def split_labels(text: str) -> tuple[str, ...]:
    """Split a text of one or several labels.

    >>> split_labels("dog | siren")
    ('dog', 'siren')
    >>> split_labels("")
    ()
    """
    return tuple(name for part in text.split(SEPARATOR) if (name := part.strip()))
