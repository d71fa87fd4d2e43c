"""Faults of transport and of clocks: which messages come, when, in which order, and with which stamp."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from aecf_ros.core.types import NANOSECONDS
from aecf_ros.modalities.faults import Option
from aecf_ros.replay.faults.base import SHARE, Delivery, Effect
from aecf_ros.replay.faults.stamps import stamp_ns, with_stamp


class Drop(Effect):
    """Messages are lost, each with probability ``share``."""

    OPTIONS = {"share": SHARE}

    def strike(self, delivery: Delivery, rng: np.random.Generator) -> list[Delivery]:
        return [] if rng.random() < self.options["share"] else [delivery]


class Freeze(Effect):
    """New messages with new stamps carry the content of an older one, which is renewed every ``hold_s``."""

    OPTIONS = {"hold_s": Option((0.25, 0.5, 1.0, 2.0, 1e6), 0, 1e9)}

    def __init__(self, fault: str, options: Mapping[str, float], stream_kind: str, end_s: float) -> None:
        super().__init__(fault, options, stream_kind, end_s)
        self._held: tuple[float | None, Delivery] | None = None

    def pass_on(self, delivery: Delivery, rng: np.random.Generator | None) -> list[Delivery]:
        if rng is None or self._held is None:
            self._held = (None if rng is None else delivery.source_s, delivery)
            return [delivery]
        since_s, held = self._held
        if since_s is None:
            since_s = delivery.source_s
            self._held = (since_s, held)
        if delivery.source_s - since_s >= self.options["hold_s"]:
            self._held = (delivery.source_s, delivery)
            return [delivery]
        stamp = stamp_ns(delivery.message)
        message = held.message if stamp is None else with_stamp(held.message, stamp)
        return [replace(delivery, message=message, info=held.info)]


class Delay(Effect):
    """Messages arrive ``delay_s`` later, with the stamps they had; what is on its way arrives when the fault ends."""

    OPTIONS = {"delay_s": Option((0.1, 0.25, 0.5, 1.0, 2.0), 0, 3600)}

    def strike(self, delivery: Delivery, rng: np.random.Generator) -> list[Delivery]:
        return [replace(delivery, at_s=min(delivery.at_s + self._transit_s(rng), max(delivery.at_s, self.end_s)))]

    def _transit_s(self, rng: np.random.Generator) -> float:
        return self.options["delay_s"]


class Jitter(Delay):
    """Each message arrives later by a uniform 0 to ``jitter_s``, and never before the one in front of it."""

    OPTIONS = {"jitter_s": Option((0.02, 0.05, 0.1, 0.2, 0.4), 0, 3600)}

    def __init__(self, fault: str, options: Mapping[str, float], stream_kind: str, end_s: float) -> None:
        super().__init__(fault, options, stream_kind, end_s)
        self._last_s = 0.0

    def strike(self, delivery: Delivery, rng: np.random.Generator) -> list[Delivery]:
        (late,) = super().strike(delivery, rng)
        self._last_s = max(self._last_s, late.at_s)
        return [replace(late, at_s=self._last_s)]

    def _transit_s(self, rng: np.random.Generator) -> float:
        return rng.random() * self.options["jitter_s"]


class Rate(Effect):
    """Only a share ``factor`` of the messages is sent, evenly spread: a sensor that has become slow."""

    OPTIONS = {"factor": Option((0.8, 0.6, 0.4, 0.2, 0.1), 0.001, 1)}

    def __init__(self, fault: str, options: Mapping[str, float], stream_kind: str, end_s: float) -> None:
        super().__init__(fault, options, stream_kind, end_s)
        self._credit = 0.0

    def strike(self, delivery: Delivery, rng: np.random.Generator) -> list[Delivery]:
        self._credit += self.options["factor"]
        if self._credit < 1.0 - 1e-9:
            return []
        self._credit -= 1.0
        return [delivery]


class OutOfOrder(Effect):
    """A share of the messages arrives right behind the one that followed it."""

    OPTIONS = {"share": SHARE}

    def __init__(self, fault: str, options: Mapping[str, float], stream_kind: str, end_s: float) -> None:
        super().__init__(fault, options, stream_kind, end_s)
        self._held: Delivery | None = None

    def pass_on(self, delivery: Delivery, rng: np.random.Generator | None) -> list[Delivery]:
        if self._held is not None:
            held, self._held = self._held, None
            return [delivery, replace(held, at_s=max(held.at_s, delivery.at_s))]
        if rng is not None and rng.random() < self.options["share"]:
            self._held = delivery
            return []
        return [delivery]

    def flush(self) -> list[Delivery]:
        held, self._held = self._held, None
        return [] if held is None else [held]


class ClockJump(Effect):
    """Stamps are ``offset_s`` off: ahead of time where it is positive."""

    stamped = True
    OPTIONS = {"offset_s": Option((0.25, 1, 5, 60, 3600), -1e9, 1e9)}

    def strike(self, delivery: Delivery, rng: np.random.Generator) -> list[Delivery]:
        stamp = stamp_ns(delivery.message) or 0
        return [
            replace(
                delivery,
                message=with_stamp(delivery.message, max(0, stamp + round(self.options["offset_s"] * NANOSECONDS))),
            )
        ]
