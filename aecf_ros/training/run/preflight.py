"""Checks of a configuration against the data, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping

from aecf_ros.core.labeled_samples import Unit
from aecf_ros.modalities.base import ModalitySpec
from aecf_ros.modalities.registry import MODALITIES
from aecf_ros.modalities.vector.spec import VectorSpec
from aecf_ros.training.config import ConfigError, TrainConfig
from aecf_ros.training.data.corpus import Corpus
from aecf_ros.training.features.encoder_training import samples_of
from aecf_ros.training.features.onnx_encoder import FrozenEncoder, open_encoder


def frozen_encoders(config: TrainConfig) -> dict[str, FrozenEncoder]:
    """Open the encoders that a configuration names files of, by modality, in its order.

    Raises:
        EncoderError: an encoder cannot be used.
    """
    return {
        name: open_encoder(settings.onnx, name, config.threads)
        for name, settings in config.encoders.items()
        if settings.onnx is not None
    }


def configured_specs(config: TrainConfig) -> list[ModalitySpec]:
    """The modalities that a configuration describes, in its order: inputs of its frozen encoders, sizes of its vectors.

    Raises:
        EncoderError: an encoder cannot be used.
    """
    frozen = frozen_encoders(config)
    vectors = {
        name: VectorSpec(name=name, kind="vector", dim=settings.vector)
        for name, settings in config.encoders.items()
        if settings.vector is not None
    }
    return [
        frozen[name].spec if name in frozen else vectors[name]
        for name in config.encoders
        if name in frozen or name in vectors
    ]


def check(corpus: Corpus, config: TrainConfig) -> dict[str, FrozenEncoder]:
    """Check a configuration against the data, and open its frozen encoders.

    Raises:
        ConfigError, DatasetError, EncoderError: as :func:`train`.
    """
    frozen = frozen_encoders(config)
    for name, settings in config.encoders.items():
        whole_kind = name in MODALITIES and settings.onnx is None and settings.vector is None
        if name not in corpus.names and not whole_kind:
            raise ConfigError(f"encoders.{name}: the data has no such modality; it has {', '.join(corpus.names)}")
    if config.programs and frozen:
        raise ConfigError(
            f"programs: {next(iter(frozen))} has a frozen encoder, of which no program can be made; set programs=false"
        )
    _check_vectors(corpus, frozen, config)
    for m in corpus.modalities:
        if m.name not in frozen and not isinstance(m, VectorSpec):
            samples_of(units_of(corpus, "encoders", m.name))
    return frozen


def _check_vectors(corpus: Corpus, frozen: Mapping[str, FrozenEncoder], config: TrainConfig) -> None:
    modalities = {m.name: m for m in corpus.modalities}
    for name, settings in config.encoders.items():
        modality = modalities.get(name)
        if settings.vector is None or modality is None:
            continue
        if not isinstance(modality, VectorSpec):
            raise ConfigError(f"encoders.{name}.vector: it is {modality.kind} there; leave it out")
        if settings.vector != modality.dim:
            raise ConfigError(
                f"encoders.{name}.vector: the data has {modality.dim} numbers; write that, or leave it out"
            )
    if config.programs and (
        vectors := [m.name for m in modalities.values() if isinstance(m, VectorSpec) and m.name not in frozen]
    ):
        raise ConfigError(f"programs: {vectors[0]} is vectors, of which no program is made; set programs=false")


def units_of(corpus: Corpus, part: str, modality: str) -> list[Unit]:
    """The units of one modality in a part; none where units hold moments of several modalities."""
    return [] if corpus.paired else [unit for unit in corpus.parts.get(part, ()) if unit.modality == modality]
