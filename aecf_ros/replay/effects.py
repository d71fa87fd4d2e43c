"""What each kind of fault does to the messages of one stream: one small class for each, in the mapping ``KINDS``.

An effect is made for one fault and sees every message of its stream in order, with whether the fault is on; it gives the messages that
go on, each with the time of its delivery. Randomness comes from a generator that is seeded by the fault and the position in the
recording, so that a replay and a live run of the same schedule fail alike.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import cv2
import numpy as np

from aecf_ros.core.types import NANOSECONDS
from aecf_ros.replay.wire import (
    edit_picture,
    edit_sound,
    edit_vector,
    stamp_ns,
    with_nan,
    with_payload_cut,
    with_random_bytes,
    with_stamp,
    with_wrong_encoding,
    with_wrong_size,
)

IMAGE, AUDIO, VECTOR = "image", "audio", "vector"
BOTH = (IMAGE, AUDIO)
ALL = (*BOTH, VECTOR)
LAST_SEVERITY = 5


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message to be delivered ``at_s`` seconds into the recording, with the info that describes it (sound only).

    ``source_s`` is where it stands in the recording.
    """

    at_s: float
    message: Any
    info: Any | None
    source_s: float


@dataclass(frozen=True, slots=True)
class Option:
    """A number that says how strong a fault is: its value at severity 1 to 5, the range allowed, the kinds of streams it is for."""

    at_severity: tuple[float, float, float, float, float]
    low: float
    high: float
    streams: tuple[str, ...] = ALL

    def value(self, severity: float) -> float:
        """The value at a severity, interpolated; below 1 it is that of 1."""
        return float(np.interp(severity, range(1, LAST_SEVERITY + 1), self.at_severity))


_SHARE = Option((0.2, 0.4, 0.6, 0.8, 1.0), 0, 1)


class Effect:
    """One fault at work. ``streams`` are the kinds of streams it can act on, ``stamped`` that it needs messages with a stamp.

    Args:
        options: a value for each of ``OPTIONS``.
        stream_kind: ``image``, ``audio`` or ``vector``.
        end_s: when the fault ends.
    """

    streams: ClassVar[tuple[str, ...]] = ALL
    stamped: ClassVar[bool] = False
    OPTIONS: ClassVar[Mapping[str, Option]] = {}

    def __init__(self, options: Mapping[str, float], stream_kind: str, end_s: float) -> None:
        self.options, self.stream_kind, self.end_s = options, stream_kind, end_s

    def pass_on(self, delivery: Delivery, rng: np.random.Generator | None) -> list[Delivery]:
        """What becomes of a message; ``rng`` is ``None`` while the fault is not on. May keep messages back for later calls."""
        return [delivery] if rng is None else self.strike(delivery, rng)

    def strike(self, delivery: Delivery, rng: np.random.Generator) -> list[Delivery]:
        """What becomes of a message while the fault is on."""
        raise NotImplementedError

    def flush(self) -> list[Delivery]:
        """What is still kept back when the recording ends."""
        return []


class Drop(Effect):
    """Messages are lost, each with probability ``share``."""

    OPTIONS = {"share": _SHARE}

    def strike(self, delivery: Delivery, rng: np.random.Generator) -> list[Delivery]:
        return [] if rng.random() < self.options["share"] else [delivery]


class Freeze(Effect):
    """New messages with new stamps carry the content of an older one, which is renewed every ``hold_s``."""

    OPTIONS = {"hold_s": Option((0.25, 0.5, 1.0, 2.0, 1e6), 0, 1e9)}

    def __init__(self, options: Mapping[str, float], stream_kind: str, end_s: float) -> None:
        super().__init__(options, stream_kind, end_s)
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

    def __init__(self, options: Mapping[str, float], stream_kind: str, end_s: float) -> None:
        super().__init__(options, stream_kind, end_s)
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

    def __init__(self, options: Mapping[str, float], stream_kind: str, end_s: float) -> None:
        super().__init__(options, stream_kind, end_s)
        self._credit = 0.0

    def strike(self, delivery: Delivery, rng: np.random.Generator) -> list[Delivery]:
        self._credit += self.options["factor"]
        if self._credit < 1.0 - 1e-9:
            return []
        self._credit -= 1.0
        return [delivery]


class _Content(Effect):
    """Changes what a message shows, sounds like or says. Messages whose content cannot be read go on as they are."""

    def strike(self, delivery: Delivery, rng: np.random.Generator) -> list[Delivery]:
        if self.stream_kind == IMAGE:
            return [replace(delivery, message=edit_picture(delivery.message, lambda image: self.picture(image, rng)))]
        if self.stream_kind == VECTOR:
            return [replace(delivery, message=edit_vector(delivery.message, lambda numbers: self.vector(numbers, rng)))]
        return [replace(delivery, message=edit_sound(delivery.message, delivery.info, lambda samples: self.sound(samples, rng)))]

    def picture(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 ``(H, W, 3)`` to the same."""
        raise NotImplementedError

    def sound(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """float32 ``(n,)`` in [-1, 1] to the same."""
        raise NotImplementedError

    def vector(self, numbers: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """float32 ``(dim,)`` to the same."""
        raise NotImplementedError


class Noise(_Content):
    """White noise: ``sigma_levels`` grey levels of 255 on a picture, or at ``snr_db`` below the usual level of the sound or of the vector itself.

    That level of the sound is the mean power of the stream's chunks that were above -50 dBFS, -26 dBFS before there was one.
    """

    OPTIONS = {"sigma_levels": Option((10, 20, 40, 70, 100), 0, 255, (IMAGE,)), "snr_db": Option((20, 12, 6, 0, -6), -60, 120, (AUDIO, VECTOR))}

    def __init__(self, options: Mapping[str, float], stream_kind: str, end_s: float) -> None:
        super().__init__(options, stream_kind, end_s)
        self._power, self._count = 10**-2.6, 0

    def pass_on(self, delivery: Delivery, rng: np.random.Generator | None) -> list[Delivery]:
        if rng is None and self.stream_kind == AUDIO and self._count < 200:
            edit_sound(delivery.message, delivery.info, self._listen)
        return super().pass_on(delivery, rng)

    def _listen(self, samples: np.ndarray) -> np.ndarray:
        power = float(np.mean(samples**2)) if len(samples) else 0.0
        if power > 1e-5:
            self._count += 1
            self._power += (power - self._power) / self._count
        return samples

    def picture(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        noisy = image + rng.standard_normal(image.shape, np.float32) * np.float32(self.options["sigma_levels"])
        return np.clip(noisy, 0, 255).astype(np.uint8)

    def sound(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        sigma = np.sqrt(self._power * 10 ** (-self.options["snr_db"] / 10))
        return samples + rng.standard_normal(len(samples), np.float32) * np.float32(sigma)

    def vector(self, numbers: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        sigma = np.sqrt(np.mean(np.square(numbers)) * 10 ** (-self.options["snr_db"] / 10))
        return numbers + rng.standard_normal(len(numbers), np.float32) * np.float32(sigma)


class Blur(_Content):
    """The lens is out of focus: a Gaussian of ``sigma_percent`` of the width of the picture."""

    streams = (IMAGE,)
    OPTIONS = {"sigma_percent": Option((0.4, 0.8, 1.5, 2.5, 4.0), 0, 50, (IMAGE,))}

    def picture(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        sigma_px = self.options["sigma_percent"] / 100 * image.shape[1]
        return cv2.GaussianBlur(image, (0, 0), sigma_px) if sigma_px > 0 else image


class Dark(_Content):
    """The light goes out: every pixel times ``gain``."""

    streams = (IMAGE,)
    OPTIONS = {"gain": Option((0.5, 0.3, 0.15, 0.08, 0.03), 0, 1, (IMAGE,))}

    def picture(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.round(image * np.float32(self.options["gain"])).astype(np.uint8)


class Silence(_Content):
    """The microphone is muted: sound ``attenuation_db`` weaker, above the converter's own noise at ``floor_dbfs``.

    A floor of -100 dBFS is none: the samples then become all zero, as of a source that was switched off.
    """

    streams = (AUDIO,)
    OPTIONS = {"attenuation_db": Option((10, 20, 30, 45, 70), 0, 200, (AUDIO,)), "floor_dbfs": Option((-86,) * 5, -100, 0, (AUDIO,))}

    def sound(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        floor_dbfs = self.options["floor_dbfs"]
        sigma = 0.0 if floor_dbfs <= -100 else 10 ** (floor_dbfs / 20)
        return samples * np.float32(10 ** (-self.options["attenuation_db"] / 20)) + rng.standard_normal(len(samples), np.float32) * np.float32(sigma)


class Clip(_Content):
    """The gain is ``gain_db`` too high: sound is cut off at full scale, a picture is overexposed."""

    streams = BOTH
    OPTIONS = {"gain_db": Option((6, 12, 18, 24, 36), 0, 120)}

    def picture(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.minimum(image * np.float32(10 ** (self.options["gain_db"] / 20)), 255).astype(np.uint8)

    def sound(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.clip(samples * np.float32(10 ** (self.options["gain_db"] / 20)), -1, 1)


class _Spoiled(Effect):
    """A share of the messages arrives in a form that cannot be used."""

    OPTIONS = {"share": _SHARE}

    def strike(self, delivery: Delivery, rng: np.random.Generator) -> list[Delivery]:
        return [self.spoil(delivery, rng)] if rng.random() < self.options["share"] else [delivery]

    def spoil(self, delivery: Delivery, rng: np.random.Generator) -> Delivery:
        raise NotImplementedError


class Corrupt(_Spoiled):
    """The payload breaks off somewhere and a hundredth of the bytes in front of that are wrong."""

    streams = BOTH

    def spoil(self, delivery: Delivery, rng: np.random.Generator) -> Delivery:
        cut = with_payload_cut(delivery.message, delivery.info, rng.uniform(0.1, 0.9))
        return replace(delivery, message=with_random_bytes(cut, 0.01, rng))


class WrongEncoding(_Spoiled):
    """The message names an encoding that nobody decodes: ``8UC7``, ``h264``, or ``mp3``."""

    streams = BOTH

    def spoil(self, delivery: Delivery, rng: np.random.Generator) -> Delivery:
        message, info = with_wrong_encoding(delivery.message, delivery.info)
        return replace(delivery, message=message, info=info)


class WrongSize(_Spoiled):
    """A picture claims a size that it does not have; sound ends in the middle of a sample; a vector lacks a number."""

    def spoil(self, delivery: Delivery, rng: np.random.Generator) -> Delivery:
        return replace(delivery, message=with_wrong_size(delivery.message, delivery.info))


class NotANumber(_Spoiled):
    """Sound becomes 32-bit float with a tenth of its samples NaN, and so do the numbers of a vector."""

    streams = (AUDIO, VECTOR)

    def spoil(self, delivery: Delivery, rng: np.random.Generator) -> Delivery:
        message, info = with_nan(delivery.message, delivery.info, rng)
        return replace(delivery, message=message, info=info)


class ClockJump(Effect):
    """Stamps are ``offset_s`` off: ahead of time where it is positive."""

    stamped = True
    OPTIONS = {"offset_s": Option((0.25, 1, 5, 60, 3600), -1e9, 1e9)}

    def strike(self, delivery: Delivery, rng: np.random.Generator) -> list[Delivery]:
        stamp = stamp_ns(delivery.message) or 0
        return [replace(delivery, message=with_stamp(delivery.message, max(0, stamp + round(self.options["offset_s"] * NANOSECONDS))))]


class ZeroStamp(_Spoiled):
    """The driver does not set the stamp."""

    stamped = True

    def spoil(self, delivery: Delivery, rng: np.random.Generator) -> Delivery:
        return replace(delivery, message=with_stamp(delivery.message, 0))


class OutOfOrder(Effect):
    """A share of the messages arrives right behind the one that followed it."""

    OPTIONS = {"share": _SHARE}

    def __init__(self, options: Mapping[str, float], stream_kind: str, end_s: float) -> None:
        super().__init__(options, stream_kind, end_s)
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


KINDS: Mapping[str, Callable[..., Effect]] = {
    "drop": Drop, "freeze": Freeze, "delay": Delay, "jitter": Jitter, "rate": Rate, "noise": Noise, "blur": Blur, "dark": Dark, "silence": Silence,
    "clip": Clip, "corrupt": Corrupt, "wrong_encoding": WrongEncoding, "wrong_size": WrongSize, "nan": NotANumber, "clock_jump": ClockJump,
    "zero_stamp": ZeroStamp, "out_of_order": OutOfOrder}
"""Every kind of fault by its name in a faults file."""
