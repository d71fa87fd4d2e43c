"""Ways to run the graphs of a bundle, behind one Protocol and chosen by a mapping.

The device really in use is asserted and named: asking for a GPU that the runtime does not use is an error, never a silent
fall back. A GPU that fails while it runs is given up for the CPU, and the backend says so from then on. The head runs on
the CPU on every device: its hundred small operators would take longer to start on a GPU than to run here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnxruntime as ort

from aecf_ros.core.bundle import Bundle, BundleError, ManifestEntry
from aecf_ros.core.errors import first_line


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
    distances: np.ndarray | None = None
    """float32 (M,): how far each embedding lies from those of training, 1 where it counts as out of distribution; ``None`` where the head
    does not say, as those exported before drift was watched."""


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
"""A head may also have this output."""


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """How to run a bundle.

    Args:
        device: ``auto`` takes the best there is (TensorRT, CUDA, CPU in that order).
        threads: CPU threads of each graph. One is the fastest use of a CPU for small encoders.
        half: encoders in half precision (torch backend; bfloat16 on a CPU). An ONNX graph has the precision it was exported in.
        cuda_graphs: replay each encoder as one CUDA graph (torch backend on CUDA).
    """

    device: str = "auto"
    threads: int = 1
    half: bool = False
    cuda_graphs: bool = False


class Backend(Protocol):
    """Runs one bundle. Call from one thread."""

    device: str
    """The device really in use, for example ``cpu`` or ``cuda``."""
    fault: str
    """Why a device was given up since the start, empty if none was."""

    def encode(self, modality: str, sample: np.ndarray) -> np.ndarray:
        """Embed one sample of the bundle's input shape: float32 ``(embedding_dim,)``."""

    def fuse(self, embeddings: Mapping[str, np.ndarray], present: Sequence[bool]) -> HeadOutput:
        """Fuse what is present; an absent modality's embedding may be missing from the mapping."""


Encoder = Callable[[np.ndarray], np.ndarray]
"""From one sample of the input shape to its embedding, float32 ``(embedding_dim,)``."""

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
DEVICES = ("auto", *_PROVIDERS)


class Head:
    """The head graph, on the CPU, through arrays that are bound to it once: handing over three inputs and nine outputs anew takes as long as ten of
    its operators. Call from one thread."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self._session = _session(bundle, bundle.manifest.head, "cpu", threads)
        _check_head(bundle, self._session)
        self._binding = self._session.io_binding()
        self._held: list[ort.OrtValue] = []  # what is bound must live as long as the binding
        inputs = {
            node.name: self._bound(node, self._binding.bind_ortvalue_input) for node in self._session.get_inputs()
        }
        self._embeddings = {m.name: inputs[f"embedding_{m.name}"] for m in bundle.manifest.modalities}
        self._present = inputs["present"]
        given = {node.name: node for node in self._session.get_outputs()}
        self._outputs = [
            self._bound(given[name], self._binding.bind_ortvalue_output)[
                0, ...
            ]  # an array, also where it is one number
            for name in (*HEAD_OUTPUTS, DISTANCES)
            if name in given
        ]

    def _bound(self, node: ort.NodeArg, bind: Callable[[str, ort.OrtValue], None]) -> np.ndarray:
        """An array for a batch of one, which the graph reads or writes from now on."""
        dtype = next(dtype for dtype, name in _ORT_TYPES.items() if name == node.type)
        array = np.zeros([size if isinstance(size, int) else 1 for size in node.shape], dtype)
        self._held.append(ort.OrtValue.ortvalue_from_numpy(array))
        bind(node.name, self._held[-1])
        return array

    def __call__(self, embeddings: Mapping[str, np.ndarray], present: Sequence[bool]) -> HeadOutput:
        for (name, bound), used in zip(self._embeddings.items(), present, strict=True):
            bound[0] = embeddings[name] if used else 0.0
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


class OnnxBackend:
    """onnxruntime, one session for each graph.

    Raises:
        BackendError: the device is unknown or not available, or an option is for another backend.
        BundleError: a graph does not load, or its inputs and outputs are not those the manifest promises.
    """

    def __init__(self, bundle: Bundle, options: BackendOptions = BackendOptions()) -> None:
        if options.half or options.cuda_graphs:
            raise BackendError(
                "half and cuda_graphs are options of the torch backend; export the bundle in half precision with `aecf quantize`, "
                "or set backend: torch"
            )
        self.fault = ""
        self.device, self._encoders = _open_encoders(bundle, options.device, options.threads)
        self._head = Head(bundle, options.threads)

    def encode(self, modality: str, sample: np.ndarray) -> np.ndarray:
        return self._encoders[modality](sample)

    def fuse(self, embeddings: Mapping[str, np.ndarray], present: Sequence[bool]) -> HeadOutput:
        return self._head(embeddings, present)


def _on_host(session: ort.InferenceSession, modality: ManifestEntry) -> Encoder:
    """Runs where the sample lies; nothing is copied."""
    name = modality.input_name
    return lambda sample: session.run(("embedding",), {name: sample[None]})[0][0]


class BoundEncoder:
    """Runs a session on a device through memory that was allocated there once: one copy in, one small copy out."""

    def __init__(self, session: ort.InferenceSession, modality: ManifestEntry, device: str = "cuda") -> None:
        self._session = session
        self._input = ort.OrtValue.ortvalue_from_shape_and_type(
            (1, *modality.sample_shape), modality.input_dtype, device, 0
        )
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(modality.input_name, self._input)
        self._binding.bind_output("embedding", "cpu")

    def __call__(self, sample: np.ndarray) -> np.ndarray:
        self._input.update_inplace(np.ascontiguousarray(sample[None]))
        self._session.run_with_iobinding(self._binding)
        return self._binding.copy_outputs_to_cpu()[0][0]


class FallbackBackend:
    """A backend on a GPU that goes on on the CPU when the GPU fails; the sample that failed is run again, so that no prediction is lost.

    Args:
        make: makes the same backend for a device.
        device: what to begin with.
    """

    def __init__(self, make: Callable[[str], Backend], device: str) -> None:
        self._make = make
        self._backend = make(device)
        self.fault = ""

    @property
    def device(self) -> str:
        """The device really in use."""
        return self._backend.device

    def encode(self, modality: str, sample: np.ndarray) -> np.ndarray:
        if not self.fault and self.device != "cpu":
            try:
                return self._backend.encode(modality, sample)
            except Exception as error:  # whatever the driver or the runtime raises
                self.fault = f"{self.device} failed and was given up for the CPU ({first_line(error)}); check the GPU, then call ~/reload_model"
                self._backend = self._make("cpu")
        return self._backend.encode(modality, sample)

    def fuse(self, embeddings: Mapping[str, np.ndarray], present: Sequence[bool]) -> HeadOutput:
        return self._backend.fuse(embeddings, present)


def _open_encoders(bundle: Bundle, device: str, threads: int) -> tuple[str, dict[str, Encoder]]:
    """The device in use, and the encoder of each modality on it."""
    candidates = _candidates(device)
    for candidate in candidates:
        try:
            return candidate, _encoders_on(candidate, bundle, threads)
        except BackendError:
            # A GPU build lists providers whose libraries this machine may lack; "auto" then goes on to the next.
            if candidate == candidates[-1]:
                raise
    raise AssertionError("unreachable: there is always a candidate")


def _encoders_on(device: str, bundle: Bundle, threads: int) -> dict[str, Encoder]:
    modalities = bundle.manifest.modalities
    sessions = {file: _session(bundle, file, device, threads) for file in {m.encoder for m in modalities}}
    for modality in modalities:
        _check_encoder(bundle, modality, sessions[modality.encoder])
    if device == "cpu":
        return {m.name: _on_host(sessions[m.encoder], m) for m in modalities}
    try:
        return {m.name: BoundEncoder(sessions[m.encoder], m) for m in modalities}
    except Exception as error:  # onnxruntime has private types for a device without memory
        raise BackendError(
            f"device '{device}': no memory for the encoders' inputs ({first_line(error)}); free some, or set device: cpu"
        ) from None


def _session(bundle: Bundle, file: str, device: str, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_free_dimension_override_by_name("batch", 1)  # lets it fold shapes: 3 to 5 % quicker
    options.log_severity_level = 3
    wanted = _PROVIDERS[device]
    fallback = [] if device == "cpu" else [_PROVIDERS["cpu"]]  # operators a GPU provider lacks run on the CPU
    try:
        session = ort.InferenceSession(str(bundle.path(file)), options, providers=[wanted, *fallback])
    except Exception as error:  # onnxruntime raises many private types for a broken graph
        raise BundleError(
            f"{bundle.path(file)}: onnxruntime cannot load it ({first_line(error)}); train or export the bundle again"
        ) from None
    session.disable_fallback()  # Python's wrapper would go on on the CPU after an error, and say so nowhere
    if session.get_providers()[0] != wanted:
        raise BackendError(
            f"device '{device}' was asked for, but onnxruntime fell back to {session.get_providers()[0]}; "
            "check the driver and the CUDA libraries, or set device: cpu"
        )
    return session


def _candidates(device: str) -> list[str]:
    """Devices to try, best first."""
    available = ort.get_available_providers()
    if device == "auto":
        return [name for name in ("tensorrt", "cuda", "cpu") if _PROVIDERS[name] in available]
    if _PROVIDERS[device] not in available:
        raise BackendError(
            f"device '{device}' is not in this onnxruntime, which has {', '.join(available)}; install onnxruntime-gpu or set device: cpu"
        )
    return [device]


_ORT_TYPES = {"float32": "tensor(float)", "uint8": "tensor(uint8)", "bool": "tensor(bool)", "int64": "tensor(int64)"}


def _check(
    bundle: Bundle, file: str, what: str, nodes: Sequence[ort.NodeArg], due: Mapping[str, tuple[str, tuple[int, ...]]]
) -> None:
    found = {node.name: node for node in nodes}
    for name, (dtype, shape) in due.items():
        if name not in found:
            raise BundleError(
                f"{bundle.path(file)}: no {what} named '{name}' (it has {', '.join(sorted(found))}); export the bundle again"
            )
        node = found[name]
        if (
            node.type != _ORT_TYPES[dtype]
            or len(node.shape) != len(shape) + 1
            or any(isinstance(a, int) and a != b for a, b in zip(node.shape, (1, *shape), strict=True))
        ):
            raise BundleError(
                f"{bundle.path(file)}: {what} '{name}' is {node.type} {list(node.shape)} where bundle.yaml promises "
                f"{_ORT_TYPES[dtype]} {['batch', *shape]}; export the bundle again"
            )
    extra = sorted(set(found) - set(due))
    if extra and what == "input":
        raise BundleError(
            f"{bundle.path(file)}: wants the input{'s' if len(extra) > 1 else ''} {', '.join(extra)}, which nothing feeds; "
            "export the bundle again"
        )


def _check_encoder(bundle: Bundle, modality: ManifestEntry, session: ort.InferenceSession) -> None:
    _check(
        bundle,
        modality.encoder,
        "input",
        session.get_inputs(),
        {modality.input_name: (modality.input_dtype.name, modality.sample_shape)},
    )
    _check(
        bundle, modality.encoder, "output", session.get_outputs(), {"embedding": ("float32", (modality.embedding_dim,))}
    )


def _check_head(bundle: Bundle, session: ort.InferenceSession) -> None:
    manifest = bundle.manifest
    modalities, classes = len(manifest.modalities), len(manifest.labels)
    inputs = {f"embedding_{m.name}": ("float32", (m.embedding_dim,)) for m in manifest.modalities}
    _check(bundle, manifest.head, "input", session.get_inputs(), inputs | {"present": ("bool", (modalities,))})
    _check(
        bundle,
        manifest.head,
        "output",
        session.get_outputs(),
        {
            "probabilities": ("float32", (classes,)),
            "confidence": ("float32", ()),
            "gate_weights": ("float32", (modalities,)),
            "gate_entropy": ("float32", ()),
            "agreement": ("float32", ()),
            "modality_probabilities": ("float32", (modalities, classes)),
            "prediction_set": ("bool", (classes,)),
            "abstain_code": ("int64", ()),
        },
    )
    if DISTANCES in {node.name for node in session.get_outputs()}:
        _check(bundle, manifest.head, "output", session.get_outputs(), {DISTANCES: ("float32", (modalities,))})


def _torch(bundle: Bundle, options: BackendOptions) -> Backend:
    """Imported only where it is asked for: torch is large."""
    from aecf_ros.runtime.torch_backend import TorchBackend

    return TorchBackend(bundle, options)


BACKENDS: dict[str, Callable[[Bundle, BackendOptions], Backend]] = {"onnxruntime": OnnxBackend, "torch": _torch}


def make_backend(
    name: str, bundle: Bundle, device: str = "auto", threads: int = 1, *, half: bool = False, cuda_graphs: bool = False
) -> Backend:
    """Make a backend by name; on a GPU one that survives the GPU.

    Raises:
        BackendError: the name or the device is not known or not available, or the bundle has nothing for this backend.
        BundleError: the bundle's graphs are not what its manifest promises.
    """
    if name not in BACKENDS:
        raise BackendError(f"backend '{name}' is not known; use one of {', '.join(BACKENDS)}")
    if device not in DEVICES:
        raise BackendError(f"device '{device}' is not known; use one of {', '.join(DEVICES)}")

    def make(on: str) -> Backend:
        # Half precision and CUDA graphs are for the GPU that failed.
        gpu_only = {"half": half, "cuda_graphs": cuda_graphs} if on == device else {}
        return BACKENDS[name](bundle, BackendOptions(on, threads, **gpu_only))

    return FallbackBackend(make, device)
