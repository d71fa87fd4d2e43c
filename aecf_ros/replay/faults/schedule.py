"""Sensor failures on a schedule: a YAML list of ``{stream, kind, start_s, end_s, ...}``, applied to messages on
their way.

:class:`FaultInjector` acts between a recording and whoever listens: the replay in the recording's time, the player
node live.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from aecf_ros.modalities.faults import LAST_SEVERITY
from aecf_ros.modalities.messages import DecodeError, UnknownFormatError
from aecf_ros.replay.faults.base import Delivery, Effect
from aecf_ros.replay.faults.registry import effects, faults_on, options_of, options_on
from aecf_ros.replay.faults.stamps import headless


class FaultError(ValueError):
    """A faults file that cannot be used, or a fault that cannot act; says what was found and what to do."""


class Fault(BaseModel):
    """One failure of one stream, from ``start_s`` to ``end_s`` of the recording.

    ``severity`` is 0 (nothing) to 5 and sets every option of the kind; an option given by its own name wins.
    ``seed`` makes another
    draw of the same fault.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    stream: str
    kind: str
    start_s: float
    end_s: float
    severity: float = LAST_SEVERITY
    seed: int = 0
    options: dict[str, float] = {}

    @model_validator(mode="before")
    @classmethod
    def _gather_options(cls, entry: Any) -> Any:
        """Options stand beside the other fields in a file."""
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("kind"), str)
            or entry["kind"] not in effects()
            or "options" in entry
        ):
            return entry
        known = options_of(entry["kind"])
        for name in entry.keys() - cls.model_fields.keys() - known.keys():
            near = get_close_matches(str(name), [*known, *cls.model_fields], 1)
            hint = (
                f"did you mean '{near[0]}'?"
                if near
                else f"{entry['kind']} takes {', '.join([*known, 'severity', 'seed'])}"
            )
            raise ValueError(f"option '{name}' is not known; {hint}")
        return {name: value for name, value in entry.items() if name not in known} | {
            "options": {name: value for name, value in entry.items() if name in known}
        }

    @model_validator(mode="after")
    def _sensible(self) -> Fault:
        if self.kind not in effects():
            near = get_close_matches(self.kind, effects(), 1)
            hint = f"did you mean '{near[0]}'?" if near else f"use one of {', '.join(effects())}"
            raise ValueError(f"kind '{self.kind}' is not known; {hint}")
        if not 0 <= self.start_s < self.end_s:
            raise ValueError(f"span {self.start_s} to {self.end_s} s is empty or negative; give 0 <= start_s < end_s")
        if not 0 <= self.severity <= LAST_SEVERITY:
            raise ValueError(f"severity {self.severity:g} is not from 0 to {LAST_SEVERITY}")
        if self.seed < 0:
            raise ValueError(f"seed {self.seed} is negative; give a whole number from 0 on")
        known = options_of(self.kind)
        for name, value in self.options.items():
            if name not in known:
                raise ValueError(f"option '{name}' is not known; {self.kind} takes {', '.join(known) or 'none'}")
            if not known[name].low <= value <= known[name].high:
                raise ValueError(f"{name} {value:g} is not from {known[name].low:g} to {known[name].high:g}")
        return self

    def covers(self, stream: str, at_s: float) -> bool:
        """Whether this fault acts on ``stream`` at ``at_s`` seconds into the recording."""
        return stream == self.stream and self.start_s <= at_s < self.end_s

    @property
    def is_nothing(self) -> bool:
        """Whether it changes nothing: severity 0 and no number that says otherwise."""
        return self.severity == 0 and not self.options

    def check_stream(self, stream_kind: str) -> None:
        """Refuse a kind or option that cannot act on a stream of ``stream_kind``, ``image``, ``audio`` or ``vector``.

        Raises:
            FaultError: it cannot.
        """
        options = options_on(self.kind, stream_kind)
        if options is None:
            raise FaultError(
                f"'{self.kind}' cannot act on '{self.stream}', which carries {stream_kind}; "
                f"use one of {', '.join(faults_on(stream_kind))}"
            )
        for name in self.options:
            if name not in options:
                raise FaultError(
                    f"{self.kind}: '{name}' is not for '{self.stream}', which carries {stream_kind}; "
                    f"use {', '.join(options)} or severity"
                )

    def effect(self, stream_kind: str) -> Effect:
        """A fresh effect of this fault."""
        options = options_on(self.kind, stream_kind) or {}
        values = {name: self.options.get(name, option.value(self.severity)) for name, option in options.items()}
        return effects()[self.kind](self.kind, values, stream_kind, self.end_s)


class FaultInjector:
    """Passes the messages of every stream through the faults that act on it, in the order of the schedule.

    It holds the state of one run (what a frozen camera shows, what is kept back), so make one for each. Not
    thread-safe.

    Args:
        faults: the schedule.
        stream_kinds: ``image``, ``audio`` or ``vector`` for each stream.

    Raises:
        FaultError: a fault cannot act on its stream.
    """

    def __init__(self, faults: Iterable[Fault], stream_kinds: Mapping[str, str]) -> None:
        self._chains: dict[str, list[tuple[int, Fault, Effect]]] = {stream: [] for stream in stream_kinds}
        for position, fault in enumerate(faults):
            if fault.stream not in stream_kinds:
                raise FaultError(f"stream '{fault.stream}' is not known; use one of {', '.join(stream_kinds)}")
            fault.check_stream(stream_kinds[fault.stream])
            if not fault.is_nothing:
                self._chains[fault.stream].append((position, fault, fault.effect(stream_kinds[fault.stream])))

    def apply(self, stream: str, at_s: float, message: Any, info: Any | None = None) -> list[Delivery]:
        """What becomes of a message that the recording has at ``at_s``: none, one or several, some of them later.

        The message is not changed; what differs is a copy.

        Args:
            message: of rclpy or of rosbags; told apart by its fields.
            info: the ``AudioInfo`` in force, for sound that needs one.

        Raises:
            FaultError: a fault needs what this message does not have.
        """
        passing = [Delivery(at_s, message, info, at_s)]
        for position, fault, effect in self._chains[stream]:
            passing = [after for before in passing for after in self._pass_on(position, fault, effect, before)]
        return passing

    def flush(self) -> list[tuple[str, Delivery]]:
        """(stream, delivery) of what is still kept back, when the recording has ended."""
        return [
            (stream, delivery)
            for stream, chain in self._chains.items()
            for _, _, effect in chain
            for delivery in effect.flush()
        ]

    @staticmethod
    def _pass_on(position: int, fault: Fault, effect: Effect, delivery: Delivery) -> list[Delivery]:
        rng = None
        if fault.covers(fault.stream, delivery.source_s):
            if effect.stamped and headless(delivery.message):
                raise FaultError(
                    f"'{fault.kind}' cannot act on '{fault.stream}': its messages have no stamp; "
                    f"record stamped messages, or leave it out"
                )
            rng = np.random.default_rng(
                [fault.seed, position, zlib.crc32(fault.kind.encode()), round(delivery.source_s * 1e6)]
            )
        try:
            return effect.pass_on(delivery, rng)
        except (DecodeError, UnknownFormatError):
            return [delivery]  # what nobody can read goes on as it is: it is the recording that is broken


def load_faults(path: Path | str, streams: Sequence[str] | Mapping[str, str]) -> tuple[Fault, ...]:
    """Read and validate a faults file against the streams that exist.

    Args:
        streams: their names; a mapping name -> ``image``, ``audio`` or ``vector`` also refuses what cannot act on a
        stream.

    Raises:
        FaultError: not there, not YAML, not a list, or an entry that does not hold.
    """
    path = Path(path)
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    except FileNotFoundError:
        raise FaultError(f"{path}: no such file; name a YAML list of {{stream, kind, start_s, end_s}}") from None
    except OSError as error:
        raise FaultError(
            f"{path}: cannot be read ({error.strerror}); name a YAML list of {{stream, kind, start_s, end_s}}"
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise FaultError(f"{path}: not YAML; write a list of {{stream, kind, start_s, end_s}}") from None
    if not isinstance(entries, list):
        raise FaultError(
            f"{path}: holds {type(entries).__name__} where a list of {{stream, kind, start_s, end_s}} is due"
        )
    faults = []
    for number, entry in enumerate(entries, 1):
        try:
            fault = Fault.model_validate(entry)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"] if part != "options")
            raise FaultError(
                f"{path}: entry {number}{': ' + field if field else ''}: {first['msg'].removeprefix('Value error, ')}"
            ) from None
        if fault.stream not in streams:
            near = get_close_matches(fault.stream, list(streams), 1)
            hint = f"did you mean '{near[0]}'?" if near else f"use one of {', '.join(streams)}"
            raise FaultError(f"{path}: entry {number}: stream '{fault.stream}' is not known; {hint}")
        if isinstance(streams, Mapping):
            try:
                fault.check_stream(streams[fault.stream])
            except FaultError as error:
                raise FaultError(f"{path}: entry {number}: {error}") from None
        faults.append(fault)
    return tuple(faults)
