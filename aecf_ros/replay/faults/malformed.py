"""Faults that make a share of the messages unusable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from aecf_ros.modalities.faults import Option
from aecf_ros.modalities.registry import MODALITIES
from aecf_ros.replay.faults.base import SHARE, Delivery, Effect
from aecf_ros.replay.faults.stamps import with_stamp


class Malformed(Effect):
    """A share of the messages arrives in a form that cannot be used, which the kinds of sensors define."""

    OPTIONS = {"share": SHARE}

    @classmethod
    def options_on(cls, fault: str, stream_kind: str) -> Mapping[str, Option] | None:
        return cls.OPTIONS if fault in MODALITIES[stream_kind].malformed else None

    def strike(self, delivery: Delivery, rng: np.random.Generator) -> list[Delivery]:
        return [self.spoil(delivery, rng)] if rng.random() < self.options["share"] else [delivery]

    def spoil(self, delivery: Delivery, rng: np.random.Generator) -> Delivery:
        """A message that cannot be used."""
        spoil = MODALITIES[self.stream_kind].malformed[self.fault]
        message, info = spoil(delivery.message, delivery.info, rng)
        return replace(delivery, message=message, info=info)


class ZeroStamp(Malformed):
    """The driver does not set the stamp."""

    stamped = True

    @classmethod
    def options_on(cls, fault: str, stream_kind: str) -> Mapping[str, Option] | None:
        return cls.OPTIONS

    def spoil(self, delivery: Delivery, rng: np.random.Generator) -> Delivery:
        return replace(delivery, message=with_stamp(delivery.message, 0))
