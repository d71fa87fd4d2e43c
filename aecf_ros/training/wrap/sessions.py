"""An encoder between its pre- and postprocessing, run one after the other, for what is to be known before they are joined."""

from __future__ import annotations

from time import perf_counter, process_time

import numpy as np
import onnxruntime

from aecf_ros.core.errors import one_line
from aecf_ros.training.onnx_session import ORT_ERRORS, open_session
from aecf_ros.training.wrap.graph import Encoder
from aecf_ros.training.wrap.postprocess import behind
from aecf_ros.training.wrap.preprocess import before
from aecf_ros.training.wrap.spec import AudioEncoder, ImageEncoder, WrapError

RATE_SECONDS = 1.0


class Parts:
    """Preprocessing, encoder and postprocessing as three sessions.

    Raises:
        WrapError: the encoder does not run on what it would be given, or gives no vector.
    """

    def __init__(self, encoder: Encoder, spec: ImageEncoder | AudioEncoder, bare: onnxruntime.InferenceSession) -> None:
        self._encoder, self._bare = encoder, bare
        self.before = before(encoder, spec)
        self._before = open_session(self.before.SerializeToString())
        x = self.prepare(draw(spec, 1))
        try:
            shape = self._encode(x).shape
        except ORT_ERRORS as error:
            raise WrapError(
                f"{encoder.path}: does not run on what the YAML makes ({one_line(error)}); correct the YAML or export the encoder again"
            ) from None
        self.behind = behind(encoder, spec, shape)
        self._behind = open_session(self.behind.SerializeToString())

    def prepare(self, x: np.ndarray) -> np.ndarray:
        """What the encoder is given for raw samples: uint8 (K, H, W, 3) or float32 (K, N) to what it takes itself."""
        return self._before.run(None, {self._before.get_inputs()[0].name: x})[0]

    def _encode(self, x: np.ndarray) -> np.ndarray:
        return self._bare.run([self._encoder.output], {self._encoder.input: x})[0]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """One sample at a time: float32 (K, D)."""
        return np.concatenate(
            [self._behind.run(None, {"output": self._encode(self.prepare(row[None]))})[0] for row in x]
        )

    def rates(self, wrapped: onnxruntime.InferenceSession, x: np.ndarray) -> tuple[float, float]:
        """Samples in a second of processor time, of the joined graph and of the bare encoder, one at a time and in turns."""
        prepared = self.prepare(x)
        seconds: tuple[list[float], list[float]] = ([], [])
        runs = (lambda: embed(wrapped, x), lambda: self._encode(prepared))
        begin = perf_counter()
        while len(seconds[0]) < 3 or perf_counter() - begin < RATE_SECONDS:
            for run, taken in zip(runs, seconds, strict=True):
                at = process_time()  # a busy machine would tell on the clock
                run()
                taken.append(process_time() - at)
        wrapped_s, bare_s = (max(float(np.median(taken)), 1e-9) for taken in seconds)
        return 1 / wrapped_s, 1 / bare_s


def draw(spec: ImageEncoder | AudioEncoder, count: int) -> np.ndarray:
    """Random pictures uint8 (count, H, W, 3) or noise float32 (count, N), as a wrapped encoder takes them; the same each time."""
    rng = np.random.default_rng(0)
    if isinstance(spec, ImageEncoder):
        return rng.integers(0, 256, (count, spec.height, spec.width, 3), np.uint8)
    return rng.uniform(-0.5, 0.5, (count, spec.samples)).astype(np.float32)


def embed(wrapped: onnxruntime.InferenceSession, x: np.ndarray) -> np.ndarray:
    """Through a wrapped encoder, all at once: float32 (K, D)."""
    return wrapped.run(["embedding"], {wrapped.get_inputs()[0].name: x})[0]


def open_bare(encoder: Encoder) -> onnxruntime.InferenceSession:
    """The encoder as it lies on the disk, on one thread.

    Raises:
        WrapError: onnxruntime does not load it.
    """
    try:
        return open_session(encoder.path)
    except ORT_ERRORS as error:
        raise WrapError(f"{encoder.path}: onnxruntime does not load it ({one_line(error)}); export it again") from None
