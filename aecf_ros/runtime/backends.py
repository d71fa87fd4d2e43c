"""Choose a backend by name; on a GPU, one that goes on on the CPU when the GPU fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from aecf_ros.core.bundle import Bundle
from aecf_ros.core.errors import first_line
from aecf_ros.runtime.base import Backend, BackendError, BackendOptions, HeadOutput
from aecf_ros.runtime.onnx_backend import DEVICES, OnnxBackend
from aecf_ros.runtime.torch_backend import TorchBackend

__all__ = ["BACKENDS", "DEVICES", "Backend", "BackendError", "FallbackBackend", "make_backend"]

BACKENDS: dict[str, Callable[[Bundle, BackendOptions], Backend]] = {"onnxruntime": OnnxBackend, "torch": TorchBackend}


def make_backend(
    name: str, bundle: Bundle, device: str = "auto", threads: int = 1, *, half: bool = False, cuda_graphs: bool = False
) -> Backend:
    """Make a backend by name; see :class:`~aecf_ros.runtime.base.BackendOptions` for the options.

    Raises:
        BackendError: the backend or device is unknown or not available, or the bundle holds no graphs for this backend.
        BundleError: a graph of the bundle does not load or does not match its manifest.
    """
    if name not in BACKENDS:
        raise BackendError(f"backend '{name}' is not known; use one of {', '.join(BACKENDS)}")
    if device not in DEVICES:
        raise BackendError(f"device '{device}' is not known; use one of {', '.join(DEVICES)}")

    def make(actual: str) -> Backend:
        # Half precision and CUDA graphs are for the GPU that failed.
        gpu_only = {"half": half, "cuda_graphs": cuda_graphs} if actual == device else {}
        return BACKENDS[name](bundle, BackendOptions(actual, threads, **gpu_only))

    return FallbackBackend(make, device)


class FallbackBackend:
    """A backend on a GPU that switches to the CPU when the GPU fails. The failed sample is run again, so none is lost.

    Args:
        make: makes the same backend for a device.
        device: the device to start with.
    """

    def __init__(self, make: Callable[[str], Backend], device: str) -> None:
        self._make = make
        self._backend = make(device)
        self.fault = ""

    @property
    def device(self) -> str:
        """The device in use."""
        return self._backend.device

    def encode(self, modality: str, sample: np.ndarray) -> np.ndarray:
        if not self.fault and self.device != "cpu":
            try:
                return self._backend.encode(modality, sample)
            except Exception as error:  # whatever the driver or the runtime raises
                self.fault = (
                    f"{self.device} failed and was given up for the CPU ({first_line(error)}); "
                    "check the GPU, then call ~/reload_model"
                )
                self._backend = self._make("cpu")
        return self._backend.encode(modality, sample)

    def fuse(self, embeddings: Mapping[str, np.ndarray], present: Sequence[bool]) -> HeadOutput:
        return self._backend.fuse(embeddings, present)
