"""Measure a bundle on labeled data, through its exported graphs."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aecf_ros.core.bundle import Bundle
from aecf_ros.modalities.base import ModalitySpec
from aecf_ros.modalities.registry import MODALITIES
from aecf_ros.training.config import TrainConfig
from aecf_ros.training.data.corpus import Corpus
from aecf_ros.training.data.npy_dataset import DatasetError
from aecf_ros.training.evaluation.evaluate import Answer, Metrics, by_subset
from aecf_ros.training.export.head_graph import HEAD_OUTPUTS
from aecf_ros.training.features.cache import Extraction, extract
from aecf_ros.training.features.onnx_encoder import open_encoder
from aecf_ros.training.head.feature_tables import PartFeatures, gather
from aecf_ros.training.onnx_session import open_session


def measure(bundle: Bundle, corpus: Corpus) -> Metrics:
    """METRICS of every subset, on the test pairs that the trainer draws.

    Raises:
        DatasetError: the corpus has other modalities or labels.
        EncoderError: an encoder of the bundle cannot be used.
    """
    part, manifest = bundle_part(bundle, corpus, "test"), bundle.manifest
    pairs = part.test_pairs(training_config(bundle).pairs, manifest.training.seed)
    return by_subset(manifest.names, graph_answers(bundle), part.embeddings, pairs, part.sets)[0]


def bundle_part(bundle: Bundle, corpus: Corpus, part: str) -> PartFeatures:
    """The embeddings of one part of a corpus by a bundle's encoders.

    Raises:
        DatasetError, EncoderError: as :func:`measure`.
    """
    manifest = bundle.manifest
    if corpus.names != manifest.names:
        raise DatasetError(
            f"{corpus.name}: holds {', '.join(corpus.names)} where the bundle has {', '.join(manifest.names)}; "
            "give the data it was trained on"
        )
    if list(corpus.labels) != manifest.labels:
        raise DatasetError(
            f"{corpus.name}: {other_labels(corpus.labels, manifest.labels)}; give the data it was trained on"
        )
    encoders = {m.name: open_encoder(bundle.path(m.encoder), m.name) for m in manifest.modalities}
    with tempfile.TemporaryDirectory() as cache:
        return gather(corpus, extract(Extraction(corpus, encoders, {part: 0}, manifest.training.seed, Path(cache))))[
            part
        ]


def other_labels(labels: Sequence[str], wanted: Sequence[str]) -> str:
    """How labels differ from those of a bundle.

    >>> other_labels(["dog", "cat"], ["cat", "dog"])
    "its labels are in another order: it has 'dog' where the bundle has 'cat'"
    >>> other_labels(["cat", "owl"], ["cat", "dog"])
    "its labels are others: it has no 'dog', and the bundle has no 'owl'"
    """
    sides = [("it", set(wanted) - set(labels)), ("the bundle", set(labels) - set(wanted))]
    if others := [f"{who} has no {', '.join(map(repr, sorted(lacking)))}" for who, lacking in sides if lacking]:
        return f"its labels are others: {', and '.join(others)}"
    first, second = next(pair for pair in zip(labels, wanted, strict=True) if pair[0] != pair[1])
    return f"its labels are in another order: it has {first!r} where the bundle has {second!r}"


def graph_answers(bundle: Bundle) -> Answer:
    """The bundle's head graph as an :data:`Answer`."""
    session, names = open_session(bundle.path(bundle.manifest.head)), bundle.manifest.names
    outputs = {node.name for node in session.get_outputs()}
    wanted = [name for name in HEAD_OUTPUTS if name in outputs]

    def answer(embeddings: Sequence[np.ndarray], present: np.ndarray) -> dict[str, np.ndarray]:
        feeds = {f"embedding_{name}": e for name, e in zip(names, embeddings, strict=True)} | {"present": present}
        return dict(zip(wanted, session.run(wanted, feeds), strict=True))

    return answer


def training_config(bundle: Bundle) -> TrainConfig:
    """The configuration that a bundle was trained with, without keys that this version does not know."""
    fields = bundle.manifest.training.config
    return TrainConfig.model_validate({key: value for key, value in fields.items() if key in TrainConfig.model_fields})


def specs_of(bundle: Bundle) -> list[ModalitySpec]:
    """The specs of a bundle's modalities."""
    return [MODALITIES[m.kind].spec(name=m.name, kind=m.kind, **m.sizes) for m in bundle.manifest.modalities]
