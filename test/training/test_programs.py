"""Exported programs are what the module is, and what the torch backend reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: only training needs it")

from aecf_ros.core.bundle import load_bundle  # noqa: E402
from aecf_ros.runtime.backends import make_backend  # noqa: E402
from aecf_ros.training.data.npy_units import folder_corpus  # noqa: E402
from aecf_ros.training.export.head_graph import ExportError  # noqa: E402
from aecf_ros.training.export.torch_programs import export_program  # noqa: E402
from aecf_ros.training.features.encoders import AudioEncoder, CameraEncoder  # noqa: E402
from aecf_ros.training.run.train import train  # noqa: E402


@pytest.mark.parametrize(
    ("encoder", "sample"),
    [
        (CameraEncoder(16, 20, 12), torch.randint(0, 256, (4, 16, 20, 3), dtype=torch.uint8)),
        (AudioEncoder(8000, 0.3, 10), torch.randn(4, 2400)),
    ],
)
def test_the_shipped_kinds_of_encoder_are_written_and_read_back(encoder, sample, tmp_path: Path) -> None:
    encoder.eval()
    export_program(encoder, sample, tmp_path / "encoder.pt2")
    program = torch.export.load(tmp_path / "encoder.pt2").module()
    with torch.inference_mode():
        for row in sample:
            torch.testing.assert_close(program(row[None]), encoder(row[None]), atol=1e-4, rtol=0)


def test_a_program_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    class Moody(torch.nn.Module):
        """Answers differently once it was exported."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mood", torch.zeros(1))

        def forward(self, x):
            return x + self.mood if torch.compiler.is_exporting() else x + 1

    with pytest.raises(ExportError, match="encoder.pt2: the program differs from the trained encoder by 1;"):
        export_program(Moody(), torch.zeros(1, 3), tmp_path / "encoder.pt2")


def test_a_bundle_trained_with_programs_runs_on_both_backends(make_dataset, quick_config, tmp_path: Path) -> None:
    counts = {"encoders": 320, "fusion": 240, "calibration": 400, "test": 240}
    data = make_dataset({"camera": "image", "audio": "audio"}, counts)
    train(
        folder_corpus(data),
        tmp_path / "bars",
        quick_config.model_copy(update={"programs": True}),
        run=tmp_path / "run",
        show_progress=False,
    )
    bundle = load_bundle(tmp_path / "bars")
    assert {"camera_encoder.pt2", "audio_encoder.pt2"} <= set(bundle.manifest.files)
    ours, theirs = make_backend("torch", bundle, "cpu"), make_backend("onnxruntime", bundle, "cpu")
    rng = np.random.default_rng(0)
    for sample, name in (
        (rng.integers(0, 256, (16, 20, 3), np.uint8), "camera"),
        (rng.normal(0, 0.3, 2400).astype(np.float32), "audio"),
    ):
        np.testing.assert_allclose(ours.encode(name, sample), theirs.encode(name, sample), atol=1e-3)
