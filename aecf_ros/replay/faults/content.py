"""Faults of what a sensor sees or hears: messages that can be used, and show less."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import cv2
import numpy as np

from aecf_ros.replay.faults.base import AUDIO, BOTH, IMAGE, VECTOR, Delivery, Effect, Option
from aecf_ros.replay.faults.message_edit import edit_picture, edit_sound, edit_vector


class Content(Effect):
    """Changes what a message shows, sounds like or says. Messages whose content cannot be read go on as they are."""

    def strike(self, delivery: Delivery, rng: np.random.Generator) -> list[Delivery]:
        if self.stream_kind == IMAGE:
            return [replace(delivery, message=edit_picture(delivery.message, lambda image: self.picture(image, rng)))]
        if self.stream_kind == VECTOR:
            return [replace(delivery, message=edit_vector(delivery.message, lambda numbers: self.vector(numbers, rng)))]
        return [
            replace(
                delivery, message=edit_sound(delivery.message, delivery.info, lambda samples: self.sound(samples, rng))
            )
        ]

    def picture(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 ``(H, W, 3)`` to the same."""
        raise NotImplementedError

    def sound(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """float32 ``(n,)`` in [-1, 1] to the same."""
        raise NotImplementedError

    def vector(self, numbers: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """float32 ``(dim,)`` to the same."""
        raise NotImplementedError


class Noise(Content):
    """White noise: ``sigma_levels`` grey levels of 255 on a picture, or at ``snr_db`` below the usual level of the sound or of the vector itself.

    That level of the sound is the mean power of the stream's chunks that were above -50 dBFS, -26 dBFS before there was one.
    """

    OPTIONS = {
        "sigma_levels": Option((10, 20, 40, 70, 100), 0, 255, (IMAGE,)),
        "snr_db": Option((20, 12, 6, 0, -6), -60, 120, (AUDIO, VECTOR)),
    }

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


class Blur(Content):
    """The lens is out of focus: a Gaussian of ``sigma_percent`` of the width of the picture."""

    streams = (IMAGE,)
    OPTIONS = {"sigma_percent": Option((0.4, 0.8, 1.5, 2.5, 4.0), 0, 50, (IMAGE,))}

    def picture(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        sigma_px = self.options["sigma_percent"] / 100 * image.shape[1]
        return cv2.GaussianBlur(image, (0, 0), sigma_px) if sigma_px > 0 else image


class Dark(Content):
    """The light goes out: every pixel times ``gain``."""

    streams = (IMAGE,)
    OPTIONS = {"gain": Option((0.5, 0.3, 0.15, 0.08, 0.03), 0, 1, (IMAGE,))}

    def picture(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.round(image * np.float32(self.options["gain"])).astype(np.uint8)


class Silence(Content):
    """The microphone is muted: sound ``attenuation_db`` weaker, above the converter's own noise at ``floor_dbfs``.

    A floor of -100 dBFS is none: the samples then become all zero, as of a source that was switched off.
    """

    streams = (AUDIO,)
    OPTIONS = {
        "attenuation_db": Option((10, 20, 30, 45, 70), 0, 200, (AUDIO,)),
        "floor_dbfs": Option((-86,) * 5, -100, 0, (AUDIO,)),
    }

    def sound(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        floor_dbfs = self.options["floor_dbfs"]
        sigma = 0.0 if floor_dbfs <= -100 else 10 ** (floor_dbfs / 20)
        return samples * np.float32(10 ** (-self.options["attenuation_db"] / 20)) + rng.standard_normal(
            len(samples), np.float32
        ) * np.float32(sigma)


class Clip(Content):
    """The gain is ``gain_db`` too high: sound is cut off at full scale, a picture is overexposed."""

    streams = BOTH
    OPTIONS = {"gain_db": Option((6, 12, 18, 24, 36), 0, 120)}

    def picture(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.minimum(image * np.float32(10 ** (self.options["gain_db"] / 20)), 255).astype(np.uint8)

    def sound(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.clip(samples * np.float32(10 ** (self.options["gain_db"] / 20)), -1, 1)
