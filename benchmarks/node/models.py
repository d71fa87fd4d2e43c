"""Bundles for measurements: encoders of known size with random weights, the shipped audio encoder, a default head."""

from __future__ import annotations

import hashlib
import shutil
from datetime import date
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from aecf_ros import fusion
from aecf_ros.core.bundle import FORMAT_VERSION, Manifest, load_bundle, sha256, write_manifest
from aecf_ros.fusion import AECF
from aecf_ros.fusion.presence.masking import all_subsets
from aecf_ros.training.calibration import calibrate
from aecf_ros.training.calibration.calibrate import Calibration
from aecf_ros.training.export import fast_head, fast_head_weights, head_graph
from aecf_ros.training.export.head_graph import HEAD_OUTPUTS, ExportedHead, export_onnx
from benchmarks.fusion.overhead import resnet18

SHIPPED = Path(__file__).resolve().parents[2] / "models" / "av_digits"
SIDE = 224
EMBEDDING_DIM = 64
LABELS = [f"class{i}" for i in range(10)]


class SqueezeExcite(nn.Module):
    """Channel attention (Hu et al. 2018) with the hard sigmoid of MobileNetV3."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = max(8, int(width / 4 + 4) // 8 * 8)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, inner, 1), nn.ReLU(), nn.Conv2d(inner, width, 1), nn.Hardsigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


def _convolution(
    width_in: int, width: int, kernel: int, stride: int, groups: int, activation: nn.Module
) -> list[nn.Module]:
    return [
        nn.Conv2d(width_in, width, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(width),
        activation,
    ]


class InvertedResidual(nn.Module):
    """The bottleneck of Howard et al. 2019, figure 4."""

    def __init__(self, width_in: int, row: tuple[int, int, int, bool, type[nn.Module], int]) -> None:
        """``row`` of :data:`MOBILENET_V3_SMALL`."""
        super().__init__()
        kernel, expanded, width, attends, activation, stride = row
        layers = _convolution(width_in, expanded, 1, 1, 1, activation()) if expanded != width_in else []
        layers += _convolution(expanded, expanded, kernel, stride, expanded, activation())
        layers += [SqueezeExcite(expanded)] if attends else []
        self.body = nn.Sequential(*layers, *_convolution(expanded, width, 1, 1, 1, nn.Identity()))
        self.skips = stride == 1 and width_in == width

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.skips else self.body(x)


MOBILENET_V3_SMALL = (
    (3, 16, 16, True, nn.ReLU, 2),
    (3, 72, 24, False, nn.ReLU, 2),
    (3, 88, 24, False, nn.ReLU, 1),
    (5, 96, 40, True, nn.Hardswish, 2),
    (5, 240, 40, True, nn.Hardswish, 1),
    (5, 240, 40, True, nn.Hardswish, 1),
    (5, 120, 48, True, nn.Hardswish, 1),
    (5, 144, 48, True, nn.Hardswish, 1),
    (5, 288, 96, True, nn.Hardswish, 2),
    (5, 576, 96, True, nn.Hardswish, 1),
    (5, 576, 96, True, nn.Hardswish, 1),
)
"""Howard et al. 2019, table 2: kernel, expanded width, width, squeeze-and-excite, activation, stride."""


def mobilenet_v3_small() -> nn.Sequential:
    """float32 [B, 3, 224, 224] -> [B, 576], without the classifier."""
    layers: list[nn.Module] = _convolution(3, 16, 3, 2, 1, nn.Hardswish())
    width = 16
    for row in MOBILENET_V3_SMALL:
        layers.append(InvertedResidual(width, row))
        width = row[2]
    return nn.Sequential(
        *layers, *_convolution(width, 576, 1, 1, 1, nn.Hardswish()), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


class Camera(nn.Module):
    """An encoder as a bundle holds it: uint8 [B, H, W, 3] -> float32 [B, 64], with ImageNet's normalization inside.

    It ends in a projection, as the encoders that `aecf train` makes do.
    """

    def __init__(self, body: nn.Module, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(body, nn.Linear(width, EMBEDDING_DIM, bias=False))
        self.register_buffer("mean", torch.tensor((123.675, 116.28, 103.53)).view(1, 3, 1, 1))
        self.register_buffer("scale", 1 / torch.tensor((58.395, 57.12, 57.375)).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        return self.body((image.permute(0, 3, 1, 2).float() - self.mean) * self.scale)


BODIES = {"mobilenet": (mobilenet_v3_small, 576), "resnet18": (resnet18, 512)}


def write_bundle(directory: Path, encoder: str, cameras: int = 1, microphones: int = 1, side: int = SIDE) -> Path:
    """A bundle beside ``directory``, named after the code that writes it; one of an earlier run is kept.

    Args:
        encoder: a key of BODIES; random weights from a fixed seed, since only its time matters.
    """
    directory = directory.with_name(f"{directory.name}_{_code_digest()}")
    if (directory / "bundle.yaml").is_file():
        load_bundle(directory)
        return directory
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copy(
        _camera_encoder(directory.parent / f"{encoder}_{side}.onnx", encoder, side), directory / "camera_encoder.onnx"
    )
    shutil.copy(SHIPPED / "audio_encoder.onnx", directory)
    audio = load_bundle(SHIPPED).manifest.modalities[1]
    modalities = [
        {
            "name": _numbered("camera", i, cameras),
            "kind": "image",
            "encoder": "camera_encoder.onnx",
            "embedding_dim": EMBEDDING_DIM,
            "height": side,
            "width": side,
        }
        for i in range(cameras)
    ]
    modalities += [audio.model_dump() | {"name": _numbered("audio", i, microphones)} for i in range(microphones)]
    _write_head(directory / "head.onnx", [m["name"] for m in modalities], [m["embedding_dim"] for m in modalities])
    subsets = [
        "+".join(m["name"] for m, used in zip(modalities, pattern, strict=True) if used)
        for pattern in all_subsets(len(modalities))
    ]
    write_manifest(
        Manifest.model_validate(
            {
                "format_version": FORMAT_VERSION,
                "name": f"bench_{encoder}",
                "labels": LABELS,
                "modalities": modalities,
                "head": "head.onnx",
                "calibration": {
                    "method": "none, random weights",
                    "coverage": 0.9,
                    "subsets": dict.fromkeys(subsets, {"samples": 0, "temperature": 1.0, "set_threshold": 0.05}),
                },
                "training": {
                    "data": [],
                    "samples": {},
                    "seed": 0,
                    "created": date.today().isoformat(),
                    "aecf_ros_version": "bench",
                },
                "metrics": {},
                "files": {path.name: sha256(path) for path in sorted(directory.glob("*.onnx"))},
            }
        ),
        directory,
    )
    load_bundle(directory)
    return directory


def _code_digest() -> str:
    """Changes with what writes a head, so that none of an earlier code is measured."""
    modules = [Path(module.__file__) for module in (calibrate, head_graph, fast_head, fast_head_weights)]
    sources = sorted([*Path(fusion.__file__).parent.rglob("*.py"), *modules, Path(__file__)])
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:8]


def _camera_encoder(path: Path, encoder: str, side: int) -> Path:
    """Exported once for all bundles in a folder."""
    if not path.is_file():
        torch.manual_seed(0)
        make_body, width = BODIES[encoder]
        export_onnx(
            Camera(make_body(), width),
            [torch.zeros(2, side, side, 3, dtype=torch.uint8)],
            ["image"],
            ["embedding"],
            path,
        )
    return path


def _numbered(name: str, index: int, of: int) -> str:
    return name if of == 1 else f"{name}{index}"


def _write_head(path: Path, names: list[str], widths: list[int]) -> None:
    """The default AECF, lifted as the shipped one is, with an empty calibration."""
    head = AECF(widths, len(LABELS), monotone="soft" if len(widths) == 2 else "off")
    patterns = 2 ** len(names)
    calibration = Calibration(
        coverage=0.9,
        temperatures=np.ones(patterns, np.float32),
        set_thresholds=np.full(patterns, 0.05, np.float32),
        conflict_below=0.05,
        abstain_below=0.5,
        centers=[np.zeros((len(LABELS) + 1, w), np.float32) for w in widths],
        whiteners=[np.eye(w, dtype=np.float32) for w in widths],
        outlier_above=np.full(len(names), 1e9, np.float32),
        fits=[],
    )
    sample = [torch.randn(2, w) for w in widths]
    present = torch.ones(2, len(names), dtype=torch.bool)
    export_onnx(
        ExportedHead(head, calibration),
        [*sample, present],
        [*(f"embedding_{n}" for n in names), "present"],
        HEAD_OUTPUTS,
        path,
    )
