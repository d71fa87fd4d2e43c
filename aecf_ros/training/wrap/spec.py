"""The YAML of `aecf wrap-encoder`: how an ONNX encoder expects its input.

Names follow librosa and torchvision.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from aecf_ros.core.yaml_records import read_record

ImageLayout = Literal["nchw", "nhwc"]
SpectrogramLayout = Literal["bmf", "bfm", "b1mf", "b1fm", "bmf1", "bfm1"]
Pool = Literal["none", "flatten", "mean", "first"]


class WrapError(ValueError):
    """An encoder, its YAML or its reference cannot be used. One line: the file, what was found, what to do."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Encoder(_Record):
    file: Path
    """The encoder, beside the YAML where the path is relative."""
    input: str | None = None
    """Name of the input; needed where there are several."""
    output: str | None = None
    """Name of the output that is the embedding; needed where there are several."""
    pool: Pool = "none"
    """How the output becomes a vector: `flatten` of (B, D, 1, 1), `mean` over tokens (B, T, D) or positions
    (B, D, H, W), `first` token of (B, T, D)."""
    source: str = ""
    """Where the weights come from, for the model card."""
    license: str = ""
    """License of the weights, for the model card."""


class ImageEncoder(_Encoder):
    """An image encoder: takes (pixel / scale - mean) / std, channels in the order of ``color``."""

    kind: Literal["image"]
    height: int | None = Field(None, gt=0, le=4096)
    """Pixels; taken from the graph where it has a fixed size."""
    width: int | None = Field(None, gt=0, le=4096)
    layout: ImageLayout | None = None
    """Order of the axes; taken from the graph where only one fits."""
    color: Literal["rgb", "bgr"] = "rgb"
    scale: float = Field(255, gt=0)
    """Divisor of pixels from 0 to 255."""
    mean: tuple[float, float, float]
    std: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class Patch(_Record):
    """Pieces of the spectrogram that the encoder takes one by one; their embeddings are averaged. In frames."""

    frames: int = Field(gt=0)
    hop: int = Field(gt=0)


class LogMel(_Record):
    """A log-mel spectrogram; windows and frames in samples."""

    n_fft: int = Field(gt=1, le=65536)
    window: int | None = Field(None, gt=1)
    """Samples under the window function; n_fft by default."""
    hop: int = Field(gt=0)
    window_function: Literal["hann", "hamming", "blackman", "rectangular"] = "hann"
    periodic: bool = True
    """Whether the window is periodic (librosa, torch, TensorFlow) or symmetric."""
    frame: Literal["n_fft", "window"] = "n_fft"
    """Length of a frame: n_fft with the window in its middle (librosa, torch), or the window, padded with zeros
    (TensorFlow, Kaldi)."""
    center: bool = True
    """Whether the first frame is centered on the first sample, with padding before it."""
    padding: Literal["reflect", "constant"] = "reflect"
    preemphasis: float = Field(0.0, ge=0, lt=1)
    """x[t] - preemphasis * x[t - 1] over the whole sound, which becomes one sample shorter."""
    power: Literal[1, 2] = 2
    """1 for magnitudes, 2 for powers."""
    mels: int = Field(gt=0, le=1024)
    fmin: float = Field(0.0, ge=0)
    fmax: float | None = Field(None, gt=0)
    """Hz; half the sampling rate by default."""
    mel_scale: Literal["htk", "slaney"]
    mel_norm: Literal["none", "slaney"]
    triangles: Literal["hz", "mel"] = "hz"
    """Whether the filters are triangles over Hz (librosa, torchaudio) or over mel (TensorFlow, Kaldi)."""
    log: Literal["ln", "log10", "db"]
    floor: float = Field(gt=0)
    floor_by: Literal["clamp", "add"]
    """max(x, floor) or x + floor before the logarithm."""
    top_db: float | None = Field(None, gt=0)
    """Floor, this many dB below the loudest cell of the window."""
    mean: float | tuple[float, ...] = 0.0
    """Subtracted from the logarithm: one number, or one for each mel band."""
    std: Annotated[float, Field(gt=0)] | tuple[Annotated[float, Field(gt=0)], ...] = 1.0
    layout: SpectrogramLayout | None = None
    """Order of batch, mels, frames and axes of size 1; taken from the graph where only one fits."""
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
    """An audio encoder: takes the waveform, or the log-mel spectrogram that ``log_mel`` describes."""

    kind: Literal["audio"]
    rate_hz: int = Field(gt=0, le=384_000)
    window_s: float = Field(gt=0, le=60)
    full_scale: float = Field(1.0, gt=0)
    """Full scale of the samples that the encoder, or its spectrogram, takes: 1, or 32768 for the range of int16."""
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
                f"a window of {self.samples} samples is too short to be reflected by {mel.frame_samples // 2}; "
                "set padding: constant"
            )
        return self


EncoderSpec: Any = Annotated[ImageEncoder | AudioEncoder, Field(discriminator="kind")]


def load_spec(path: Path | str) -> ImageEncoder | AudioEncoder:
    """Read an encoder's YAML; ``file`` is resolved against its folder.

    Raises:
        WrapError: the file is missing or not a YAML mapping, a key is unknown or missing, or a value is out of bounds.
    """
    spec: ImageEncoder | AudioEncoder = read_record(path, EncoderSpec, WrapError, example="config/encoders/timm.yaml")
    return spec.model_copy(update={"file": Path(path).parent / spec.file})
