"""What a recording that cannot be used raises."""

from __future__ import annotations


class BagError(ValueError):
    """A recording that cannot be used; names it and says what to do."""


class UnreadableBag(BagError):
    """A recording of which nothing can be read."""
