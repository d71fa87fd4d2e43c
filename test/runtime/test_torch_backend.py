"""The torch backend gives what onnxruntime gives, from exported programs, and refuses in one line what it cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch", reason="torch is not installed: only training and this backend need it")

from torch import nn  # noqa: E402

from aecf_ros.core.bundle import BundleError, load_bundle, sha256  # noqa: E402
from aecf_ros.runtime.backends import BackendError, make_backend  # noqa: E402
from aecf_ros.runtime.torch_backend import program_file  # noqa: E402


class MeanColor(nn.Module):
    """The camera encoder of the tiny bundle: uint8 (B, H, W, 3) -> float32 (B, 3)."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.float().mean(dim=(1, 2)) / 255


class Tones(nn.Module):
    """Its audio encoder: float32 (B, 400) -> float32 (B, 3)."""

    def __init__(self) -> None:
        super().__init__()
        phase = 2 * np.pi * np.outer(np.arange(400) / 800, (50.0, 100.0, 200.0))
        waves = np.stack([np.cos(phase), np.sin(phase)], axis=2).reshape(400, 6) / 200
        self.project = nn.Linear(400, 6, bias=False)
        self.project.weight.data = torch.from_numpy(waves.T.astype(np.float32)).contiguous()

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        return self.project(samples).square().reshape(-1, 3, 2).sum(2)


@pytest.fixture
def bundle(make_bundle: object) -> Path:
    """The tiny bundle with a program beside each encoder."""
    directory = make_bundle()
    samples = {
        "camera": (MeanColor(), torch.zeros(1, 8, 8, 3, dtype=torch.uint8)),
        "audio": (Tones(), torch.zeros(1, 400)),
    }
    fields = yaml.safe_load((directory / "bundle.yaml").read_text())
    for name, (module, sample) in samples.items():
        file = program_file(f"{name}_encoder.onnx")
        torch.export.save(torch.export.export(module.eval(), (sample,)), directory / file)
        fields["files"][file] = sha256(directory / file)
    (directory / "bundle.yaml").write_text(yaml.safe_dump(fields))
    return directory


@pytest.mark.parametrize(("half", "tolerance"), [(False, 1e-5), (True, 2e-2)])
def test_both_backends_give_the_same_embeddings_and_predictions(bundle: Path, half: bool, tolerance: float) -> None:
    loaded, rng = load_bundle(bundle), np.random.default_rng(0)
    ours, theirs = make_backend("torch", loaded, "cpu", half=half), make_backend("onnxruntime", loaded, "cpu")
    assert ours.device == "cpu"
    for _ in range(3):
        samples = {
            "camera": rng.integers(0, 256, (8, 8, 3), np.uint8),
            "audio": rng.normal(0, 0.3, 400).astype(np.float32),
        }
        found = {name: ours.encode(name, sample) for name, sample in samples.items()}
        due = {name: theirs.encode(name, sample) for name, sample in samples.items()}
        for name in samples:
            assert found[name].dtype == np.float32 and found[name].shape == (3,)
            np.testing.assert_allclose(found[name], due[name], atol=tolerance)
        if not half:
            np.testing.assert_allclose(
                ours.fuse(found, [True, True]).probabilities, theirs.fuse(due, [True, True]).probabilities, atol=1e-4
            )


def test_an_embedding_is_not_overwritten_by_the_next(bundle: Path) -> None:
    backend = make_backend("torch", load_bundle(bundle), "cpu")
    red = backend.encode("camera", np.full((8, 8, 3), (255, 0, 0), np.uint8))
    backend.encode("camera", np.full((8, 8, 3), (0, 0, 255), np.uint8))
    np.testing.assert_allclose(red, [1, 0, 0])


def test_a_bundle_without_programs_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(
        BackendError,
        match="no camera_encoder.pt2, audio_encoder.pt2.*backend: onnxruntime.*programs=true.*"
        "frozen ones and vectors have no program",
    ):
        make_backend("torch", load_bundle(tiny_bundle), "cpu")


def test_a_program_that_does_not_load_is_refused(bundle: Path) -> None:
    (bundle / "camera_encoder.pt2").write_bytes(b"no program")
    fields = yaml.safe_load((bundle / "bundle.yaml").read_text())
    fields["files"]["camera_encoder.pt2"] = sha256(bundle / "camera_encoder.pt2")
    (bundle / "bundle.yaml").write_text(yaml.safe_dump(fields))
    with pytest.raises(BundleError, match="camera_encoder.pt2: torch cannot load it"):
        make_backend("torch", load_bundle(bundle), "cpu")


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_device_that_torch_lacks_is_refused(bundle: Path, device: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(BackendError, match=f"device '{device}'"):
        make_backend("torch", load_bundle(bundle), device)


def test_cuda_graphs_without_cuda_are_refused(bundle: Path) -> None:
    with pytest.raises(BackendError, match="cuda_graphs: false"):
        make_backend("torch", load_bundle(bundle), "cpu", cuda_graphs=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("options", [{}, {"half": True}, {"cuda_graphs": True}, {"half": True, "cuda_graphs": True}])
def test_on_cuda_it_gives_what_the_cpu_gives(bundle: Path, options: dict[str, bool]) -> None:
    ours, theirs = (
        make_backend("torch", load_bundle(bundle), "cuda", **options),
        make_backend("onnxruntime", load_bundle(bundle), "cpu"),
    )
    for value in (0, 100, 255):
        sample = np.full((8, 8, 3), value, np.uint8)
        np.testing.assert_allclose(ours.encode("camera", sample), theirs.encode("camera", sample), atol=1e-2)
