"""How all of training opens ONNX graphs: on the CPU, and quiet, because errors are raised."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

ORT_ERRORS = tuple(
    kind
    for kind in vars(onnxruntime.capi.onnxruntime_pybind11_state).values()
    if isinstance(kind, type) and issubclass(kind, Exception)
)
"""What onnxruntime raises; its errors have no class in common."""


def open_session(model: Path | bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    """A CPU session of an ONNX file, or of a serialized model.

    Raises:
        one of ORT_ERRORS: onnxruntime does not load it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
