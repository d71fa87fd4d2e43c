"""What comes before an encoder: from the pixels or the samples of a robot to what the encoder was trained on."""

from __future__ import annotations

import math

import numpy as np
import torch
from onnx import ModelProto, TensorProto, helper

from aecf_ros.training.encoders import fourier_basis, mel_filters
from aecf_ros.training.wrap_fit import batch
from aecf_ros.training.wrap_graph import Chain, Encoder
from aecf_ros.training.wrap_spec import AudioEncoder, ImageEncoder, LogMel

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
        made = waveform(chain, "samples", spec, len(encoder.dims)) if spec.log_mel is None else log_mel(chain, "samples", spec, spec.log_mel)
    made = chain("Cast", made, to=encoder.dtype)
    # The axes are the encoder's to name: a patch is a sample of its own, and a batch may be called otherwise.
    return chain.model(given, helper.make_tensor_value_info(made, encoder.dtype, [None] * len(encoder.dims)), encoder.model)


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
        spec.rate_hz, mel.n_fft, mel.mels, mel.fmin, mel.fmax or spec.rate_hz / 2, mel.mel_scale, mel.mel_norm, mel.triangles
    ).numpy()
    used = filters.any(axis=0)
    used[0] |= not used.any()
    spectrum = _spectrum(chain, samples, spec, mel, frames, used)  # (B, bins, frames)
    x = _logarithm(chain, chain("MatMul", filters[:, used], spectrum), mel, frames)  # (B, mels, frames)
    if mel.patch:
        x, frames = _patches(chain, x, mel, frames), mel.patch.frames
    axes = "bmf"
    if mel.layout.replace("1", "") == "bfm":
        x, axes = chain("Transpose", x, perm=[0, 2, 1]), "bfm"
    if mel.layout != axes:
        x = chain.reshape(x, *({"b": -1, "1": 1, "m": mel.mels, "f": frames}[axis] for axis in mel.layout))
    return x


def _spectrum(chain: Chain, samples: str, spec: AudioEncoder, mel: LogMel, frames: int, used: np.ndarray) -> str:
    """Magnitudes or powers of the bins in use: (B, bins, frames)."""
    length = spec.samples
    x = chain.reshape(samples, -1, 1, length)
    if mel.preemphasis:
        x, length = chain("Conv", x, np.array([[[-mel.preemphasis, 1.0]]], np.float32)), length - 1
    # The window starts so far into its frame, and the first frame so far before the sound.
    first = (mel.frame_samples - mel.window_samples) // 2 - (mel.frame_samples // 2 if mel.center else 0)
    last = first + (frames - 1) * mel.hop + mel.window_samples
    ahead, beyond = max(0, -first), max(0, last - length)
    if ahead or beyond:
        x = chain("Pad", x, np.array([0, 0, ahead, 0, 0, beyond], np.int64), mode=mel.padding)
    if first > 0 or last < length:
        x = chain("Slice", x, np.array([first + ahead], np.int64), np.array([last + ahead], np.int64), np.array([2], np.int64))
    taper = WINDOWS[mel.window_function](mel.window_samples, periodic=mel.periodic, dtype=torch.float64) * spec.full_scale
    basis = fourier_basis(mel.window_samples, mel.n_fft, taper).numpy()[np.concatenate([used, used])]
    waves = chain("Conv", x, basis, strides=[mel.hop])  # (B, 2 * bins, frames)
    squares = chain("Mul", waves, waves)
    bins, channel = int(used.sum()), np.array([1], np.int64)
    cosines = chain("Slice", squares, np.array([0], np.int64), np.array([bins], np.int64), channel)
    sines = chain("Slice", squares, np.array([bins], np.int64), np.array([2 * bins], np.int64), channel)
    power = chain("Add", cosines, sines)
    return power if mel.power == 2 else chain("Sqrt", power)


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
        loudest = chain("GlobalMaxPool", chain.reshape(x, -1, 1, mel.mels, frames))  # (B, 1, 1, 1)
        least = chain("Sub", chain.reshape(loudest, -1, 1, 1), np.array(mel.top_db * nats_per_db, np.float32))
        x = chain("Max", x, least)
    mean, std = np.atleast_1d(np.array(mel.mean)), np.atleast_1d(np.array(mel.std))
    factor, added = per_nat / std, (offset * per_nat - mean) / std
    if (factor != 1).any():
        x = chain("Mul", x, factor.astype(np.float32)[:, None])
    return x if (added == 0).all() else chain("Add", x, added.astype(np.float32)[:, None])


def _patches(chain: Chain, x: str, mel: LogMel, frames: int) -> str:
    """(B, mels, frames) -> (B * patches, mels, patch.frames), the patches of a window in a row."""
    starts = range(0, frames - mel.patch.frames + 1, mel.patch.hop)
    rows = np.concatenate([np.arange(start, start + mel.patch.frames) for start in starts])
    x = chain.reshape(chain("Gather", x, rows.astype(np.int64), axis=2), -1, mel.mels, len(starts), mel.patch.frames)
    return chain.reshape(chain("Transpose", x, perm=[0, 2, 1, 3]), -1, mel.mels, mel.patch.frames)
