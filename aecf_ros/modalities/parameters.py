"""A parameter of the node that streams of one kind have, as plain data; the node declares it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Value = str | int | float | bool
Life = Literal["live", "activate", "configure", "load", "start"]


@dataclass(frozen=True, slots=True)
class ParameterRecord:
    """``choices`` or ``bounds`` (inclusive) limit the value; ``life`` says when a change takes effect."""

    name: str
    default: Value
    description: str
    unit: str = ""
    bounds: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    life: Life = "configure"
