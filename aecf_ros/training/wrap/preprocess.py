"""What comes before an encoder: from the pixels or the samples of a robot to what the encoder was trained on."""

from __future__ import annotations

import math

import numpy as np
import torch
from onnx import ModelProto, TensorProto, helper

from aecf_ros.training.features.encoders import mel_filters
from aecf_ros.training.wrap.graph import Chain, Encoder
from aecf_ros.training.wrap.infer_spec import batch
from aecf_ros.training.wrap.spec import AudioEncoder, ImageEncoder, LogMel

WINDOWS = {
    "hann": torch.hann_window,
    "hamming": torch.hamming_window,
    "blackman": torch.blackman_window,
    "rectangular": lambda window, periodic, dtype: torch.ones(window, dtype=dtype),
}


def before(encoder: Encoder, spec: ImageEncoder | AudioEncoder) -> ModelProto:
    """The preprocessing as a model of its own.

    Takes ``image`` uint8 (B, height, width, 3) RGB or ``samples`` float32 (B, N) in [-1, 1]; gives what the encoder takes.

    Args:
        spec: fitted to the encoder.
    """
    chain = Chain("before")
    dims = ["batch" if batch(encoder, spec) is None else 1]
    if isinstance(spec, ImageEncoder):
        given = helper.make_tensor_value_info("image", TensorProto.UINT8, [*dims, spec.height, spec.width, 3])
        made = pixels(chain, "image", spec)
    else:
        given = helper.make_tensor_value_info("samples", TensorProto.FLOAT, [*dims, spec.samples])
        made = (
            waveform(chain, "samples", spec, len(encoder.dims))
            if spec.log_mel is None
            else log_mel(chain, "samples", spec, spec.log_mel)
        )
    made = chain("Cast", made, to=encoder.dtype)
    # The axes are the encoder's to name: a patch is a sample of its own, and a batch may be called otherwise.
    return chain.model(
        given, helper.make_tensor_value_info(made, encoder.dtype, [None] * len(encoder.dims)), encoder.model
    )


def pixels(chain: Chain, image: str, spec: ImageEncoder) -> str:
    """(pixel / scale - mean) / std, float32, or uint8 as they are where that changes nothing."""
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
    used = filters.any(axis=0)
    used[0] |= not used.any()
    spectrum = _spectrum(chain, samples, spec, mel, frames, np.flatnonzero(used))
    x = _logarithm(chain, chain("MatMul", spectrum, filters[:, used].T), mel, frames)  # (B, frames, mels)
    if mel.patch:
        x, frames = _patches(chain, x, mel, frames), mel.patch.frames
    axes = "bfm"
    if mel.layout.replace("1", "") == "bmf":
        x, axes = chain("Transpose", x, perm=[0, 2, 1]), "bmf"
    if mel.layout != axes:
        x = chain.reshape(x, *({"b": -1, "1": 1, "m": mel.mels, "f": frames}[axis] for axis in mel.layout))
    return x


def _spectrum(chain: Chain, samples: str, spec: AudioEncoder, mel: LogMel, frames: int, bins: np.ndarray) -> str:
    """Magnitudes or powers of some bins: (B, frames, bins).

    A window is even about its middle, and power does not depend on where time is counted from. So the samples before the
    middle are folded onto those behind it: cosines take the sums and sines the differences, half as many of each.
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
    behind = np.array([n for n in range(window) if 2 * n >= mirror or mirror - n >= window])
    ahead = mirror - behind
    # The window starts so far into its frame, and the first frame so far before the sound.
    first = (mel.frame_samples - window) // 2 - (mel.frame_samples // 2 if mel.center else 0)
    starts = first + mel.hop * np.arange(frames)[:, None]
    alone = (ahead == behind) | (ahead >= window)
    at_later = _position(starts + behind, length, mel.padding)
    at_sooner = np.where(alone, length, _position(starts + ahead, length, mel.padding))
    later = chain("Gather", x, at_later.astype(np.int32), axis=1)  # (B, frames, half a window)
    sooner = chain("Gather", x, at_sooner.astype(np.int32), axis=1)
    phase = 2 * np.pi / mel.n_fft * (behind - mirror / 2)[:, None] * bins
    cosines = chain("MatMul", chain("Add", later, sooner), (taper[behind, None] * np.cos(phase)).astype(np.float32))
    sines = chain("MatMul", chain("Sub", later, sooner), (taper[behind, None] * np.sin(phase)).astype(np.float32))
    power = chain("Add", chain("Mul", cosines, cosines), chain("Mul", sines, sines))
    return power if mel.power == 2 else chain("Sqrt", power)


def _position(at: np.ndarray, length: int, padding: str) -> np.ndarray:
    """Which sample to take for one that may be outside the sound; ``length`` stands for zero."""
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


def _patches(chain: Chain, x: str, mel: LogMel, frames: int) -> str:
    """(B, frames, mels) -> (B * patches, patch.frames, mels), the patches of a window in a row."""
    starts = range(0, frames - mel.patch.frames + 1, mel.patch.hop)
    rows = np.concatenate([np.arange(start, start + mel.patch.frames) for start in starts])
    return chain.reshape(chain("Gather", x, rows.astype(np.int64), axis=1), -1, mel.patch.frames, mel.mels)
