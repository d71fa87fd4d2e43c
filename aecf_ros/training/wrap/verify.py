"""Compare a wrapped encoder with the pipeline it was trained with, and find the line of the YAML that is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from aecf_ros.training.wrap.spec import AudioEncoder, ImageEncoder, WrapError

Spec = ImageEncoder | AudioEncoder
Changes = dict[str, Any]

NORMALIZATIONS = (
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
)
"""Mean and std that image encoders use: those of ImageNet, of CLIP, [-1, 1], none."""
RELATED = (
    {"log_mel.mel_scale", "log_mel.mel_norm"},
    {"log_mel.mel_scale", "log_mel.triangles"},
    {"log_mel.mel_norm", "log_mel.triangles"},
    {"log_mel.log", "log_mel.floor_by"},
    {"log_mel.log", "log_mel.power"},
    {"log_mel.center", "log_mel.padding"},
    {"log_mel.center", "log_mel.frame"},
    {"log_mel.window_function", "log_mel.periodic"},
)
"""Settings of audio encoders that are often wrong together; those of images are all tried together."""


@dataclass(frozen=True)
class Reference:
    """Samples of the pipeline that an encoder was trained with: inputs (K, ...), embeddings float64 (K, D)."""

    path: Path
    inputs: np.ndarray
    outputs: np.ndarray


@dataclass(frozen=True)
class Search:
    """How other settings are tried.

    Attributes:
        embed: gives (1, D) for the first sample under other settings; raises ValueError where they are impossible.
        tick: called with each setting that is tried.
    """

    embed: Callable[[Spec], np.ndarray]
    tick: Callable[[str], None]


def load_reference(path: Path, spec: Spec, dim: int) -> Reference:
    """Read a reference, its inputs as the wrapped encoder takes them.

    Raises:
        WrapError: not an .npz with `input` and `output`; another size, type or number of samples; not finite.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            inputs, outputs = (arrays[name] for name in ("input", "output"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise WrapError(
            f"{path}: not an .npz with the arrays input and output; "
            "write it with numpy.savez(path, input=..., output=...)"
        ) from None
    inputs = _checked_inputs(path, spec, inputs)
    if outputs.size != len(inputs) * dim or outputs.dtype.kind != "f":
        raise WrapError(
            f"{path}: expected {len(inputs)} embeddings of {dim} numbers as output, "
            f"got {outputs.dtype} {list(outputs.shape)}; give one for each input"
        )
    if not np.isfinite(outputs).all() or not outputs.any():
        raise WrapError(f"{path}: output is not finite, or all zero; run your pipeline again")
    return Reference(path, inputs, outputs.reshape(len(inputs), dim).astype(np.float64))


def _checked_inputs(path: Path, spec: Spec, inputs: np.ndarray) -> np.ndarray:
    """Inputs (K, ...) in the type of the wrapped encoder."""
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]
    if isinstance(spec, ImageEncoder):
        shape, dtype, word = (spec.height, spec.width, 3), np.dtype(np.uint8), "uint8 RGB"
    else:
        shape, dtype, word = (spec.samples,), np.dtype(np.float32), "float"
        if inputs.dtype == np.int16:
            inputs = inputs / np.float32(32768)
        if inputs.dtype.kind == "f" and np.abs(inputs).max(initial=0.0) > 1:
            raise WrapError(f"{path}: input goes up to {np.abs(inputs).max():g}; give samples in [-1, 1], or int16")
    inputs = inputs[None] if inputs.ndim == len(shape) else inputs
    if inputs.shape[1:] != shape or inputs.dtype.kind != dtype.kind or not len(inputs):
        raise WrapError(
            f"{path}: expected {word} [K, {', '.join(map(str, shape))}] as input, "
            f"got {inputs.dtype} {list(inputs.shape)}; save it as the encoder takes it"
        )
    return inputs.astype(dtype)


def deviation(embeddings: np.ndarray, expected: np.ndarray) -> float:
    """Largest relative Euclidean distance of a sample, both ``(K, D)``; infinite for NaN or other shapes."""
    if embeddings.shape != expected.shape:
        return np.inf
    size = np.maximum(np.linalg.norm(expected, axis=1), np.finfo(np.float64).tiny)
    gap = np.linalg.norm(embeddings.astype(np.float64) - expected, axis=1) / size
    return float(np.nan_to_num(gap, nan=np.inf).max())


def mismatch(reference: Reference, spec: Spec, gap: float, limit: float, search: Search) -> WrapError:
    """The error of an encoder that deviates by ``gap``: it names the settings under which it would not.

    Settings are tried on the first sample, those with the fewest changes first.

    Args:
        limit: accepted relative deviation.
    """
    best: tuple[float, Changes] = (np.inf, {})
    tried = 0
    for changes in alternatives(spec):
        if best[0] <= limit and len(changes) > len(best[1]):
            break
        search.tick(spell_changes(changes))
        try:
            embedding = search.embed(changed(spec, changes))
        except ValueError:
            continue
        tried += 1
        best = min(best, (deviation(embedding, reference.outputs[:1]), changes), key=lambda b: b[0])
    text = f"{reference.path}: the wrapped encoder is {gap:.2g} off (relative; up to {limit:g} is rounding)"
    if best[0] <= limit:
        return WrapError(f"{text}; with {spell_changes(best[1])} it agrees to {best[0]:.0e}: correct the YAML")
    near = f", nearest is {spell_changes(best[1])} with {best[0]:.2g}" if tried else ""
    return WrapError(f"{text}; none of {tried} other settings agrees{near}: compare the preprocessing step by step")


def alternatives(spec: Spec) -> Iterator[Changes]:
    """Other values of settings that are commonly mistaken: one at a time, then several."""
    single = list(_image_changes(spec) if isinstance(spec, ImageEncoder) else _audio_changes(spec))
    yield from single
    for count in range(2, 4 if isinstance(spec, ImageEncoder) else 3):
        for several in combinations(single, count):
            keys = [key for change in several for key in change]
            if len(set(keys)) == len(keys) and (isinstance(spec, ImageEncoder) or set(keys) in RELATED):
                yield {key: value for change in several for key, value in change.items()}


def _image_changes(spec: ImageEncoder) -> Iterator[Changes]:
    other = "bgr" if spec.color == "rgb" else "rgb"
    yield {"color": other}
    if spec.mean != spec.mean[::-1] or spec.std != spec.std[::-1]:
        yield {"color": other, "mean": spec.mean[::-1], "std": spec.std[::-1]}
    yield from ({"scale": scale} for scale in (255.0, 1.0) if scale != spec.scale)
    yield from ({"mean": mean, "std": std} for mean, std in NORMALIZATIONS if (mean, std) != (spec.mean, spec.std))
    yield {"layout": "nhwc" if spec.layout == "nchw" else "nchw"}


_CHOICES: dict[str, tuple[Any, ...]] = {
    "mel_scale": ("htk", "slaney"),
    "mel_norm": ("none", "slaney"),
    "triangles": ("hz", "mel"),
    "log": ("ln", "log10", "db"),
    "floor_by": ("clamp", "add"),
    "power": (1, 2),
    "center": (True, False),
    "padding": ("reflect", "constant"),
    "frame": ("n_fft", "window"),
    "window_function": ("hann", "hamming", "blackman", "rectangular"),
    "periodic": (True, False),
    "top_db": (None, 80.0),
    "preemphasis": (0.0, 0.97),
    "fmin": (0.0,),
    "fmax": (None,),
    "mean": (0.0,),
    "std": (1.0,),
}


def _audio_changes(spec: AudioEncoder) -> Iterator[Changes]:
    yield from ({"full_scale": value} for value in (1.0, 32768.0) if value != spec.full_scale)
    if spec.log_mel is None:
        return
    yield from (
        {f"log_mel.{key}": value}
        for key, values in _CHOICES.items()
        for value in values
        if value != getattr(spec.log_mel, key)
    )
    for layout in ("bmf", "bfm", "b1mf", "b1fm", "bmf1", "bfm1"):
        if layout != spec.log_mel.layout:
            yield {"log_mel.layout": layout}


def changed(spec: Spec, changes: Changes) -> Spec:
    """The spec with other settings, validated.

    Raises:
        ValueError: they contradict each other.
    """
    fields = spec.model_dump()
    for key, value in changes.items():
        *groups, name = key.split(".")
        at = fields
        for group in groups:
            at = at[group]
        at[name] = value
    return type(spec).model_validate(fields)


def spell_changes(changes: Changes) -> str:
    """Changes as lines of the YAML, joined by commas."""
    return ", ".join(f"{key}: {_spell(value)}" for key, value in changes.items())


def _spell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:g}" if isinstance(value, float) else str(list(value)) if isinstance(value, tuple) else str(value)
