"""Errors about recordings."""

from __future__ import annotations


class BagError(ValueError):
    """A recording cannot be used; the message names it and says what to do."""


class UnreadableBag(BagError):  # noqa: N818 - a public name
    """Nothing of a recording can be read."""
