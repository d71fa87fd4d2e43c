"""Sensor failures on a schedule: a YAML list of ``{stream, kind, start_s, end_s}``, applied to messages on their way."""
from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

KINDS = ("drop",)


class FaultError(ValueError):
    """A faults file that cannot be used; names the file, the entry and what to do."""


class Fault(BaseModel):
    """One failure of one stream, from ``start_s`` to ``end_s`` of the recording."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    stream: str
    kind: str
    start_s: float
    end_s: float

    @model_validator(mode="after")
    def _sensible(self) -> Fault:
        if self.kind not in KINDS:
            near = get_close_matches(self.kind, KINDS, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"use one of {', '.join(KINDS)}"
            raise ValueError(f"kind '{self.kind}' is not known; {hint}")
        if not 0 <= self.start_s < self.end_s:
            raise ValueError(f"span {self.start_s} to {self.end_s} s is empty or negative; give 0 <= start_s < end_s")
        return self

    def covers(self, stream: str, at_s: float) -> bool:
        """Whether this fault acts on ``stream`` at ``at_s`` seconds into the recording."""
        return stream == self.stream and self.start_s <= at_s < self.end_s


def load_faults(path: Path | str, streams: Sequence[str]) -> tuple[Fault, ...]:
    """Read and validate a faults file against the streams that exist.

    Raises:
        FaultError: not there, not YAML, not a list, or an entry that does not hold.
    """
    path = Path(path)
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    except FileNotFoundError:
        raise FaultError(f"{path}: no such file; name a YAML list of {{stream, kind, start_s, end_s}}") from None
    except OSError as error:
        raise FaultError(f"{path}: cannot be read ({error.strerror}); name a YAML list of {{stream, kind, start_s, end_s}}") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise FaultError(f"{path}: not YAML; write a list of {{stream, kind, start_s, end_s}}") from None
    if not isinstance(entries, list):
        raise FaultError(f"{path}: holds {type(entries).__name__} where a list of {{stream, kind, start_s, end_s}} is due")
    faults = []
    for number, entry in enumerate(entries, 1):
        try:
            fault = Fault.model_validate(entry)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise FaultError(f"{path}: entry {number}{': ' + field if field else ''}: {first['msg'].removeprefix('Value error, ')}") from None
        if fault.stream not in streams:
            near = get_close_matches(fault.stream, streams, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"use one of {', '.join(streams)}"
            raise FaultError(f"{path}: entry {number}: stream '{fault.stream}' is not known; {hint}")
        faults.append(fault)
    return tuple(faults)


def is_dropped(faults: Sequence[Fault], stream: str, at_s: float) -> bool:
    """Whether a message of ``stream`` at ``at_s`` is lost to a ``drop`` fault."""
    return any(fault.kind == "drop" and fault.covers(stream, at_s) for fault in faults)
