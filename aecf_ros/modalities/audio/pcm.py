"""PCM sound as numbers and back, channels interleaved, whatever its sample format."""

from __future__ import annotations

import numpy as np

from aecf_ros.core.types import RawAudio
from aecf_ros.modalities.image.decode import PCM, SAMPLE_BYTES, as_bytes

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
    return pcm.read(data[: data.size // pcm.size * pcm.size]).astype(np.float32) / np.float32(pcm.full_scale)


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
