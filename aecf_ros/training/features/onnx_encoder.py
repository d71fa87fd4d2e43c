"""Encoders that are not trained here: one ONNX file each, and what a trainer asks of any encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import onnxruntime

from aecf_ros.core.bundle import MANIFEST, BundleError, load_manifest, sha256
from aecf_ros.core.errors import first_line
from aecf_ros.modalities.base import Modality, ModalitySpec
from aecf_ros.modalities.registry import MODALITIES
from aecf_ros.training.onnx_session import open_session

INT16_SCALE = np.float32(1.0 / 32768.0)
OUTPUT = "embedding"
_ONNX_TYPES = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}


class EncoderError(ValueError):
    """An encoder that cannot be used. The message is one line: the file, what was found, what to do."""


class Encoder(Protocol):
    """What feature extraction and the bundle ask of an encoder.

    Attributes:
        spec: what it takes, under the name of its modality.
        embedding_dim: width D of what it gives.
        digest: hexadecimal; changes when its answers do.
        batch: samples that it is best given at a time.
    """

    spec: ModalitySpec
    embedding_dim: int
    digest: str
    batch: int

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """Embeddings float32 ``(K, D)`` of uint8 images ``(K, H, W, 3)``, of sound ``(K, samples)``, int16 or
        float32, or of vectors
        float32 ``(K, dim)``."""
        ...


def as_input(samples: np.ndarray) -> np.ndarray:
    """Stored samples as an encoder takes them: images as they are, int16 sound as float32 in [-1, 1] (as
    ``decode_audio`` gives).

    >>> as_input(np.array([[-32768, 16384]], np.int16)).tolist()
    [[-1.0, 0.5]]
    """
    return samples.astype(np.float32) * INT16_SCALE if samples.dtype == np.int16 else samples


class FrozenEncoder:
    """Somebody's encoder, run by onnxruntime on the CPU; see :class:`Encoder` for what it has in common with others.

    Attributes:
        path: the file.
        credits: where it comes from and under which license, as its file says; empty where it does not.
    """

    batch = 32

    def __init__(
        self, path: Path, spec: ModalitySpec, session: onnxruntime.InferenceSession, width: int, notes: dict[str, str]
    ) -> None:
        self.path, self.spec, self.embedding_dim = path, spec, width
        self.digest = sha256(path)
        self.credits = ", ".join(notes[key] for key in ("aecf.source", "aecf.license") if notes.get(key))
        self._session, self._input = session, spec.input_name
        self._one_at_a_time = session.get_inputs()[0].shape[0] == 1

    def __reduce__(self) -> tuple:
        """Another process opens the file again."""
        return open_encoder, (self.path.absolute(), self.spec.name)

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """See :class:`Encoder`.

        Raises:
            EncoderError: an embedding is not finite.
        """
        if not len(samples):
            return np.zeros((0, self.embedding_dim), np.float32)
        groups = np.split(samples, len(samples)) if self._one_at_a_time else [samples]
        embeddings = np.concatenate(
            [self._session.run([OUTPUT], {self._input: as_input(tensor)})[0] for tensor in groups]
        )
        if not np.isfinite(embeddings).all():
            raise EncoderError(
                f"{self.path}: gives an embedding that is not finite; correct the encoder, or the "
                f"data of {self.spec.name}"
            )
        return embeddings


def open_encoder(path: Path | str, name: str, threads: int = 1) -> FrozenEncoder:
    """Open an encoder that `aecf wrap-encoder` wrote, or one of a bundle, for the modality ``name``.

    The kind and the sizes come from the graph; what the graph does not tell, such as the rate of sound, from the
    metadata in
    the file or from the ``bundle.yaml`` beside it.

    Raises:
        EncoderError: no such file, not such a graph, weights kept in another file, a fixed batch of several, or no
        rate of sound.
    """
    path = Path(path)
    if not path.is_file():
        raise EncoderError(
            f"{path}: no such file; name an encoder (.onnx) that `aecf wrap-encoder` wrote, or one of a bundle"
        )
    try:
        tensors = onnx.load(path, load_external_data=False).graph.initializer
        if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors):
            raise EncoderError(f"{path}: keeps its weights in another file; save it as one file (onnx.save does)")
        session = open_session(path, threads)
    except EncoderError:
        raise
    except Exception as error:  # onnx and onnxruntime raise whatever a file makes them stumble over
        raise EncoderError(f"{path}: not an ONNX graph that runs here ({first_line(error)}); export it again") from None
    notes = dict(session.get_modelmeta().custom_metadata_map)
    spec = _spec(path, name, session, notes)
    count = 1 if session.get_inputs()[0].shape[0] == 1 else 2
    sample = np.zeros((count, *spec.sample_shape), spec.input_dtype)
    try:
        output = session.run([OUTPUT], {spec.input_name: sample})[0]
    except Exception as error:
        raise EncoderError(
            f"{path}: does not take {count} samples at once ({first_line(error)}); export it with a free batch axis"
        ) from None
    if output.ndim != 2 or len(output) != count or output.dtype != np.float32:
        raise EncoderError(
            f"{path}: gives {output.dtype} {output.shape} for {count} samples where float32 ({count}, "
            f"D) is due; wrap it with `aecf wrap-encoder`"
        )
    return FrozenEncoder(path, spec, session, output.shape[1], notes)


def _spec(path: Path, name: str, session: onnxruntime.InferenceSession, notes: dict[str, str]) -> ModalitySpec:
    inputs = {node.name: node for node in session.get_inputs()}
    outputs = [node.name for node in session.get_outputs()]
    modality = next((kind for kind in MODALITIES.values() if set(inputs) == {kind.spec.input_name}), None)
    if modality is None or OUTPUT not in outputs:
        known = ", ".join(kind.spec.input_name for kind in MODALITIES.values())
        raise EncoderError(
            f"{path}: expected one input of {known} and the output {OUTPUT}, got {', '.join(inputs)} and "
            f"{', '.join(outputs)}; wrap it with `aecf wrap-encoder`"
        )
    node = inputs[modality.spec.input_name]
    shape, wanted = tuple(node.shape[1:]), _ONNX_TYPES[modality.spec.input_dtype.name]
    fixed = all(isinstance(size, int) and size > 0 for size in shape)
    sizes = modality.sizes_of_input(shape, lambda: _noted_sizes(path, modality, notes)) if fixed else None
    if sizes is None or node.type != wanted:
        raise EncoderError(
            f"{path}: expected {wanted} [batch, one {modality.name} sample], sizes fixed, got "
            f"{node.type} {node.shape}; "
            "wrap it with `aecf wrap-encoder`"
        )
    spec = modality.spec(name=name, kind=modality.name, **sizes)
    if spec.sample_shape != shape:
        raise EncoderError(
            f"{path}: takes {list(shape)}, and {spec.size_text} is {list(spec.sample_shape)}; correct its metadata"
        )
    return spec


def _noted_sizes(path: Path, modality: Modality, notes: dict[str, str]) -> dict[str, Any]:
    """Sizes of a sample from the file's own metadata, or from the bundle that it lies in."""
    names = modality.spec.SIZES
    try:
        return {name: float(notes[f"aecf.{name}"]) for name in names}
    except (KeyError, ValueError):
        pass
    if (path.parent / MANIFEST).is_file():
        try:
            entries = load_manifest(path.parent).modalities
        except BundleError as error:
            raise EncoderError(str(error)) from None
        for entry in entries:
            if entry.encoder == path.name and entry.kind == modality.name:
                return entry.sizes
    wanted = " and ".join(f"aecf.{name}" for name in names)
    raise EncoderError(
        f"{path}: neither its metadata nor a {MANIFEST} beside it says {wanted}; wrap it with `aecf wrap-encoder`"
    )
