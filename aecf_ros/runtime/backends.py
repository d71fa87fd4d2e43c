"""Ways to run the graphs of a bundle, behind one Protocol and chosen by a mapping.

The device really in use is asserted and named: asking for a GPU that the runtime does not use is an error, never a silent
fall back.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnxruntime as ort

from aecf_ros.core.bundle import Bundle, BundleError, Modality


class BackendError(RuntimeError):
    """A backend or device that cannot be had; says what was asked, what there is and what to do."""


@dataclass(frozen=True, slots=True)
class HeadOutput:
    """What the head says of one instant: M modalities, C classes, all NumPy without a batch axis."""

    probabilities: np.ndarray  # float32 (C,)
    confidence: float
    gate_weights: np.ndarray  # float32 (M,)
    gate_entropy: float
    agreement: float
    modality_probabilities: np.ndarray  # float32 (M, C)
    prediction_set: np.ndarray  # bool (C,)
    abstain_code: int


HEAD_OUTPUTS = ("probabilities", "confidence", "gate_weights", "gate_entropy", "agreement", "modality_probabilities", "prediction_set",
                "abstain_code")


class Backend(Protocol):
    """Runs one bundle. Call from one thread."""

    device: str
    """The device really in use, for example ``cpu`` or ``cuda``."""

    def encode(self, modality: str, sample: np.ndarray) -> np.ndarray:
        """Embed one sample of the bundle's input shape: float32 ``(embedding_dim,)``."""

    def fuse(self, embeddings: Mapping[str, np.ndarray], present: Sequence[bool]) -> HeadOutput:
        """Fuse what is present; an absent modality's embedding may be missing from the mapping."""


_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
DEVICES = ("auto", *_PROVIDERS)


class OnnxBackend:
    """onnxruntime, one session for each graph.

    Args:
        bundle: a verified bundle.
        device: ``auto`` takes the best provider this onnxruntime has (TensorRT, CUDA, CPU in that order).
        threads: intra-op threads of each session. One is the fastest use of a CPU for small encoders.

    Raises:
        BackendError: the device is unknown or not available.
        BundleError: a graph does not load, or its inputs and outputs are not those the manifest promises.
    """

    def __init__(self, bundle: Bundle, device: str = "auto", threads: int = 1) -> None:
        self._manifest = bundle.manifest
        self.device, sessions = _open_sessions(bundle, device, threads)
        self._encoders = {m.name: sessions[m.encoder] for m in self._manifest.modalities}
        self._head = sessions[self._manifest.head]
        for modality in self._manifest.modalities:
            _check_encoder(bundle, modality, self._encoders[modality.name])
        _check_head(bundle, self._head)
        self._input_names = {m.name: m.input_name for m in self._manifest.modalities}
        self._absent = {m.name: np.zeros((1, m.embedding_dim), np.float32) for m in self._manifest.modalities}

    def encode(self, modality: str, sample: np.ndarray) -> np.ndarray:
        (embedding,) = self._encoders[modality].run(("embedding",), {self._input_names[modality]: sample[None]})
        return embedding[0]

    def fuse(self, embeddings: Mapping[str, np.ndarray], present: Sequence[bool]) -> HeadOutput:
        feeds = {f"embedding_{name}": embeddings[name][None] if used else self._absent[name]
                 for name, used in zip(self._absent, present, strict=True)}
        feeds["present"] = np.array([present], dtype=bool)
        outputs = self._head.run(HEAD_OUTPUTS, feeds)
        probabilities, confidence, weights, entropy, agreement, alone, members, code = (o[0] for o in outputs)
        return HeadOutput(probabilities, float(confidence), weights, float(entropy), float(agreement), alone, members, int(code))


def _open_sessions(bundle: Bundle, device: str, threads: int) -> tuple[str, dict[str, ort.InferenceSession]]:
    """The device in use and a session for each graph file."""
    files = {bundle.manifest.head, *(m.encoder for m in bundle.manifest.modalities)}
    candidates = _candidates(device)
    for candidate in candidates:
        try:
            return candidate, {file: _session(bundle, file, candidate, threads) for file in files}
        except BackendError:
            # A GPU build lists providers whose libraries this machine may lack; "auto" then goes on to the next.
            if candidate == candidates[-1]:
                raise
    raise AssertionError("unreachable: there is always a candidate")


def _session(bundle: Bundle, file: str, device: str, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    wanted = _PROVIDERS[device]
    fallback = [] if device == "cpu" else [_PROVIDERS["cpu"]]  # operators a GPU provider lacks run on the CPU
    try:
        session = ort.InferenceSession(str(bundle.path(file)), options, providers=[wanted, *fallback])
    except Exception as error:  # onnxruntime raises many private types for a broken graph
        raise BundleError(f"{bundle.path(file)}: onnxruntime cannot load it ({_first_line(error)}); train or export the bundle again") from None
    if session.get_providers()[0] != wanted:
        raise BackendError(f"device '{device}' was asked for, but onnxruntime fell back to {session.get_providers()[0]}; "
                           "check the driver and the CUDA libraries, or set device: cpu")
    return session


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def _candidates(device: str) -> list[str]:
    """Devices to try, best first."""
    available = ort.get_available_providers()
    if device == "auto":
        return [name for name in ("tensorrt", "cuda", "cpu") if _PROVIDERS[name] in available]
    if device not in _PROVIDERS:
        raise BackendError(f"device '{device}' is not known; use one of {', '.join(DEVICES)}")
    if _PROVIDERS[device] not in available:
        raise BackendError(f"device '{device}' is not in this onnxruntime, which has {', '.join(available)}; install onnxruntime-gpu or set device: cpu")
    return [device]


_ORT_TYPES = {"float32": "tensor(float)", "uint8": "tensor(uint8)", "bool": "tensor(bool)", "int64": "tensor(int64)"}


def _check(bundle: Bundle, file: str, what: str, nodes: Sequence[ort.NodeArg], due: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    found = {node.name: node for node in nodes}
    for name, (dtype, shape) in due.items():
        if name not in found:
            raise BundleError(f"{bundle.path(file)}: no {what} named '{name}' (it has {', '.join(sorted(found))}); export the bundle again")
        node = found[name]
        if node.type != _ORT_TYPES[dtype] or len(node.shape) != len(shape) + 1 or any(
                isinstance(a, int) and a != b for a, b in zip(node.shape, (1, *shape), strict=True)):
            raise BundleError(f"{bundle.path(file)}: {what} '{name}' is {node.type} {list(node.shape)} where bundle.yaml promises "
                              f"{_ORT_TYPES[dtype]} {['batch', *shape]}; export the bundle again")
    extra = sorted(set(found) - set(due))
    if extra and what == "input":
        raise BundleError(f"{bundle.path(file)}: wants the input{'s' if len(extra) > 1 else ''} {', '.join(extra)}, which nothing feeds; "
                          "export the bundle again")


def _check_encoder(bundle: Bundle, modality: Modality, session: ort.InferenceSession) -> None:
    dtype = "uint8" if modality.kind == "image" else "float32"
    _check(bundle, modality.encoder, "input", session.get_inputs(), {modality.input_name: (dtype, modality.input_shape)})
    _check(bundle, modality.encoder, "output", session.get_outputs(), {"embedding": ("float32", (modality.embedding_dim,))})


def _check_head(bundle: Bundle, session: ort.InferenceSession) -> None:
    manifest = bundle.manifest
    modalities, classes = len(manifest.modalities), len(manifest.labels)
    inputs = {f"embedding_{m.name}": ("float32", (m.embedding_dim,)) for m in manifest.modalities}
    _check(bundle, manifest.head, "input", session.get_inputs(), inputs | {"present": ("bool", (modalities,))})
    _check(bundle, manifest.head, "output", session.get_outputs(), {
        "probabilities": ("float32", (classes,)), "confidence": ("float32", ()), "gate_weights": ("float32", (modalities,)),
        "gate_entropy": ("float32", ()), "agreement": ("float32", ()), "modality_probabilities": ("float32", (modalities, classes)),
        "prediction_set": ("bool", (classes,)), "abstain_code": ("int64", ())})


BACKENDS: dict[str, Callable[..., Backend]] = {"onnxruntime": OnnxBackend}


def make_backend(name: str, bundle: Bundle, device: str = "auto", threads: int = 1) -> Backend:
    """Make a backend by name.

    Raises:
        BackendError: the name or the device is not known or not available.
        BundleError: the bundle's graphs are not what its manifest promises.
    """
    if name not in BACKENDS:
        raise BackendError(f"backend '{name}' is not known; use one of {', '.join(BACKENDS)}")
    return BACKENDS[name](bundle, device, threads)
