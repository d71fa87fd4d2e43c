"""Small encoders that take raw sensor data: preprocessing is part of the module, so it travels inside the exported
graph.

Each encoder is a chain of three named steps, and training augments only before them and between the first two:
``represent`` (luma or log-mel), ``normalize`` and ``network``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601 weights of red, green and blue."""


class AttentionPool(nn.Module):
    """Softmax-weighted mean over positions beside their maximum: finds a word, or a card, wherever it is in the
    window."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Linear(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` float32 (B, positions, channels) -> (B, 2 * channels)."""
        weights = torch.softmax(self.score(x), dim=1)  # (B, P, 1)
        return torch.cat([(weights * x).sum(dim=1), x.amax(dim=1)], dim=1)


def _block(channels_in: int, channels_out: int, kernel: tuple[int, int], stride: tuple[int, int]) -> nn.Sequential:
    padding = (kernel[0] // 2, kernel[1] // 2)
    convolution = nn.Conv2d(channels_in, channels_out, kernel, stride, padding, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out), nn.ReLU())


class _Embedder(nn.Module):
    """Convolutions, attention pooling and a projection whose outputs have zero mean and unit variance over the
    training data."""

    def __init__(self, blocks: list[nn.Sequential], channels: int, embedding_dim: int, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.pool = AttentionPool(channels)
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(2 * channels, embedding_dim, bias=False)
        self.standardize = nn.BatchNorm1d(embedding_dim, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` float32 (B, 1, rows, columns) -> float32 (B, embedding_dim)."""
        x = self.blocks(x).flatten(2).transpose(1, 2)  # (B, positions, channels)
        return self.standardize(self.project(self.dropout(self.pool(x))))


class CameraEncoder(nn.Module):
    """An image to an embedding, by its luma alone, indifferent to brightness and contrast."""

    luma: Tensor

    full_scale = 255.0

    def __init__(self, height: int, width: int, embedding_dim: int = 64, dropout: float = 0.1) -> None:
        """Build for images of ``height`` x ``width`` pixels."""
        super().__init__()
        self.height, self.width, self.embedding_dim = height, width, embedding_dim
        blocks = [
            _block(1, 24, (5, 5), (2, 2)),
            _block(24, 40, (3, 3), (1, 1)),
            _block(40, 64, (3, 3), (2, 2)),
            _block(64, 96, (3, 3), (2, 2)),
            _block(96, 128, (3, 3), (1, 1)),
        ]
        self.network = _Embedder(blocks, 128, embedding_dim, dropout)
        self.register_buffer("luma", torch.tensor(LUMA).view(1, 1, 1, 3), persistent=False)

    def represent(self, image: Tensor) -> Tensor:
        """Luma in [0, 1]: uint8 (B, H, W, 3) RGB -> float32 (B, 1, H, W)."""
        return (image.float() * self.luma).sum(dim=3).unsqueeze(1) * (1.0 / self.full_scale)

    def normalize(self, luma: Tensor) -> Tensor:
        """float32 (B, 1, H, W) to zero mean and about unit deviation for each image; a uniform image stays near zero
        instead of
        having its noise blown up."""
        centered = luma - luma.mean(dim=(2, 3), keepdim=True)
        deviation = centered.square().mean(dim=(2, 3), keepdim=True).sqrt()
        return centered / (deviation + 0.02)

    def forward(self, image: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) RGB -> float32 (B, embedding_dim)."""
        return self.network(self.normalize(self.represent(image)))


def _mel_htk(hz: float) -> float:
    return 2595.0 * math.log10(1.0 + hz / 700.0)


def _mel_slaney(hz: float) -> float:
    return hz / (200.0 / 3.0) if hz < 1000.0 else 15.0 + math.log(hz / 1000.0) * 27.0 / math.log(6.4)


def _hertz_htk(mel: Tensor) -> Tensor:
    return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)


def _hertz_slaney(mel: Tensor) -> Tensor:
    return torch.where(mel < 15.0, mel * (200.0 / 3.0), 1000.0 * torch.exp((mel - 15.0) * (math.log(6.4) / 27.0)))


MEL_SCALES = {"htk": (_mel_htk, _hertz_htk), "slaney": (_mel_slaney, _hertz_slaney)}
"""Name -> Hz to mel, mel to Hz. HTK: 2595 log10(1 + f/700) (O'Shaughnessy 1987). Slaney: linear under 1 kHz,
logarithmic
above (Auditory Toolbox, 1998)."""


def mel_filters(  # noqa: PLR0913, the settings of a mel filter bank
    rate_hz: int,
    fft: int,
    mels: int,
    low_hz: float,
    high_hz: float,
    scale: str = "htk",
    norm: str = "sum",
    triangles: str = "hz",
) -> Tensor:
    """Triangular filters with equal spacing on a mel scale.

    Args:
        scale: a key of MEL_SCALES.
        norm: ``sum`` (each row has sum 1, so that white noise is flat), ``slaney`` (each triangle over Hz has area 1)
            or ``none`` (each triangle has height 1).
        triangles: whether they are triangles over ``hz`` or over ``mel``.

    Returns:
        float32 (mels, fft // 2 + 1).
    """
    to_mel, to_hertz = MEL_SCALES[scale]
    points = torch.linspace(to_mel(low_hz), to_mel(high_hz), mels + 2, dtype=torch.float64)
    hertz = to_hertz(points)
    bins = torch.arange(fft // 2 + 1, dtype=torch.float64) * rate_hz / fft
    edges = hertz
    if triangles == "mel":
        edges, bins = points, torch.tensor([to_mel(hz) for hz in bins.tolist()], dtype=torch.float64)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    filters = torch.minimum(rising, falling).clamp_min(0.0)
    if norm == "sum":
        filters = filters / filters.sum(dim=1, keepdim=True).clamp_min(1e-9)
    elif norm == "slaney":
        filters = filters * (2.0 / (hertz[2:] - hertz[:-2]))[:, None]
    return filters.float()


def fourier_basis(window: int, fft: int) -> Tensor:
    """Hann-windowed cosines and sines as convolution weights.

    Returns:
        float32 (2 * (fft // 2 + 1), 1, window); a full-scale sine gives a power near 1 in its bin.
    """
    hann = torch.hann_window(window, periodic=True, dtype=torch.float64)
    phase = (
        2.0
        * math.pi
        * torch.arange(fft // 2 + 1, dtype=torch.float64)[:, None]
        * torch.arange(window, dtype=torch.float64)
        / fft
    )
    basis = torch.cat([torch.cos(phase), -torch.sin(phase)]) * hann * (2.0 / hann.sum())
    return basis.float().unsqueeze(1)


class AudioEncoder(nn.Module):
    """A window of sound to an embedding, by its log-mel spectrogram computed with plain convolutions.

    The spectrogram is floored at ``range_nats`` under its own maximum and at an absolute floor, then centered:
    neither gain
    nor digital zeros (a microphone that mutes, a chunk that is padded) move the network's input out of the range of
    ordinary
    rooms.
    """

    fourier: Tensor
    mel: Tensor

    absolute_floor = 1e-8  # power of about -80 dB of full scale, under the noise of any 16-bit microphone
    range_nats = 10.0  # 43 dB under the loudest cell
    scale_nats = 2.5

    mels = 40

    def __init__(self, rate_hz: int, window_s: float, embedding_dim: int = 64, dropout: float = 0.1) -> None:
        """Build for windows of ``window_s`` seconds at ``rate_hz``; frames of 25 ms every 10 ms."""
        super().__init__()
        self.rate_hz, self.window_s, self.embedding_dim = rate_hz, window_s, embedding_dim
        self.samples = round(rate_hz * window_s)
        frame = round(0.025 * rate_hz)
        self.hop = round(0.010 * rate_hz)
        self.register_buffer("fourier", fourier_basis(frame, frame), persistent=False)
        high_hz = min(7600.0, 0.475 * rate_hz)
        self.register_buffer(
            "mel", mel_filters(rate_hz, frame, self.mels, 60.0, high_hz).unsqueeze(2), persistent=False
        )
        rows = math.ceil(math.ceil(self.mels / 2) / 2)
        rows = math.ceil(rows / 2)
        blocks = [
            _block(1, 24, (5, 5), (2, 2)),
            _block(24, 40, (3, 3), (2, 2)),
            _block(40, 64, (3, 3), (2, 1)),
            nn.Sequential(nn.Conv2d(64, 96, (rows, 5), padding=(0, 2), bias=False), nn.BatchNorm2d(96), nn.ReLU()),
        ]
        self.network = _Embedder(blocks, 96, embedding_dim, dropout)

    def represent(self, samples: Tensor) -> Tensor:
        """Log-mel power in nats above the absolute floor: float32 (B, N) in [-1, 1] -> float32 (B, 1, mels, frames),
        from 0."""
        spectrum = F.conv1d(samples.unsqueeze(1), self.fourier, stride=self.hop)
        real, imaginary = spectrum.chunk(2, dim=1)
        power = F.conv1d(real.square() + imaginary.square(), self.mel)
        # Not log(power + floor): ONNX optimizers take the addition of so small a number for none and remove it.
        return torch.log(power * (1.0 / self.absolute_floor) + 1.0).unsqueeze(1)

    def normalize(self, log_mel: Tensor) -> Tensor:
        """float32 (B, 1, mels, frames) floored under the maximum, centered on the window's mean, at a fixed scale."""
        floored = torch.maximum(log_mel, log_mel.amax(dim=(2, 3), keepdim=True) - self.range_nats)
        return (floored - floored.mean(dim=(2, 3), keepdim=True)) * (1.0 / self.scale_nats)

    def forward(self, samples: Tensor) -> Tensor:
        """float32 (B, N) mono in [-1, 1] -> float32 (B, embedding_dim)."""
        return self.network(self.normalize(self.represent(samples)))
