"""Whether a wrapped encoder does what its owner's own pipeline did, and if not, which line of the YAML is to blame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
"""Mean and std that encoders of pictures use: ImageNet's, CLIP's, [-1, 1], none."""
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
"""Settings of sound that go wrong together; of pictures all are tried together."""


def load_reference(path: Path, spec: Spec, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs as the wrapped encoder takes them, and float64 (K, D) what the owner's pipeline made of them.

    Raises:
        WrapError: not an .npz with `input` and `output`, another size, type or number of samples, no finite numbers.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            given, due = (arrays[name] for name in ("input", "output"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise WrapError(
            f"{path}: is no .npz with the arrays input and output; write it with numpy.savez(path, input=..., output=...)"
        ) from None
    if isinstance(spec, ImageEncoder):
        shape, dtype, word = (spec.height, spec.width, 3), np.uint8, "uint8 RGB"
    else:
        shape, dtype, word = (spec.samples,), np.float32, "float"
        if given.dtype == np.int16:
            given = given / np.float32(32768)
        if given.dtype.kind == "f" and np.abs(given).max(initial=0.0) > 1:
            raise WrapError(f"{path}: input goes up to {np.abs(given).max():g}; give samples in [-1, 1], or int16")
    given = given[None] if given.ndim == len(shape) else given
    if given.shape[1:] != shape or given.dtype.kind != np.dtype(dtype).kind or not len(given):
        raise WrapError(
            f"{path}: input is {given.dtype} {list(given.shape)} where the encoder takes {word} [K, {', '.join(map(str, shape))}]; give it as it goes in"
        )
    if due.size != len(given) * dim or due.dtype.kind != "f":
        raise WrapError(
            f"{path}: output is {due.dtype} {list(due.shape)} where {len(given)} embeddings of {dim} numbers are due; give one for each input"
        )
    if not np.isfinite(due).all() or not due.any():
        raise WrapError(f"{path}: output is not finite, or all zero; run your pipeline again")
    return given.astype(dtype), due.reshape(len(given), dim).astype(np.float64)


def deviation(found: np.ndarray, due: np.ndarray) -> float:
    """Largest relative Euclidean distance of a sample, ``(K, D)`` both; infinite where shapes differ or a number is none."""
    if found.shape != due.shape:
        return np.inf
    gap = np.linalg.norm(found.astype(np.float64) - due, axis=1) / np.maximum(
        np.linalg.norm(due, axis=1), np.finfo(np.float64).tiny
    )
    return float(np.nan_to_num(gap, nan=np.inf).max())


def compare(
    reference: Path, spec: Spec, found: np.ndarray, x: np.ndarray, due: np.ndarray, limit: float, again: Callable[[Spec], np.ndarray],
    tick: Callable[[str], None],
) -> float:  # fmt: skip
    """Deviation of what a wrapped encoder gave from what its owner's pipeline did.

    Args:
        reference: the file that ``x`` and ``due`` are of, for errors.
        found, due: (K, D).
        x: (K, ...), what went in.
        limit: relative deviation that is accepted.
        again: gives (1, D) for the first sample with other settings, or raises ValueError where they cannot be.
        tick: told of each setting that is tried.

    Raises:
        WrapError: it is over ``limit``; names the settings under which it is not, the fewest first.
    """
    gap = deviation(found, due)
    if gap <= limit:
        return gap
    best: tuple[float, Changes] = (np.inf, {})
    tried = 0
    for changes in alternatives(spec):
        if best[0] <= limit and len(changes) > len(best[1]):
            break
        tick(spell_changes(changes))
        try:
            other = again(changed(spec, changes))
        except ValueError:
            continue
        tried += 1
        best = min(best, (deviation(other, due[:1]), changes), key=lambda b: b[0])
    says = f"{reference}: the wrapped encoder is {gap:.2g} off (relative; up to {limit:g} is rounding)"
    if best[0] <= limit:
        raise WrapError(f"{says}; with {spell_changes(best[1])} it agrees to {best[0]:.0e}: correct the YAML")
    near = f", nearest is {spell_changes(best[1])} with {best[0]:.2g}" if tried else ""
    raise WrapError(f"{says}; none of {tried} other settings agrees{near}: compare the preprocessing step by step")


def alternatives(spec: Spec) -> Iterator[Changes]:
    """Settings that are commonly mistaken, other than they are: one at a time, then several."""
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
    """The YAML with other settings, validated like any.

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
    """As the YAML would have them."""
    return ", ".join(f"{key}: {_spell(value)}" for key, value in changes.items())


def _spell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:g}" if isinstance(value, float) else str(list(value)) if isinstance(value, tuple) else str(value)
