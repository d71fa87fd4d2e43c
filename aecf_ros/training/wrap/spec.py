"""What `aecf wrap-encoder` is told about somebody's ONNX encoder: the YAML, validated when it is read.

Names follow librosa and torchvision where they have one for the thing.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from aecf_ros.core.yaml_records import read_yaml

ImageLayout = Literal["nchw", "nhwc"]
SpectrogramLayout = Literal["bmf", "bfm", "b1mf", "b1fm", "bmf1", "bfm1"]
Pool = Literal["none", "flatten", "mean", "first"]


class WrapError(ValueError):
    """An encoder, its YAML or its reference that cannot be used. One line: the file, what was found, what to do."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Encoder(_Record):
    file: Path
    """The encoder, beside the YAML where the path is relative."""
    input: str | None = None
    """Name of its input; found where there is one."""
    output: str | None = None
    """Name of the output that is the embedding; found where there is one."""
    pool: Pool = "none"
    """How an output that is no vector becomes one: `flatten` (B, D, 1, 1), `mean` over tokens (B, T, D) or places
    (B, D, H, W), `first` token of (B, T, D)."""
    source: str = ""
    """Where the weights come from, for the model card."""
    license: str = ""
    """Of the weights, for the model card."""


class ImageEncoder(_Encoder):
    """An encoder of pictures: takes (pixel / scale - mean) / std, channels in the order of ``color``."""

    kind: Literal["image"]
    height: int | None = Field(None, gt=0, le=4096)
    """Pixels; found where the encoder has a fixed size."""
    width: int | None = Field(None, gt=0, le=4096)
    layout: ImageLayout | None = None
    """Order of the axes; found where the channels can be at one place only."""
    color: Literal["rgb", "bgr"] = "rgb"
    scale: float = Field(255, gt=0)
    """What pixels of 0 to 255 are divided by."""
    mean: tuple[float, float, float]
    std: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class Patch(_Record):
    """Pieces of the spectrogram that the encoder takes as samples of their own; their embeddings are averaged."""

    frames: int = Field(gt=0)
    hop: int = Field(gt=0)


class LogMel(_Record):
    """A log-mel spectrogram; windows and frames in samples."""

    n_fft: int = Field(gt=1, le=65536)
    window: int | None = Field(None, gt=1)
    """Samples under the window function; n_fft where not given."""
    hop: int = Field(gt=0)
    window_function: Literal["hann", "hamming", "blackman", "rectangular"] = "hann"
    periodic: bool = True
    """Whether the window is periodic (librosa, torch, TensorFlow) or symmetric."""
    frame: Literal["n_fft", "window"] = "n_fft"
    """How long a frame is: n_fft with the window in its middle (librosa, torch), or the window alone, zeros behind it
    (TensorFlow, Kaldi)."""
    center: bool = True
    """Whether the first frame is centered on the first sample, beyond which the sound is padded."""
    padding: Literal["reflect", "constant"] = "reflect"
    preemphasis: float = Field(0.0, ge=0, lt=1)
    """x[t] - preemphasis * x[t - 1] over the whole sound, which becomes a sample shorter."""
    power: Literal[1, 2] = 2
    """1 for magnitudes, 2 for powers."""
    mels: int = Field(gt=0, le=1024)
    fmin: float = Field(0.0, ge=0)
    fmax: float | None = Field(None, gt=0)
    """Hz; half the rate where not given."""
    mel_scale: Literal["htk", "slaney"]
    mel_norm: Literal["none", "slaney"]
    triangles: Literal["hz", "mel"] = "hz"
    """Whether the filters are triangles over Hz (librosa, torchaudio) or over mel (TensorFlow, Kaldi)."""
    log: Literal["ln", "log10", "db"]
    floor: float = Field(gt=0)
    floor_by: Literal["clamp", "add"]
    """max(x, floor) or x + floor before the logarithm."""
    top_db: float | None = Field(None, gt=0)
    """Floor this many dB under the loudest cell of the window."""
    mean: float | tuple[float, ...] = 0.0
    """Subtracted from the logarithm: a number, or one for each mel band."""
    std: Annotated[float, Field(gt=0)] | tuple[Annotated[float, Field(gt=0)], ...] = 1.0
    layout: SpectrogramLayout | None = None
    """Batch, mels, frames and axes of one in their order; found where one alone fits."""
    patch: Patch | None = None

    @property
    def window_samples(self) -> int:
        """Samples under the window function."""
        return self.window or self.n_fft

    @property
    def frame_samples(self) -> int:
        """Samples from the beginning to the end of a frame."""
        return self.n_fft if self.frame == "n_fft" else self.window_samples

    def frames(self, samples: int) -> int:
        """Number of frames in a window of ``samples``."""
        samples -= self.preemphasis > 0
        samples += 2 * (self.frame_samples // 2) if self.center else 0
        return max(0, 1 + (samples - self.frame_samples) // self.hop) if samples > 0 else 0

    @model_validator(mode="after")
    def _consistent(self) -> LogMel:
        if self.window_samples > self.n_fft:
            raise ValueError(f"window {self.window_samples} is longer than n_fft {self.n_fft}")
        if self.center and self.frame == "window":
            raise ValueError("frame: window begins at the first sample; set center: false with it")
        for name in ("mean", "std"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != self.mels:
                raise ValueError(f"{name} has {len(value)} numbers for {self.mels} mels; give one, or one for each")
        return self


class AudioEncoder(_Encoder):
    """An encoder of sound: takes the waveform, or its log-mel spectrogram where ``log_mel`` is given."""

    kind: Literal["audio"]
    rate_hz: int = Field(gt=0, le=384_000)
    window_s: float = Field(gt=0, le=60)
    full_scale: float = Field(1.0, gt=0)
    """Value of the loudest sample as the encoder, or its spectrogram, takes it: 1, or 32768 for the range of int16."""
    log_mel: LogMel | None = None

    @property
    def samples(self) -> int:
        """Length of the window."""
        return round(self.rate_hz * self.window_s)

    @model_validator(mode="after")
    def _consistent(self) -> AudioEncoder:
        mel = self.log_mel
        if mel is None:
            return self
        highest = mel.fmax or self.rate_hz / 2
        if not mel.fmin < highest <= self.rate_hz / 2:
            raise ValueError(
                f"log_mel takes {mel.fmin:g} to {highest:g} Hz; at {self.rate_hz} Hz there is 0 to {self.rate_hz / 2:g}"
            )
        frames = mel.frames(self.samples)
        if frames < (mel.patch.frames if mel.patch else 1):
            raise ValueError(f"a window of {self.window_s:g} s has {frames} frames of log_mel; make window_s longer")
        if mel.center and mel.padding == "reflect" and mel.frame_samples // 2 >= self.samples:
            raise ValueError(
                f"a window of {self.samples} samples is too short to be reflected by {mel.frame_samples // 2}; set padding: constant"
            )
        return self


EncoderSpec = Annotated[ImageEncoder | AudioEncoder, Field(discriminator="kind")]
_KINDS: dict[str, type[_Encoder]] = {"image": ImageEncoder, "audio": AudioEncoder}


def load_spec(path: Path | str) -> ImageEncoder | AudioEncoder:
    """Read an encoder's YAML; ``file`` becomes relative to where the YAML lies.

    Raises:
        WrapError: no such file, not a YAML mapping, a key that is unknown or missing, a value out of bounds.
    """
    path = Path(path)
    fields = read_yaml(path, WrapError, example="config/encoders/timm.yaml")
    if not isinstance(fields, dict):
        raise WrapError(f"{path}: holds {type(fields).__name__} where a mapping is due; see docs/encoders.md")
    if fields.get("kind") not in _KINDS:
        raise WrapError(f"{path}: kind is {fields.get('kind')!r}; set kind: image or kind: audio")
    try:
        spec = TypeAdapter(EncoderSpec).validate_python(fields)
    except ValidationError as error:
        raise WrapError(f"{path}: {_first_line(error, _KINDS[fields['kind']])}") from None
    return spec.model_copy(update={"file": path.parent / spec.file})


def _first_line(error: ValidationError, record: type[BaseModel]) -> str:
    """What is wrong with the first field that is, and what was probably meant."""
    # An unknown key explains why another is missing, not the other way round.
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    steps = [
        step
        for step in first["loc"]
        if isinstance(step, int) or str(step).isidentifier() and step not in (*_KINDS, "float")
    ]
    where = ".".join(map(str, steps))
    if first["type"] == "extra_forbidden":
        *parents, name = map(str, steps)
        for step in parents:
            record = _record_of(record, step)
        return f"{where}: no such key{_hint(name, list(record.model_fields))}"
    if first["type"] == "literal_error":
        choices = [choice.strip(" '") for choice in first["ctx"]["expected"].replace(" or ", ",").split(",")]
        return f"{where}: {first['input']!r} is none of {', '.join(choices)}{_hint(str(first['input']), choices, silent=True)}"
    if first["type"] == "missing":
        short = "has too few numbers" if isinstance(steps[-1], int) else "is missing"
        return f"{'.'.join(map(str, steps[:-1])) if short != 'is missing' else where}: {short}; the encoder's own documentation has it"
    if first["type"] == "value_error":
        return ": ".join(filter(None, [where, str(first["ctx"]["error"])]))
    return f"{where}: {first['msg'][0].lower()}{first['msg'][1:]}, found {first['input']!r}; correct it"


def _record_of(record: type[BaseModel], name: str) -> type[BaseModel]:
    kinds = [record.model_fields[name].annotation, *get_args(record.model_fields[name].annotation)]
    return next(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))


def _hint(found: str, known: list[str], silent: bool = False) -> str:
    near = get_close_matches(found.lower(), known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else "" if silent else f"; known: {', '.join(known)}"
