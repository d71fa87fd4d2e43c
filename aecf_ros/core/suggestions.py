"""Hints for names that do not exist."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name most similar to ``name``; ``None`` where none has a similarity of ``cutoff`` (0 to 1).

    >>> nearest("camra", ["camera", "audio"]), nearest("lidar", ["camera", "audio"])
    ('camera', None)
    """
    return next(iter(get_close_matches(name, list(known), 1, cutoff)), None)


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "use one of") -> str:
    """The nearest known name as a question, or all known names after ``otherwise``.

    >>> did_you_mean("camra", ["camera", "audio"]), did_you_mean("lidar", ["camera", "audio"])
    ("did you mean 'camera'?", 'use one of camera, audio')
    """
    known = list(known)
    match = nearest(name, known)
    return f"{otherwise} {', '.join(known)}" if match is None else f"did you mean '{match}'?"
