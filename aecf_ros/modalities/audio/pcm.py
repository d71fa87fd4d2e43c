"""PCM as numbers and back: decoding to float32 mono, and editing with channels interleaved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from aecf_ros.core.types import AudioChunk, RawAudio
from aecf_ros.modalities.messages import DecodeError, as_bytes

MAX_AUDIO_S = 10.0


@dataclass(frozen=True, slots=True)
class Pcm:
    """Bytes of one sample, how a flat uint8 array of them is read, and the value that is full scale."""

    size: int
    read: Callable[[np.ndarray], np.ndarray]
    full_scale: float


def _as_type(dtype: str) -> Callable[[np.ndarray], np.ndarray]:
    return lambda data: data.view(dtype)


def _as_int24(most_significant: int) -> Callable[[np.ndarray], np.ndarray]:
    def read(data: np.ndarray) -> np.ndarray:
        octets = data.reshape(-1, 3)[:, :: 1 if most_significant == 2 else -1]
        wide = np.zeros((len(octets), 4), np.uint8)
        wide[:, 1:] = octets  # in the upper three bytes, so that the sign is right
        return wide.view("<i4")[:, 0]

    return read


PCM: dict[str, Pcm] = {
    "U8": Pcm(1, lambda data: data.astype(np.int16) - 128, 2.0**7),
    "S8": Pcm(1, _as_type("i1"), 2.0**7),
    "S16LE": Pcm(2, _as_type("<i2"), 2.0**15),
    "S16BE": Pcm(2, _as_type(">i2"), 2.0**15),
    "S24LE": Pcm(3, _as_int24(most_significant=2), 2.0**31),
    "S24BE": Pcm(3, _as_int24(most_significant=0), 2.0**31),
    "S32LE": Pcm(4, _as_type("<i4"), 2.0**31),
    "S32BE": Pcm(4, _as_type(">i4"), 2.0**31),
    "F32LE": Pcm(4, _as_type("<f4"), 1.0),
    "F32BE": Pcm(4, _as_type(">f4"), 1.0),
}
"""By sample format: GStreamer's names, which ``AudioInfo.sample_format`` uses. S24 is packed in three bytes."""

SAMPLE_BYTES = {name: pcm.size for name, pcm in PCM.items()}
"""Bytes of one sample of one channel, by sample format."""


def decode_audio(raw: RawAudio) -> AudioChunk:
    """Decode interleaved PCM to mono by averaging the channels.

    Returns:
        A chunk of float32 ``(samples,)`` in [-1, 1].

    Raises:
        DecodeError: coded audio, unknown format, zero rate or channels, empty or ragged data, NaN, or more than
            ``MAX_AUDIO_S`` seconds in one message.
    """
    if raw.coding not in ("wave", "pcm", "raw", ""):
        raise DecodeError(
            f"audio is coded as {raw.coding[:20]!r}; set the publisher's 'format' parameter to 'wave' "
            f"(audio_capture: format:=wave)"
        )
    if raw.sample_format not in PCM:
        raise DecodeError(f"sample format {raw.sample_format[:20]!r} is not supported; publish one of {', '.join(PCM)}")
    if not 1 <= raw.rate_hz <= 384_000:
        raise DecodeError(f"sample rate {raw.rate_hz} Hz is out of bounds; check audio_info of the publisher")
    if not 1 <= raw.channels <= 64:
        raise DecodeError(f"{raw.channels} channels is out of bounds; check audio_info of the publisher")
    pcm = PCM[raw.sample_format]
    data = as_bytes(raw.data)
    block = pcm.size * raw.channels
    if data.size == 0:
        raise DecodeError("audio data is empty; check the audio driver")
    if data.size % block:
        raise DecodeError(
            f"{data.size} bytes of {raw.sample_format} with {raw.channels} channel(s) is not a whole "
            f"number of {block}-byte samples; "
            "check audio_info against the publisher"
        )
    if data.size // block > MAX_AUDIO_S * raw.rate_hz:
        raise DecodeError(
            f"one message holds {data.size // block / raw.rate_hz:.0f} s of audio, more than "
            f"{MAX_AUDIO_S:.0f} s; publish smaller chunks"
        )
    with np.errstate(all="ignore"):  # NaN and overflow are looked for below
        samples = pcm.read(data).astype(np.float32).reshape(-1, raw.channels).mean(axis=1, dtype=np.float32)
        samples *= np.float32(1.0 / pcm.full_scale)
    if not np.isfinite(samples).all():
        raise DecodeError("audio holds NaN or infinite samples; check the audio driver")
    return AudioChunk(raw.stamp_ns, raw.received_ns, raw.rate_hz, np.clip(samples, -1.0, 1.0))


_WRITTEN = {
    "U8": "u1",
    "S8": "i1",
    "S16LE": "<i2",
    "S16BE": ">i2",
    "S32LE": "<i4",
    "S32BE": ">i4",
    "F32LE": "<f4",
    "F32BE": ">f4",
}


def samples_of(raw: RawAudio) -> np.ndarray:
    """float32 ``(n,)`` in [-1, 1], channels interleaved; what is no whole sample at the end is left out."""
    pcm, data = PCM[raw.sample_format], as_bytes(raw.data)
    samples: np.ndarray = pcm.read(data[: data.size // pcm.size * pcm.size]).astype(np.float32)
    return np.asarray(samples / np.float32(pcm.full_scale))


def octets_of(samples: np.ndarray, sample_format: str) -> np.ndarray:
    """The flat uint8 data of float ``(n,)``, cut off at full scale."""
    if sample_format in ("F32LE", "F32BE"):
        return samples.astype(_WRITTEN[sample_format]).view(np.uint8)
    bits = 8 * SAMPLE_BYTES[sample_format]
    scaled = np.clip(
        np.round(samples.astype(np.float64) * 2.0 ** (bits - 1)), -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1
    ).astype(np.int64)
    if bits == 24:
        octets = scaled.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3]
        return np.ascontiguousarray(octets if sample_format == "S24LE" else octets[:, ::-1]).ravel()
    return (scaled + (128 if sample_format == "U8" else 0)).astype(_WRITTEN[sample_format]).view(np.uint8)
