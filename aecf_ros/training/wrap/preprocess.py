"""The preprocessing of an encoder: from a robot's pixels or samples to the input that the encoder was trained on."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from onnx import ModelProto, TensorProto, helper

from aecf_ros.training.features.encoders import mel_filters
from aecf_ros.training.wrap.graph import Chain, Encoder
from aecf_ros.training.wrap.infer_spec import batch
from aecf_ros.training.wrap.spec import AudioEncoder, ImageEncoder, LogMel, Patch

WINDOWS: dict[str, Callable[..., torch.Tensor]] = {
    "hann": torch.hann_window,
    "hamming": torch.hamming_window,
    "blackman": torch.blackman_window,
    "rectangular": lambda window, periodic, dtype: torch.ones(window, dtype=dtype),
}


def preprocessing(encoder: Encoder, spec: ImageEncoder | AudioEncoder) -> ModelProto:
    """The preprocessing as a model, to the encoder's input.

    It takes ``image`` uint8 (B, height, width, 3) RGB or ``samples`` float32 (B, N) in [-1, 1].

    Args:
        spec: complete, from :func:`infer_spec`.
    """
    chain = Chain("before")
    dims = ["batch" if batch(encoder, spec) is None else 1]
    if isinstance(spec, ImageEncoder):
        source = helper.make_tensor_value_info("image", TensorProto.UINT8, [*dims, spec.height, spec.width, 3])
        made = pixels(chain, "image", spec)
    else:
        source = helper.make_tensor_value_info("samples", TensorProto.FLOAT, [*dims, spec.samples])
        made = (
            waveform(chain, "samples", spec, len(encoder.dims))
            if spec.log_mel is None
            else log_mel(chain, "samples", spec, spec.log_mel)
        )
    made = chain("Cast", made, to=encoder.dtype)
    # Axes stay unnamed: the encoder may name its batch axis, and a patch is a sample of its own.
    return chain.model(
        source, helper.make_tensor_value_info(made, encoder.dtype, [None] * len(encoder.dims)), encoder.model
    )


def pixels(chain: Chain, image: str, spec: ImageEncoder) -> str:
    """(pixel / scale - mean) / std as float32; the uint8 pixels where that changes nothing."""
    axis = 3
    if spec.layout == "nchw":
        image, axis = chain("Transpose", image, perm=[0, 3, 1, 2]), 1
    if spec.color == "bgr":
        image = chain("Gather", image, np.array([2, 1, 0], np.int64), axis=axis)
    mean, std = np.array(spec.mean), np.array(spec.std)
    factor, offset = 1.0 / (spec.scale * std), -mean / std
    if (factor == 1).all() and (offset == 0).all():
        return image
    shape = (3, 1, 1) if axis == 1 else (3,)
    x = chain("Cast", image, to=TensorProto.FLOAT)
    x = chain("Mul", x, factor.astype(np.float32).reshape(shape))
    return chain("Add", x, offset.astype(np.float32).reshape(shape))


def waveform(chain: Chain, samples: str, spec: AudioEncoder, rank: int) -> str:
    """Samples at the encoder's full scale, (N,), (B, N) or (B, 1, N)."""
    x = samples if spec.full_scale == 1 else chain("Mul", samples, np.array(spec.full_scale, np.float32))
    return x if rank == 2 else chain.reshape(x, *([-1] if rank == 1 else [-1, 1, spec.samples]))


def log_mel(chain: Chain, samples: str, spec: AudioEncoder, mel: LogMel) -> str:
    """The log-mel spectrogram of ``spec``, in its layout; each patch a sample."""
    assert mel.layout is not None
    frames = mel.frames(spec.samples)
    filters = mel_filters(
        spec.rate_hz,
        mel.n_fft,
        mel.mels,
        mel.fmin,
        mel.fmax or spec.rate_hz / 2,
        mel.mel_scale,
        mel.mel_norm,
        mel.triangles,
    ).numpy()
    used = np.asarray(filters.any(axis=0))
    used[0] |= not used.any()
    spectrum = _spectrum(chain, samples, spec, mel, frames, np.flatnonzero(used))
    x = _logarithm(chain, chain("MatMul", spectrum, filters[:, used].T), mel, frames)  # (B, frames, mels)
    if mel.patch:
        x, frames = _patches(chain, x, mel.mels, mel.patch, frames), mel.patch.frames
    axes = "bfm"
    if mel.layout.replace("1", "") == "bmf":
        x, axes = chain("Transpose", x, perm=[0, 2, 1]), "bmf"
    if mel.layout != axes:
        x = chain.reshape(x, *({"b": -1, "1": 1, "m": mel.mels, "f": frames}[axis] for axis in mel.layout))
    return x


def _spectrum(chain: Chain, samples: str, spec: AudioEncoder, mel: LogMel, frames: int, bins: np.ndarray) -> str:
    """Magnitudes or powers of some bins: (B, frames, bins).

    A window is even about its middle, and power does not depend on the origin of time. Therefore the first half of each
    frame is folded onto the second: cosines take the sums and sines the differences, half as many of each.
    """
    x, length = samples, spec.samples
    if mel.preemphasis:
        x, length = (
            chain("Conv", chain.reshape(x, -1, 1, length), np.array([[[-mel.preemphasis, 1.0]]], np.float32)),
            length - 1,
        )
        x = chain.reshape(x, -1, length)
    x = chain("Pad", x, np.array([0, 0, 0, 1], np.int64))  # sample number `length` is zero
    window = mel.window_samples
    taper = WINDOWS[mel.window_function](window, periodic=mel.periodic, dtype=torch.float64).numpy() * spec.full_scale
    mirror = window if mel.periodic else window - 1
    later_half = np.array([n for n in range(window) if 2 * n >= mirror or mirror - n >= window])
    earlier_half = mirror - later_half
    # Offset of the window in its frame, and of the first frame before the sound.
    first = (mel.frame_samples - window) // 2 - (mel.frame_samples // 2 if mel.center else 0)
    starts = first + mel.hop * np.arange(frames)[:, None]
    unpaired = (earlier_half == later_half) | (earlier_half >= window)
    at_later = _position(starts + later_half, length, mel.padding)
    at_earlier = np.where(unpaired, length, _position(starts + earlier_half, length, mel.padding))
    later = chain("Gather", x, at_later.astype(np.int32), axis=1)  # (B, frames, half a window)
    earlier = chain("Gather", x, at_earlier.astype(np.int32), axis=1)
    phase = 2 * np.pi / mel.n_fft * (later_half - mirror / 2)[:, None] * bins
    cosines = chain(
        "MatMul", chain("Add", later, earlier), (taper[later_half, None] * np.cos(phase)).astype(np.float32)
    )
    sines = chain("MatMul", chain("Sub", later, earlier), (taper[later_half, None] * np.sin(phase)).astype(np.float32))
    power = chain("Add", chain("Mul", cosines, cosines), chain("Mul", sines, sines))
    return power if mel.power == 2 else chain("Sqrt", power)


def _position(at: np.ndarray, length: int, padding: str) -> np.ndarray:
    """Index of the sample to take for one that may be outside the sound; ``length`` is that of a zero."""
    if padding == "constant":
        return np.where((at < 0) | (at >= length), length, at)
    return np.where(at >= length, 2 * (length - 1) - at, np.abs(at))


def _logarithm(chain: Chain, x: str, mel: LogMel, frames: int) -> str:
    decade = {"ln": math.log(10), "log10": 1.0, "db": 20.0 / mel.power}[mel.log]
    per_nat, nats_per_db = decade / math.log(10), math.log(10) * mel.power / 20
    offset = 0.0
    if mel.floor_by == "clamp":
        x = chain("Max", x, np.array(mel.floor, np.float32))
    else:
        # Not x + floor: ONNX optimizers take the addition of so small a number for none and remove it.
        x = chain("Add", chain("Mul", x, np.array(1.0 / mel.floor, np.float32)), np.array(1.0, np.float32))
        offset = math.log(mel.floor)
    x = chain("Log", x)
    if mel.top_db is not None:
        loudest = chain("GlobalMaxPool", chain.reshape(x, -1, 1, frames, mel.mels))  # (B, 1, 1, 1)
        least = chain("Sub", chain.reshape(loudest, -1, 1, 1), np.array(mel.top_db * nats_per_db, np.float32))
        x = chain("Max", x, least)
    factor, added = per_nat / np.array(mel.std), (offset * per_nat - np.array(mel.mean)) / np.array(mel.std)
    if (factor != 1).any():
        x = chain("Mul", x, factor.astype(np.float32))
    return x if (added == 0).all() else chain("Add", x, added.astype(np.float32))


def _patches(chain: Chain, x: str, mels: int, patch: Patch, frames: int) -> str:
    """(B, frames, mels) -> (B * patches, patch.frames, mels), the patches of a window in a row."""
    starts = range(0, frames - patch.frames + 1, patch.hop)
    rows = np.concatenate([np.arange(start, start + patch.frames) for start in starts])
    return chain.reshape(chain("Gather", x, rows.astype(np.int64), axis=1), -1, patch.frames, mels)
