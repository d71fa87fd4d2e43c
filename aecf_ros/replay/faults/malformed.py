"""Faults of the messages' own form: a share of them cannot be used at all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from aecf_ros.replay.faults.base import AUDIO, BOTH, SHARE, VECTOR, Delivery, Effect
from aecf_ros.replay.faults.message_edit import (
    with_nan,
    with_payload_cut,
    with_random_bytes,
    with_stamp,
    with_wrong_encoding,
    with_wrong_size,
)


class Spoiled(Effect):
    """A share of the messages arrives in a form that cannot be used."""

    OPTIONS = {"share": SHARE}

    def strike(self, delivery: Delivery, rng: np.random.Generator) -> list[Delivery]:
        return [self.spoil(delivery, rng)] if rng.random() < self.options["share"] else [delivery]

    def spoil(self, delivery: Delivery, rng: np.random.Generator) -> Delivery:
        raise NotImplementedError


class Corrupt(Spoiled):
    """The payload breaks off somewhere and a hundredth of the bytes in front of that are wrong."""

    streams = BOTH

    def spoil(self, delivery: Delivery, rng: np.random.Generator) -> Delivery:
        cut = with_payload_cut(delivery.message, delivery.info, rng.uniform(0.1, 0.9))
        return replace(delivery, message=with_random_bytes(cut, 0.01, rng))


class WrongEncoding(Spoiled):
    """The message names an encoding that nobody decodes: ``8UC7``, ``h264``, or ``mp3``."""

    streams = BOTH

    def spoil(self, delivery: Delivery, rng: np.random.Generator) -> Delivery:
        message, info = with_wrong_encoding(delivery.message, delivery.info)
        return replace(delivery, message=message, info=info)


class WrongSize(Spoiled):
    """A picture claims a size that it does not have; sound ends in the middle of a sample; a vector lacks a number."""

    def spoil(self, delivery: Delivery, rng: np.random.Generator) -> Delivery:
        return replace(delivery, message=with_wrong_size(delivery.message, delivery.info))


class NotANumber(Spoiled):
    """Sound becomes 32-bit float with a tenth of its samples NaN, and so do the numbers of a vector."""

    streams = (AUDIO, VECTOR)

    def spoil(self, delivery: Delivery, rng: np.random.Generator) -> Delivery:
        message, info = with_nan(delivery.message, delivery.info, rng)
        return replace(delivery, message=message, info=info)


class ZeroStamp(Spoiled):
    """The driver does not set the stamp."""

    stamped = True

    def spoil(self, delivery: Delivery, rng: np.random.Generator) -> Delivery:
        return replace(delivery, message=with_stamp(delivery.message, 0))
