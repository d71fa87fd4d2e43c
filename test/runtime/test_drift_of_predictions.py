"""The pipeline compares what the head says with what the bundle says of training, where both say it."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from aecf_ros.core.bundle import DriftReference, load_bundle
from aecf_ros.core.drift import warning
from aecf_ros.core.types import NANOSECONDS, RawImage
from aecf_ros.runtime.base import HeadOutput
from aecf_ros.runtime.onnx_backend import OnnxBackend
from aecf_ros.runtime.pipeline import Pipeline, PipelineConfig

REFERENCE = DriftReference(
    levels=[0.05, 0.95],
    distances={"camera": [0.1, 0.9], "audio": [0.1, 0.9]},
    confidence={"camera": [0.5, 0.6], "audio": [0.5, 0.6]},
)


class Measuring(OnnxBackend):
    """Also says how far a picture lies from training: by how green it is."""

    def fuse(self, embeddings: dict[str, np.ndarray], present: list[bool]) -> HeadOutput:
        distance = 2.0 * float(embeddings.get("camera", np.zeros(3))[1])
        return replace(super().fuse(embeddings, present), distances=np.array([distance, 0.0], np.float32))


def pipeline(bundle: Path, backend: type, **config: float) -> Pipeline:
    loaded = load_bundle(bundle)
    return Pipeline(loaded.manifest.model_copy(update={"drift": REFERENCE}), backend(loaded), PipelineConfig(**config))


def show(line: Pipeline, color: tuple[int, int, int], seconds: int, start_s: int = 0) -> str:
    """Frames of one color at 5 Hz, with noise, for whole seconds; gives what is warned of at the end."""
    rng = np.random.default_rng(start_s)
    for i in range(5 * seconds):
        now_ns = round((start_s + i / 5) * NANOSECONDS) + NANOSECONDS
        image = np.clip(np.array(color) + rng.integers(-9, 9, (8, 8, 3)), 0, 255).astype(np.uint8)
        line.observe("camera", RawImage(now_ns, now_ns, "rgb8", 8, 8, 24, image.tobytes()), now_ns)
        line.step(now_ns)
    return warning(line.drift.findings(now_ns))


def test_what_lies_far_from_training_is_called_and_the_window_is_a_setting(tiny_bundle: Path) -> None:
    line = pipeline(tiny_bundle, Measuring, drift_window_s=30.0)
    assert show(line, (200, 20, 20), 40) == ""
    assert "camera embeddings unlike training" in show(line, (20, 200, 20), 40, start_s=40)
    line.configure(replace(line.config, drift_window_s=0.0))
    assert show(line, (20, 200, 20), 40, start_s=80) == ""


def test_a_head_that_does_not_say_is_not_judged(tiny_bundle: Path) -> None:
    line = pipeline(tiny_bundle, OnnxBackend, drift_window_s=30.0)
    assert show(line, (20, 200, 20), 40) == "" and line.drift.findings(10**12) == ()


def test_time_that_jumped_back_starts_anew(tiny_bundle: Path) -> None:
    line = pipeline(tiny_bundle, Measuring, drift_window_s=30.0)
    assert show(line, (20, 200, 20), 40) != ""
    line.reset()
    assert line.drift.findings(0) == ()
