"""Run preprocessing, encoder and postprocessing one after the other, before they are joined into one graph."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter, process_time
from typing import Any

import numpy as np
import onnxruntime

from aecf_ros.core.errors import one_line
from aecf_ros.training.onnx_session import ORT_ERRORS, open_session
from aecf_ros.training.wrap.graph import Encoder
from aecf_ros.training.wrap.postprocess import postprocessing
from aecf_ros.training.wrap.preprocess import preprocessing
from aecf_ros.training.wrap.spec import AudioEncoder, ImageEncoder, WrapError

RATE_SECONDS = 1.0


class Parts:
    """Preprocessing, encoder and postprocessing as three sessions.

    Raises:
        WrapError: the encoder does not run on its prepared input, or gives no vector.
    """

    def __init__(self, encoder: Encoder, spec: ImageEncoder | AudioEncoder, bare: onnxruntime.InferenceSession) -> None:
        self._encoder, self._bare = encoder, bare
        self.preprocessing = preprocessing(encoder, spec)
        self._prepare = open_session(self.preprocessing.SerializeToString())
        x = self.prepare(draw(spec, 1))
        try:
            shape = self._encode(x).shape
        except ORT_ERRORS as error:
            raise WrapError(
                f"{encoder.path}: does not run on the input that the YAML describes ({one_line(error)}); "
                "correct the YAML or export the encoder again"
            ) from None
        self.postprocessing = postprocessing(encoder, spec, shape)
        self._finish = open_session(self.postprocessing.SerializeToString())

    def prepare(self, x: np.ndarray) -> Any:
        """The encoder's input from raw samples, uint8 (K, H, W, 3) or float32 (K, N)."""
        return self._prepare.run(None, {self._prepare.get_inputs()[0].name: x})[0]

    def _encode(self, x: np.ndarray) -> Any:
        return self._bare.run([self._encoder.output], {self._encoder.input: x})[0]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Embeddings float32 (K, D), one sample at a time."""
        return np.concatenate(
            [self._finish.run(None, {"output": self._encode(self.prepare(row[None]))})[0] for row in x]
        )

    def rates(self, wrapped: onnxruntime.InferenceSession, x: np.ndarray) -> tuple[float, float]:
        """Samples per second of processor time of the joined graph and of the bare encoder, measured in turns."""
        prepared = self.prepare(x)
        seconds: tuple[list[float], list[float]] = ([], [])
        runs: tuple[Callable[[], Any], ...] = (lambda: embed(wrapped, x), lambda: self._encode(prepared))
        begin = perf_counter()
        while len(seconds[0]) < 3 or perf_counter() - begin < RATE_SECONDS:
            for run, taken in zip(runs, seconds, strict=True):
                start_s = process_time()  # wall-clock time would depend on the load of the machine
                run()
                taken.append(process_time() - start_s)
        wrapped_s, bare_s = (max(float(np.median(taken)), 1e-9) for taken in seconds)
        return 1 / wrapped_s, 1 / bare_s


def draw(spec: ImageEncoder | AudioEncoder, count: int) -> np.ndarray:
    """Random input of a wrapped encoder, always the same: uint8 (count, H, W, 3) or float32 (count, N)."""
    rng = np.random.default_rng(0)
    if isinstance(spec, ImageEncoder):
        assert spec.height is not None and spec.width is not None
        return rng.integers(0, 256, (count, spec.height, spec.width, 3), np.uint8)
    return rng.uniform(-0.5, 0.5, (count, spec.samples)).astype(np.float32)


def embed(wrapped: onnxruntime.InferenceSession, x: np.ndarray) -> Any:
    """Embeddings float32 (K, D) of a wrapped encoder, in one batch."""
    return wrapped.run(["embedding"], {wrapped.get_inputs()[0].name: x})[0]


def open_bare(encoder: Encoder) -> onnxruntime.InferenceSession:
    """A session of the encoder without its pre- and postprocessing.

    Raises:
        WrapError: onnxruntime does not load it.
    """
    try:
        return open_session(encoder.path)
    except ORT_ERRORS as error:
        raise WrapError(f"{encoder.path}: onnxruntime does not load it ({one_line(error)}); export it again") from None
