"""Run the graphs of a bundle with onnxruntime, on the CPU or a GPU.

The device in use is checked: a GPU that onnxruntime silently leaves unused is an error. The head runs on the CPU on
every device, because starting its hundred small operators on a GPU takes longer than running them on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

from aecf_ros.core.bundle import Bundle, BundleError, ManifestEntry
from aecf_ros.core.errors import first_line
from aecf_ros.runtime.base import BackendError, BackendOptions, Encoder, HeadOutput

HEAD_OUTPUTS = (
    "probabilities",
    "confidence",
    "gate_weights",
    "gate_entropy",
    "agreement",
    "modality_probabilities",
    "prediction_set",
    "abstain_code",
)
DISTANCES = "distances"
"""Optional ninth output of the head."""

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
DEVICES = ("auto", *_PROVIDERS)
_ORT_TYPES = {"float32": "tensor(float)", "uint8": "tensor(uint8)", "bool": "tensor(bool)", "int64": "tensor(int64)"}

_Signature = Mapping[str, tuple[str, tuple[int, ...]]]
"""Name of each input or output -> its dtype, and its shape without the batch axis."""


class OnnxBackend:
    """onnxruntime, one session for each graph.

    Raises:
        BackendError: the device is not available, or an option is for another backend.
        BundleError: a graph does not load, or its inputs and outputs do not match the manifest.
    """

    def __init__(self, bundle: Bundle, options: BackendOptions | None = None) -> None:
        options = options or BackendOptions()
        if options.half or options.cuda_graphs:
            raise BackendError(
                "half and cuda_graphs are options of the torch backend; "
                "export the bundle in half precision with `aecf quantize`, or set backend: torch"
            )
        self.fault = ""
        self.device, self._encoders = _open_encoders(bundle, options.device, options.threads)
        self._head = Head(bundle, options.threads)

    def encode(self, modality: str, sample: np.ndarray) -> np.ndarray:
        return self._encoders[modality](sample)

    def fuse(self, embeddings: Mapping[str, np.ndarray], present: Sequence[bool]) -> HeadOutput:
        return self._head(embeddings, present)


class Head:
    """The head graph, on the CPU. Call from one thread.

    Inputs and outputs are bound once: passing three inputs and nine outputs anew takes as long as ten of its operators.
    """

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self._session = open_session(bundle, bundle.manifest.head, "cpu", threads)
        _check_head(bundle, self._session)
        self._binding = self._session.io_binding()
        self._bound: list[ort.OrtValue] = []  # bound values must live as long as the binding
        inputs = {node.name: self._bind(node, self._binding.bind_ortvalue_input) for node in self._session.get_inputs()}
        self._embeddings = {m.name: inputs[f"embedding_{m.name}"] for m in bundle.manifest.modalities}
        self._present = inputs["present"]
        outputs = {node.name: node for node in self._session.get_outputs()}
        self._outputs = [
            self._bind(outputs[name], self._binding.bind_ortvalue_output)[0, ...]  # an array, also for a scalar
            for name in (*HEAD_OUTPUTS, DISTANCES)
            if name in outputs
        ]

    def _bind(self, node: ort.NodeArg, bind: Callable[[str, ort.OrtValue], None]) -> np.ndarray:
        """Bind an input or output to a new array for a batch of one, and return the array."""
        dtype = next(dtype for dtype, name in _ORT_TYPES.items() if name == node.type)
        array = np.zeros([size if isinstance(size, int) else 1 for size in node.shape], dtype)
        self._bound.append(ort.OrtValue.ortvalue_from_numpy(array))
        bind(node.name, self._bound[-1])
        return array

    def __call__(self, embeddings: Mapping[str, np.ndarray], present: Sequence[bool]) -> HeadOutput:
        for (name, array), used in zip(self._embeddings.items(), present, strict=True):
            array[0] = embeddings[name] if used else 0.0
        self._present[0] = present
        self._session.run_with_iobinding(self._binding)
        probabilities, confidence, weights, entropy, agreement, alone, members, code, *distances = (
            array.copy() for array in self._outputs
        )
        return HeadOutput(
            probabilities,
            float(confidence),
            weights,
            float(entropy),
            float(agreement),
            alone,
            members,
            int(code),
            *distances,
        )


class BoundEncoder:
    """Runs a session on a GPU in memory that is allocated once: one copy in, one small copy out."""

    def __init__(self, session: ort.InferenceSession, modality: ManifestEntry, device: str = "cuda") -> None:
        shape = (1, *modality.sample_shape)
        self._session = session
        self._input = ort.OrtValue.ortvalue_from_shape_and_type(shape, modality.input_dtype, device, 0)
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(modality.input_name, self._input)
        self._binding.bind_output("embedding", "cpu")

    def __call__(self, sample: np.ndarray) -> np.ndarray:
        self._input.update_inplace(np.ascontiguousarray(sample[None]))
        self._session.run_with_iobinding(self._binding)
        embedding: np.ndarray = self._binding.copy_outputs_to_cpu()[0][0]
        return embedding


def _cpu_encoder(session: ort.InferenceSession, modality: ManifestEntry) -> Encoder:
    """Runs a session on the CPU; nothing is copied."""
    name = modality.input_name

    def encode(sample: np.ndarray) -> Any:
        return session.run(("embedding",), {name: sample[None]})[0][0]

    return encode


def _open_encoders(bundle: Bundle, device: str, threads: int) -> tuple[str, dict[str, Encoder]]:
    """The device in use, and the encoder of each modality on it."""
    candidates = _candidates(device)
    for candidate in candidates[:-1]:
        try:
            return candidate, _encoders_on(candidate, bundle, threads)
        except BackendError:
            pass  # a GPU build lists providers whose libraries may be missing; "auto" then tries the next
    return candidates[-1], _encoders_on(candidates[-1], bundle, threads)


def _candidates(device: str) -> list[str]:
    """Devices to try, best first."""
    available = ort.get_available_providers()
    if device == "auto":
        return [name for name in ("tensorrt", "cuda", "cpu") if _PROVIDERS[name] in available]
    if _PROVIDERS[device] not in available:
        raise BackendError(
            f"device '{device}' is not in this onnxruntime, which has {', '.join(available)}; "
            "install onnxruntime-gpu or set device: cpu"
        )
    return [device]


def _encoders_on(device: str, bundle: Bundle, threads: int) -> dict[str, Encoder]:
    modalities = bundle.manifest.modalities
    sessions = {file: open_session(bundle, file, device, threads) for file in {m.encoder for m in modalities}}
    for modality in modalities:
        _check_encoder(bundle, modality, sessions[modality.encoder])
    if device == "cpu":
        return {m.name: _cpu_encoder(sessions[m.encoder], m) for m in modalities}
    try:
        return {m.name: BoundEncoder(sessions[m.encoder], m) for m in modalities}
    except Exception as error:  # onnxruntime has private types for a device without memory
        raise BackendError(
            f"device '{device}': no memory for the encoders' inputs ({first_line(error)}); "
            "free some, or set device: cpu"
        ) from None


def open_session(bundle: Bundle, file: str, device: str, threads: int) -> ort.InferenceSession:
    """Open one graph of a bundle on a device, for a batch of one.

    Raises:
        BackendError: onnxruntime does not use the device.
        BundleError: onnxruntime cannot load the graph.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_free_dimension_override_by_name("batch", 1)  # lets it fold shapes: 3 to 5 % faster
    options.log_severity_level = 3
    provider = _PROVIDERS[device]
    fallback = [] if device == "cpu" else [_PROVIDERS["cpu"]]  # for operators that a GPU provider lacks
    try:
        session = ort.InferenceSession(str(bundle.path(file)), options, providers=[provider, *fallback])
    except Exception as error:  # onnxruntime raises many private types for a broken graph
        raise BundleError(
            f"{bundle.path(file)}: onnxruntime cannot load it ({first_line(error)}); train or export the bundle again"
        ) from None
    session.disable_fallback()  # the Python wrapper would otherwise go on on the CPU after an error, silently
    if session.get_providers()[0] != provider:
        raise BackendError(
            f"device '{device}' was asked for, but onnxruntime fell back to {session.get_providers()[0]}; "
            "check the driver and the CUDA libraries, or set device: cpu"
        )
    return session


def _check_nodes(
    bundle: Bundle, file: str, direction: str, nodes: Sequence[ort.NodeArg], signature: _Signature
) -> None:
    """Compare the inputs or outputs of a graph with those that the manifest implies."""
    actual = {node.name: node for node in nodes}
    for name, (dtype, shape) in signature.items():
        if name not in actual:
            raise BundleError(
                f"{bundle.path(file)}: no {direction} named '{name}' (it has {', '.join(sorted(actual))}); "
                "export the bundle again"
            )
        node = actual[name]
        if (
            node.type != _ORT_TYPES[dtype]
            or len(node.shape) != len(shape) + 1
            or any(isinstance(a, int) and a != b for a, b in zip(node.shape, (1, *shape), strict=True))
        ):
            raise BundleError(
                f"{bundle.path(file)}: {direction} '{name}' is {node.type} {list(node.shape)}, but bundle.yaml says "
                f"{_ORT_TYPES[dtype]} {['batch', *shape]}; export the bundle again"
            )
    extra = sorted(set(actual) - set(signature))
    if extra and direction == "input":
        raise BundleError(
            f"{bundle.path(file)}: unexpected input{'s' if len(extra) > 1 else ''} {', '.join(extra)}; "
            "export the bundle again"
        )


def _check_encoder(bundle: Bundle, modality: ManifestEntry, session: ort.InferenceSession) -> None:
    signature = {modality.input_name: (modality.input_dtype.name, modality.sample_shape)}
    inputs, outputs = session.get_inputs(), session.get_outputs()
    _check_nodes(bundle, modality.encoder, "input", inputs, signature)
    _check_nodes(bundle, modality.encoder, "output", outputs, {"embedding": ("float32", (modality.embedding_dim,))})


def _check_head(bundle: Bundle, session: ort.InferenceSession) -> None:
    manifest = bundle.manifest
    modalities, classes = len(manifest.modalities), len(manifest.labels)
    inputs: dict[str, tuple[str, tuple[int, ...]]] = {
        f"embedding_{m.name}": ("float32", (m.embedding_dim,)) for m in manifest.modalities
    }
    outputs: dict[str, tuple[str, tuple[int, ...]]] = {
        "probabilities": ("float32", (classes,)),
        "confidence": ("float32", ()),
        "gate_weights": ("float32", (modalities,)),
        "gate_entropy": ("float32", ()),
        "agreement": ("float32", ()),
        "modality_probabilities": ("float32", (modalities, classes)),
        "prediction_set": ("bool", (classes,)),
        "abstain_code": ("int64", ()),
    }
    if DISTANCES in {node.name for node in session.get_outputs()}:
        outputs[DISTANCES] = ("float32", (modalities,))
    inputs["present"] = ("bool", (modalities,))
    _check_nodes(bundle, manifest.head, "input", session.get_inputs(), inputs)
    _check_nodes(bundle, manifest.head, "output", session.get_outputs(), outputs)
