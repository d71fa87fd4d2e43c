"""Complete an encoder's YAML from its graph, and refuse what contradicts it."""

from __future__ import annotations

from typing import get_args

from onnx import TensorProto, helper

from aecf_ros.training.wrap.graph import Dims, Encoder, spell
from aecf_ros.training.wrap.spec import AudioEncoder, ImageEncoder, LogMel, SpectrogramLayout, WrapError

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


def infer_spec(encoder: Encoder, spec: ImageEncoder | AudioEncoder) -> ImageEncoder | AudioEncoder:
    """The spec with every size and layout set.

    Raises:
        WrapError: the rank, a size or the order of axes does not fit, the batch is fixed above 1, or the type is not
            supported.
    """
    plain = isinstance(spec, ImageEncoder) and spec.scale == 1 and spec.mean == (0, 0, 0) and spec.std == (1, 1, 1)
    if encoder.dtype not in FLOATS and not (plain and encoder.dtype == TensorProto.UINT8):
        dtype = helper.tensor_dtype_to_np_dtype(encoder.dtype).name if encoder.dtype else "of no type"
        remedy = (
            "; set scale: 1, mean: [0, 0, 0] and std: [1, 1, 1]"
            if encoder.dtype == TensorProto.UINT8
            else "; export it with a float input"
        )
        raise WrapError(
            f"{encoder.path}: input '{encoder.input}' is {dtype}, which cannot hold normalized numbers{remedy}"
        )
    fitted = _fit_image(encoder, spec) if isinstance(spec, ImageEncoder) else _fit_audio(encoder, spec)
    if batch(encoder, fitted) not in (None, 1):
        raise WrapError(f"{encoder.where()}: batches of {encoder.dims[0]}; export it with a batch of 1, or of any size")
    if batch(encoder, fitted) == 1 and patch_count(fitted) > 1:
        raise WrapError(
            f"{encoder.where()}: takes one patch where a window has {patch_count(fitted)}; "
            "export it with a batch of any size, or shorten window_s"
        )
    return fitted


def batch(encoder: Encoder, spec: ImageEncoder | AudioEncoder) -> int | None:
    """Size of the batch axis, ``None`` where it is open."""
    return 1 if len(encoder.dims) == 1 and isinstance(spec, AudioEncoder) else encoder.dims[0]


def patch_count(spec: ImageEncoder | AudioEncoder) -> int:
    """Patches that the encoder takes for one window of sound; 1 without patches."""
    if not isinstance(spec, AudioEncoder) or spec.log_mel is None or spec.log_mel.patch is None:
        return 1
    return 1 + (spec.log_mel.frames(spec.samples) - spec.log_mel.patch.frames) // spec.log_mel.patch.hop


def _fits(dims: Dims, other: Dims) -> bool:
    return len(dims) == len(other) and all(a is None or b is None or a == b for a, b in zip(dims, other, strict=True))


def _fit_image(encoder: Encoder, spec: ImageEncoder) -> ImageEncoder:
    dims = encoder.dims
    if len(dims) != 4:
        raise WrapError(
            f"{encoder.where()}; expected 4 axes for images, got {len(dims)}; "
            "export the encoder so that it takes one image"
        )
    layouts = [name for name, axis in (("nchw", 1), ("nhwc", 3)) if dims[axis] in (3, None)]
    certain = [name for name, axis in (("nchw", 1), ("nhwc", 3)) if dims[axis] == 3]
    layout = spec.layout or (layouts[0] if len(layouts) == 1 else certain[0] if len(certain) == 1 else None)
    if not layouts:
        raise WrapError(f"{encoder.where()}, which has no axis for 3 channels; export it for color images")
    if layout is None:
        raise WrapError(f"{encoder.where()}, which fits nchw and nhwc; set layout")
    if layout not in layouts:
        raise WrapError(f"{encoder.where()}, which does not fit layout: {layout}; set layout: {layouts[0]}")
    height, width = (dims[2], dims[3]) if layout == "nchw" else (dims[1], dims[2])
    for name, described, fixed in (("height", spec.height, height), ("width", spec.width, width)):
        if described is None and fixed is None:
            raise WrapError(
                f"{encoder.where()}, which leaves the {name} open; set height and width to the size it was trained with"
            )
        if None not in (described, fixed) and described != fixed:
            raise WrapError(
                f"{encoder.where()}, a {name} of {fixed} where the YAML has {described}; "
                f"set {name}: {fixed}, or export it again"
            )
    return spec.model_copy(update={"layout": layout, "height": spec.height or height, "width": spec.width or width})


def _fit_audio(encoder: Encoder, spec: AudioEncoder) -> AudioEncoder:
    return _fit_waveform(encoder, spec) if spec.log_mel is None else _fit_spectrogram(encoder, spec, spec.log_mel)


def _fit_waveform(encoder: Encoder, spec: AudioEncoder) -> AudioEncoder:
    dims = encoder.dims
    if len(dims) not in (1, 2, 3) or (len(dims) == 3 and dims[1] not in (1, None)):
        raise WrapError(
            f"{encoder.where()}; expected a waveform [N], [B, N] or [B, 1, N]; "
            "describe its spectrogram as log_mel in the YAML"
        )
    if dims[-1] is not None and dims[-1] != spec.samples:
        raise WrapError(
            f"{encoder.where()}, which is {dims[-1] / spec.rate_hz:g} s at {spec.rate_hz} Hz, "
            f"where the YAML has {spec.window_s:g} s; "
            f"set window_s: {dims[-1] / spec.rate_hz:g}"
        )
    return spec


def spectrogram_dims(layout: str, mel: LogMel, frames: int) -> Dims:
    """Sizes of the axes of a spectrogram in ``layout``, the batch open."""
    sizes = {"b": None, "1": 1, "m": mel.mels, "f": frames}
    return tuple(sizes[axis] for axis in layout)


def _fit_spectrogram(encoder: Encoder, spec: AudioEncoder, mel: LogMel) -> AudioEncoder:
    frames = mel.patch.frames if mel.patch else mel.frames(spec.samples)
    layouts = fitting_layouts(encoder, mel, frames)
    if mel.layout is None and len(layouts) == 1:
        return spec.model_copy(update={"log_mel": mel.model_copy(update={"layout": layouts[0]})})
    if mel.layout is None and layouts:
        raise WrapError(f"{encoder.where()}, which fits the layouts {', '.join(layouts)}; set log_mel.layout")
    if mel.layout in layouts:
        return spec
    if mel.layout is None:
        raise WrapError(
            f"{encoder.where()}, which holds no spectrogram of {mel.mels} mels and {frames} frames; "
            f"correct log_mel.mels, hop or window_s{_window_for(encoder, spec, mel)}"
        )
    expected = spell(spectrogram_dims(mel.layout, mel, frames), "batch")
    remedy = (
        f"; set log_mel.layout: {layouts[0]}"
        if layouts
        else f"; correct log_mel.mels, hop, layout or window_s{_window_for(encoder, spec, mel)}"
    )
    raise WrapError(f"{encoder.where()}, where the YAML describes {expected}{remedy}")


def fitting_layouts(encoder: Encoder, mel: LogMel, frames: int) -> list[str]:
    """Layouts of a spectrogram that an encoder could take."""
    return [name for name in get_args(SpectrogramLayout) if _fits(encoder.dims, spectrogram_dims(name, mel, frames))]


def _window_for(encoder: Encoder, spec: AudioEncoder, mel: LogMel) -> str:
    """A hint at the shortest window with as many frames as the encoder's input; empty where its axes do not tell."""
    others = [d for d in encoder.dims[1:] if d is not None and d not in (1, mel.mels)]
    if len(others) != 1 or mel.patch:
        return ""
    longest = 60 * spec.rate_hz
    samples = next(
        (
            n
            for n in range(others[0] * mel.hop // 2, min(longest, (others[0] + 2) * mel.hop + mel.n_fft))
            if mel.frames(n) == others[0]
        ),
        None,
    )
    return "" if samples is None else f" (a window_s of {samples / spec.rate_hz:g} has {others[0]} frames)"
