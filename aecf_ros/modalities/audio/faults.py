"""Faults of a microphone: sound that says less, and messages that cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from aecf_ros.core.types import RawAudio
from aecf_ros.modalities.audio.messages import PORTAUDIO_FIELDS, read_audio
from aecf_ros.modalities.audio.pcm import SAMPLE_BYTES, octets_of, samples_of
from aecf_ros.modalities.faults import ContentFault, Malform, Option
from aecf_ros.modalities.messages import UnknownFormatError, as_bytes, copy_with, in_container_of, overwritten

_FIELD_DTYPES = {
    "float32_data": "<f4",
    "int32_data": "<i4",
    "int16_data": "<i2",
    "int8_data": "i1",
    "uint8_data": "u1",
}
_LEARNED_CHUNKS = 200


class Noise(ContentFault):
    """White noise at ``snr_db`` below the usual level of the sound.

    That level is the mean power of the stream's chunks that were above -50 dBFS, -26 dBFS before there was one.
    """

    OPTIONS: ClassVar = {"snr_db": Option((20, 12, 6, 0, -6), -60, 120)}

    def __init__(self, options: Mapping[str, float]) -> None:
        super().__init__(options)
        self._power, self._count = 10**-2.6, 0

    def learns(self) -> bool:
        return self._count < _LEARNED_CHUNKS

    def learn(self, content: np.ndarray) -> None:
        power = float(np.mean(content**2)) if len(content) else 0.0
        if power > 1e-5:
            self._count += 1
            self._power += (power - self._power) / self._count

    def change(self, content: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        sigma = np.sqrt(self._power * 10 ** (-self.options["snr_db"] / 10))
        return np.asarray(content + rng.standard_normal(len(content), np.float32) * np.float32(sigma))


class Silence(ContentFault):
    """The microphone is muted: sound ``attenuation_db`` weaker, above the converter's own noise at ``floor_dbfs``.

    A floor of -100 dBFS is none: the samples then become all zero, as of a source that was switched off.
    """

    OPTIONS: ClassVar = {
        "attenuation_db": Option((10, 20, 30, 45, 70), 0, 200),
        "floor_dbfs": Option((-86,) * 5, -100, 0),
    }

    def change(self, content: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        floor_dbfs = self.options["floor_dbfs"]
        sigma = 0.0 if floor_dbfs <= -100 else 10 ** (floor_dbfs / 20)
        weaker = content * np.float32(10 ** (-self.options["attenuation_db"] / 20))
        return np.asarray(weaker + rng.standard_normal(len(content), np.float32) * np.float32(sigma))


class Clip(ContentFault):
    """The gain is ``gain_db`` too high: sound is cut off at full scale."""

    OPTIONS: ClassVar = {"gain_db": Option((6, 12, 18, 24, 36), 0, 120)}

    def change(self, content: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.asarray(np.clip(content * np.float32(10 ** (self.options["gain_db"] / 20)), -1, 1))


CONTENT_FAULTS: Mapping[str, type[ContentFault]] = {"noise": Noise, "silence": Silence, "clip": Clip}


def sound_of(message: Any, info: Any | None) -> RawAudio:
    """The record of any audio message; its times mean nothing.

    Raises:
        UnknownFormatError: there is no info where one is needed, or it names a format that cannot be edited.
    """
    raw = read_audio(message, info, 0)
    if raw.sample_format not in SAMPLE_BYTES or raw.coding not in ("wave", "pcm", "raw", ""):
        raise UnknownFormatError(f"sound as {raw.sample_format} {raw.coding} cannot be edited; record it as S16LE")
    return raw


def edit_audio(message: Any, info: Any | None, change: Callable[[np.ndarray], np.ndarray]) -> Any:
    """A copy with ``change`` done to the samples, float32 ``(n,)`` in [-1, 1] with channels interleaved, in the same
    format.

    Raises:
        UnknownFormatError: nothing says how to read the sound.
    """
    raw = sound_of(message, info)
    return _with_data(message, octets_of(change(samples_of(raw)), raw.sample_format))


def cut(message: Any, info: Any | None, rng: np.random.Generator) -> tuple[Any, Any]:
    """The payload breaks off in the middle of a sample, and a hundredth of the bytes in front of that are wrong."""
    message = _cut(message, info, rng.uniform(0.1, 0.9))
    inner = message if hasattr(message, "data") else message.audio
    if not hasattr(inner, "data"):  # typed samples are left as they are
        return message, info
    return _with_data(message, overwritten(as_bytes(inner.data), 0.01, rng)), info


def _cut(message: Any, info: Any | None, keep: float) -> Any:
    """The first share ``keep`` of the payload; never a whole number of samples."""
    inner = getattr(message, "audio", message)
    if hasattr(inner, "audio_data"):  # typed samples cannot be cut in two
        return _with_data(message, as_bytes(read_audio(message, info, 0).data)[:0])
    data = as_bytes(inner.data)
    raw = read_audio(message, info, 0) if info is not None or hasattr(message, "sample_rate") else None
    block = 2 if raw is None else SAMPLE_BYTES.get(raw.sample_format, 1) * max(1, raw.channels)
    return _with_data(message, data[:0] if block == 1 else data[: max(0, int(keep * data.size) // block * block - 1)])


def nan(message: Any, info: Any | None, rng: np.random.Generator) -> tuple[Any, Any]:
    """The sound as F32LE with a tenth of its samples NaN, and the info that says so."""
    raw = sound_of(message, info)
    samples = samples_of(raw)
    samples[rng.random(len(samples)) < 0.1] = np.nan
    samples[:1] = np.nan
    octets = samples.astype("<f4").view(np.uint8)
    if hasattr(message, "audio") and hasattr(message.audio, "audio_data"):
        inner = message.audio
        empty = type(inner.audio_data)(
            **{
                f: in_container_of(getattr(inner.audio_data, f), samples if f == "float32_data" else np.zeros(0, d))
                for f, d in _FIELD_DTYPES.items()
            }
        )
        return copy_with(message, audio=copy_with(inner, audio_data=empty, info=copy_with(inner.info, format=1))), info
    if hasattr(message, "sample_rate"):
        return copy_with(_with_data(message, octets), format="pcm-f32"), info
    return _with_data(message, octets), copy_with(info, sample_format="F32LE")


def wrong_encoding(message: Any, info: Any | None, rng: np.random.Generator) -> tuple[Any, Any]:
    """The message, or the info beside it, names an encoding that nothing decodes.

    Raises:
        UnknownFormatError: the message carries no encoding and there is no info to change.
    """
    if hasattr(message, "sample_rate"):
        return copy_with(message, format="mp3"), info
    if hasattr(message, "audio") and hasattr(message.audio, "audio_data"):
        return copy_with(message, audio=copy_with(message.audio, info=copy_with(message.audio.info, format=0))), info
    if info is None:
        raise UnknownFormatError("the sound has no info whose coding could be changed")
    return message, copy_with(info, coding_format="mp3")


def wrong_size(message: Any, info: Any | None, rng: np.random.Generator) -> tuple[Any, Any]:
    """Sound that ends in the middle of a sample."""
    return _cut(message, info, 1.0), info


MALFORMED: Mapping[str, Malform] = {
    "corrupt": cut,
    "wrong_encoding": wrong_encoding,
    "wrong_size": wrong_size,
    "nan": nan,
}


def _with_data(message: Any, data: np.ndarray) -> Any:
    """A copy with another flat uint8 payload; for ``AudioStamped`` the payload of the format it is in."""
    if hasattr(message, "data"):
        return copy_with(message, data=in_container_of(message.data, data))
    audio = message.audio
    if hasattr(audio, "data"):
        return copy_with(message, audio=copy_with(audio, data=in_container_of(audio.data, data)))
    _, field = PORTAUDIO_FIELDS[audio.info.format]
    old = getattr(audio.audio_data, field)
    typed = data.view(_FIELD_DTYPES[field])
    return copy_with(
        message, audio=copy_with(audio, audio_data=copy_with(audio.audio_data, **{field: in_container_of(old, typed)}))
    )
