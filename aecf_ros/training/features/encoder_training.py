"""Training encoders on a dataset folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aecf_ros.core.labeled_samples import NOTHING, Unit
from aecf_ros.modalities.audio.spec import AudioSpec
from aecf_ros.modalities.base import ModalitySpec
from aecf_ros.modalities.image.spec import ImageSpec
from aecf_ros.training.config import EncoderConfig
from aecf_ros.training.data.npy_dataset import DatasetError, Samples
from aecf_ros.training.data.npy_units import FolderUnit
from aecf_ros.training.features.augment import AUGMENTATIONS
from aecf_ros.training.features.encoders import AudioEncoder, CameraEncoder
from aecf_ros.training.features.onnx_encoder import as_input
from aecf_ros.training.head.fit_loop import Batches, FitContext, History, fingerprint, fit, module_digest

EMBED_BATCH = 128


def _camera(spec: ImageSpec, config: EncoderConfig) -> nn.Module:
    encoder: nn.Module = CameraEncoder(spec.height, spec.width, config.embedding_dim, config.dropout)
    return encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _audio(spec: AudioSpec, config: EncoderConfig) -> nn.Module:
    return AudioEncoder(spec.rate_hz, spec.window_s, config.embedding_dim, config.dropout)


ENCODERS: Mapping[str, Callable[..., nn.Module]] = {"image": _camera, "audio": _audio}
"""Kind of modality -> (spec, config) -> encoder with ``represent``, ``normalize``, ``network`` and
``embedding_dim``."""


def to_tensor(samples: np.ndarray) -> Tensor:
    """Stored samples ``(K, ...)`` as an encoder takes them, uint8 or float32, in memory of their own; see
    :func:`aecf_ros.training.features.onnx_encoder.as_input`."""
    return torch.from_numpy(as_input(np.array(samples)))


def smoothed_targets(labels: Tensor, classes: int, smoothing: float, prior: Tensor | None = None) -> Tensor:
    """Label distributions (N, C): one-hot mixed with uniform, and where the label is -1 ("say nothing") ``prior`` (C,),
    uniform where not given.

    >>> smoothed_targets(torch.tensor([1, -1]), 2, 0.0).tolist()
    [[0.0, 1.0], [0.5, 0.5]]
    """
    hot = F.one_hot(labels.clamp_min(0), classes).float() * (1 - smoothing) + smoothing / classes
    nothing = torch.full_like(hot, 1.0 / classes) if prior is None else prior.to(hot).expand_as(hot)
    return torch.where((labels == NOTHING).unsqueeze(1), nothing, hot)


def fit_encoder(
    spec: ImageSpec | AudioSpec,
    samples: Samples,
    classes: int,
    config: EncoderConfig,
    context: FitContext,
) -> tuple[nn.Module, History]:
    """Train one encoder under a linear classifier, which is then dropped.

    The order of samples, the augmentation and the dropout depend on the seed of ``context`` and the epoch only.

    Returns:
        The encoder in evaluation mode, and its losses.
    """
    torch.manual_seed(context.seed)
    encoder = ENCODERS[spec.kind](spec, config)
    classifier = nn.Linear(config.embedding_dim, classes)
    both = nn.ModuleDict({"encoder": encoder, "classifier": classifier})
    augment = AUGMENTATIONS[spec.kind if config.augment else "none"]
    labels = torch.from_numpy(samples.labels)
    size = config.optimizer.batch_size
    batches = max(len(samples) // size, 1)

    def losses(epoch: int, generator: torch.Generator) -> Iterator[Tensor]:
        order = torch.randperm(len(samples), generator=generator)
        for rows in order[: batches * size].split(size):
            rows = rows.sort().values
            raw = augment.raw(to_tensor(samples.data[rows.numpy()]), generator)
            x = encoder.normalize(augment.represented(encoder.represent(raw), generator))  # type: ignore[operator]
            yield F.cross_entropy(
                classifier(cast(nn.Module, encoder.network)(x)),
                smoothed_targets(labels[rows], classes, config.label_smoothing),
            )

    settings = config.model_dump(mode="json", exclude={"onnx"})
    key = fingerprint(spec.kind, samples.digest, settings, context.seed, module_digest(both), *context.key())
    return encoder, fit(both, Batches(batches, losses), config.optimizer, f"{spec.name}_encoder-{key}", context)


class TrainedEncoder:
    """An encoder that was trained here; see :class:`aecf_ros.training.features.onnx_encoder.Encoder`. ``module`` is
    the one it runs.
    """

    batch = EMBED_BATCH

    def __init__(self, module: nn.Module, spec: ModalitySpec) -> None:
        self.module, self.spec = module.eval(), spec
        self.embedding_dim = cast(int, module.embedding_dim)
        self.digest = module_digest(module).hex()

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """Embeddings float32 ``(K, D)`` of ``K`` samples."""
        with torch.inference_mode():
            return self.module(to_tensor(samples)).numpy()


def samples_of(units: Sequence[Unit]) -> Samples:
    """One modality of a part of a dataset folder, whole.

    Raises:
        DatasetError: the units are not of a dataset folder, so that there is nothing to train an encoder on.
    """
    if not units or not isinstance(units[0], FolderUnit):
        raise DatasetError(
            "encoders are trained here on the part 'encoders' of a dataset folder alone; name a "
            "frozen one: encoders.NAME.onnx=FILE"
        )
    data = units[0].load()
    labels, sources, clusters = (
        np.concatenate([getattr(unit, name) for unit in units]) for name in ("labels", "sources", "clusters")
    )
    return Samples(data, labels, sources, clusters, units[0].array_digest)
