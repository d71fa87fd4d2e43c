"""Run the encoders of a bundle as torch exported programs, for CUDA graphs and half precision.

The bundle then holds ``NAME.pt2`` beside each ``NAME.onnx``; ``aecf train`` writes them with ``programs=true``. The
head is the ONNX graph in both backends. torch is imported when a backend is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np

from aecf_ros.core.bundle import Bundle, BundleError, ManifestEntry
from aecf_ros.runtime.base import BackendError, BackendOptions, Encoder, HeadOutput
from aecf_ros.runtime.onnx_backend import Head

if TYPE_CHECKING:
    import torch

CAPTURE_WARM_UPS = 3
"""Runs on a side stream before a CUDA graph is captured, as the documentation of torch asks."""


def program_file(encoder: str) -> str:
    """File name of the exported program of an encoder graph.

    >>> program_file("camera_encoder.onnx")
    'camera_encoder.pt2'
    """
    return str(PurePath(encoder).with_suffix(".pt2"))


class TorchBackend:
    """torch, one exported program for each encoder.

    Raises:
        BackendError: torch is not installed, the device is not available, or the bundle has no programs.
        BundleError: a program does not load, or its embedding does not match the manifest.
    """

    def __init__(self, bundle: Bundle, options: BackendOptions | None = None) -> None:
        options = options or BackendOptions()
        try:
            import torch
        except ModuleNotFoundError:
            raise BackendError(
                "backend 'torch' was asked for, but torch is not installed; "
                "pip install torch, or set backend: onnxruntime"
            ) from None
        missing = [
            program_file(m.encoder)
            for m in bundle.manifest.modalities
            if program_file(m.encoder) not in bundle.manifest.files
        ]
        if missing:
            raise BackendError(
                f"{bundle.directory}: no {', '.join(missing)} for backend 'torch'; set backend: onnxruntime, "
                "or train with programs=true, for which aecf train must train every encoder itself: "
                "frozen ones and vectors have no program"
            )
        self.fault = ""
        self.device = _choose_device(options.device, torch.cuda.is_available())
        if options.cuda_graphs and self.device != "cuda":
            raise BackendError(f"cuda_graphs was asked for, but the device is {self.device}; set cuda_graphs: false")
        torch.set_num_threads(options.threads)
        self._encoders = {m.name: _encoder(bundle, m, self.device, options) for m in bundle.manifest.modalities}
        self._head = Head(bundle, options.threads)

    def encode(self, modality: str, sample: np.ndarray) -> np.ndarray:
        return self._encoders[modality](sample)

    def fuse(self, embeddings: Mapping[str, np.ndarray], present: Sequence[bool]) -> HeadOutput:
        return self._head(embeddings, present)


def _choose_device(requested: str, has_cuda: bool) -> str:
    if requested == "tensorrt":
        raise BackendError("device 'tensorrt' is for backend onnxruntime; set device: cuda, or backend: onnxruntime")
    if requested == "cuda" and not has_cuda:
        raise BackendError(
            "device 'cuda' was asked for, but this torch finds no CUDA device; "
            "check the driver and torch's build, or set device: cpu"
        )
    return "cuda" if requested in ("auto", "cuda") and has_cuda else "cpu"


def _encoder(bundle: Bundle, modality: ManifestEntry, device: str, options: BackendOptions) -> Encoder:
    import torch

    path = bundle.path(program_file(modality.encoder))
    try:
        module = torch.export.load(path).module()
    except Exception as error:  # torch raises many types for a broken file
        raise BundleError(
            f"{path}: torch cannot load it ({type(error).__name__}); export the bundle again with this torch"
        ) from None
    module = module.to(device)
    resident = torch.zeros((1, *modality.sample_shape), dtype=getattr(torch, modality.input_dtype.name), device=device)
    staging = torch.zeros_like(resident, device="cpu").pin_memory() if device == "cuda" else resident
    half = (
        torch.autocast(device, torch.float16 if device == "cuda" else torch.bfloat16) if options.half else nullcontext()
    )

    @torch.inference_mode()
    def run() -> torch.Tensor:
        with half:
            embedding: torch.Tensor = module(resident).float()
        return embedding

    forward = _capture(run) if options.cuda_graphs else run
    shape = list(forward().shape)
    if shape != [1, modality.embedding_dim]:
        raise BundleError(
            f"{path}: its embedding is {shape}, but bundle.yaml says {[1, modality.embedding_dim]}; "
            "export the bundle again"
        )

    def encode(sample: np.ndarray) -> np.ndarray:
        staging.copy_(torch.from_numpy(np.require(sample[None], requirements="W")))
        if staging is not resident:
            resident.copy_(staging, non_blocking=True)
        return forward()[0].cpu().numpy()

    return encode


def _capture(run: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """Capture ``run`` as one CUDA graph. The next replay overwrites the result."""
    import torch

    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(CAPTURE_WARM_UPS):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()

    def replay() -> torch.Tensor:
        graph.replay()
        return result

    return replay
