"""Small convolutional encoders, trained on the `encoders` part of one degradation and frozen. Embeddings have 64
features.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own convention)
from torch import Tensor, nn

from benchmarks.fusion.sources import SOUND_RATE_HZ

EMBEDDING = 64
MELS, FFT, HOP = 32, 256, 128


class LogMel(nn.Module):
    """Log-mel spectrogram in dB below the loudest cell of the window, 40 dB deep, scaled to [-1, 1]: [B, T] -> [B, 1,
    MELS, frames].
    """

    def __init__(self):
        super().__init__()
        self.register_buffer("window", torch.hann_window(FFT), persistent=False)
        self.register_buffer("mel", torch.from_numpy(mel_filters(MELS, FFT, SOUND_RATE_HZ)), persistent=False)

    def forward(self, sounds: Tensor) -> Tensor:
        spectrum = torch.stft(sounds, FFT, HOP, window=self.window, return_complex=True).abs().square()
        level = 10.0 * torch.log10((self.mel @ spectrum).clamp(min=1e-10))
        level = (level - level.amax((1, 2), keepdim=True)).clamp(min=-40.0)
        return (level / 20.0 + 1.0).unsqueeze(1)


def image_encoder() -> nn.Sequential:
    """[B, 1, 28, 28] -> [B, EMBEDDING]."""
    return nn.Sequential(*_blocks(1), nn.Flatten(), nn.Linear(64 * 4 * 4, EMBEDDING))


def color_encoder() -> nn.Sequential:
    """[B, 3, 32, 32] -> [B, EMBEDDING]."""
    return nn.Sequential(*_blocks(3), nn.Flatten(), nn.Linear(64 * 4 * 4, EMBEDDING))


def sound_encoder() -> nn.Sequential:
    """[B, T] -> [B, EMBEDDING]."""
    return nn.Sequential(
        LogMel(), *_blocks(1), nn.AdaptiveAvgPool2d((4, 4)), nn.Flatten(), nn.Linear(64 * 4 * 4, EMBEDDING)
    )


def train_encoder(
    encoder: nn.Module, batches: Callable[[], Iterator[tuple[Tensor, Tensor]]], classes: int, epochs: int, seed: int
) -> nn.Module:
    """Cross-entropy with a linear head that is thrown away; returns the encoder in evaluation mode. `batches()` is one
    epoch.
    """
    torch.manual_seed(seed)
    encoder.apply(lambda module: module.reset_parameters() if hasattr(module, "reset_parameters") else None)
    model = nn.Sequential(encoder, nn.Linear(EMBEDDING, classes))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-3)
    steps = epochs * sum(1 for _ in batches())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    model.train()
    for _ in range(epochs):
        for inputs, labels in batches():
            loss = F.cross_entropy(model(inputs), labels, label_smoothing=0.02)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return encoder.eval()


@torch.no_grad()
def embed(encoder: nn.Module, inputs: np.ndarray) -> np.ndarray:
    """Embeddings float32 [N, EMBEDDING], in batches of 1000."""
    blocks = [encoder(torch.from_numpy(inputs[i : i + 1000])).numpy() for i in range(0, len(inputs), 1000)]
    return np.concatenate(blocks)


def _blocks(channels: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for width in (16, 32, 64):
        layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return layers


def mel_filters(bands: int, fft: int, rate_hz: int) -> np.ndarray:
    """Triangular filters between 60 Hz and 95 % of half the rate, each summing to 1: float32 [bands, fft // 2 + 1]."""
    mel = np.linspace(2595 * np.log10(1 + 60 / 700), 2595 * np.log10(1 + 0.475 * rate_hz / 700), bands + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    frequency_hz = np.fft.rfftfreq(fft, 1 / rate_hz)
    rising = (frequency_hz - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - frequency_hz) / np.diff(edges)[1:, None]
    filters = np.maximum(0, np.minimum(rising, falling))
    return (filters / np.maximum(filters.sum(1, keepdims=True), 1e-3)).astype(np.float32)
