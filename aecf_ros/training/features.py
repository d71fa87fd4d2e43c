"""Training encoders, and the cache of what frozen encoders say of every sample."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aecf_ros.training import field as field_kinds
from aecf_ros.training.augment import AUGMENTATIONS
from aecf_ros.training.config import EncoderConfig
from aecf_ros.training.datasets import NOTHING, AudioSpec, ImageSpec, Samples
from aecf_ros.training.encoders import AudioEncoder, CameraEncoder
from aecf_ros.training.field import Field, corrupt
from aecf_ros.training.loop import Advance, fingerprint, fit, module_digest

EMBED_BATCH = 128
INT16_SCALE = 1.0 / 32768.0
_FIELD_CODE = inspect.getsource(field_kinds).encode()


def _camera(spec: ImageSpec, config: EncoderConfig) -> nn.Module:
    return CameraEncoder(spec.height, spec.width, config.embedding_dim, config.dropout).to(
        memory_format=torch.channels_last
    )


def _audio(spec: AudioSpec, config: EncoderConfig) -> nn.Module:
    return AudioEncoder(spec.rate_hz, spec.window_s, config.embedding_dim, config.dropout)


ENCODERS: Mapping[str, Callable[..., nn.Module]] = {"image": _camera, "audio": _audio}
"""Kind of modality -> (spec, config) -> encoder with ``represent``, ``normalize``, ``network`` and
``embedding_dim``."""


def to_tensor(data: np.ndarray) -> Tensor:
    """Stored samples as an encoder takes them: uint8 images as they are, int16 sound as float32 in [-1, 1] (as
    ``decode_audio`` gives)."""
    tensor = torch.from_numpy(np.array(data))
    return tensor.float() * INT16_SCALE if tensor.dtype == torch.int16 else tensor


def smoothed_targets(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Label distributions (N, C): one-hot mixed with uniform, and uniform where the label is -1 ("say nothing").

    >>> smoothed_targets(torch.tensor([1, -1]), 2, 0.0).tolist()
    [[0.0, 1.0], [0.5, 0.5]]
    """
    hot = F.one_hot(labels.clamp_min(0), classes).float() * (1 - smoothing) + smoothing / classes
    return torch.where((labels == NOTHING).unsqueeze(1), torch.full_like(hot, 1.0 / classes), hot)


def fit_encoder(
    spec: ImageSpec | AudioSpec,
    samples: Samples,
    classes: int,
    config: EncoderConfig,
    seed: int,
    folder: Path,
    advance: Advance,
) -> tuple[nn.Module, list[float]]:
    """Train one encoder under a linear classifier, which is then dropped.

    The order of samples, the augmentation and the dropout depend on ``seed`` and the epoch only.

    Returns:
        The encoder in evaluation mode, and the mean loss of each epoch.
    """
    torch.manual_seed(seed)
    encoder = ENCODERS[spec.kind](spec, config)
    classifier = nn.Linear(config.embedding_dim, classes)
    both = nn.ModuleDict({"encoder": encoder, "classifier": classifier})
    augment = AUGMENTATIONS[spec.kind if config.augment else "none"]
    labels = torch.from_numpy(samples.labels)
    size = config.optimizer.batch_size
    batches = max(len(samples) // size, 1)

    def losses(epoch: int, generator: torch.Generator):
        order = torch.randperm(len(samples), generator=generator)
        for rows in order[: batches * size].split(size):
            rows = rows.sort().values
            raw = augment.raw(to_tensor(samples.data[rows.numpy()]), generator)
            x = encoder.normalize(augment.represented(encoder.represent(raw), generator))
            yield F.cross_entropy(
                classifier(encoder.network(x)), smoothed_targets(labels[rows], classes, config.label_smoothing)
            )

    key = fingerprint(spec.kind, samples.digest, config.model_dump(mode="json", exclude={"onnx"}), seed, module_digest(both))
    history = fit(both, losses, batches, config.optimizer, folder / f"{spec.name}_encoder-{key}.npz", seed, advance)
    return encoder, history


def embed(
    encoder: nn.Module, samples: Samples, cache: Path, field: Field | None = None, advance: Advance = lambda *_: None
) -> np.ndarray:
    """Embeddings float32 (N, D) of every sample by a frozen encoder, kept in ``cache`` under a hash of all it depends on.

    ``field`` says how each sample is corrupted before the encoder sees it; ``advance`` is told the share done.
    """
    corruption = () if field is None else (field.kind.tobytes(), field.severity.tobytes(), _FIELD_CODE)
    path = cache / f"{fingerprint(module_digest(encoder), samples.digest, *corruption)}.npy"
    if path.is_file():
        return np.load(path, allow_pickle=False)
    parts = []
    with torch.inference_mode():
        for start in range(0, len(samples), EMBED_BATCH):
            rows = slice(start, start + EMBED_BATCH)
            batch = to_tensor(samples.data[rows])
            if field is not None:
                batch = corrupt(batch, field.rows(rows), torch.Generator().manual_seed(start))
            parts.append(encoder(batch).numpy())
            advance((start + len(batch)) / len(samples), 0.0)
    embeddings = np.concatenate(parts)
    cache.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.save(file, embeddings)
    os.replace(partial, path)
    return embeddings
