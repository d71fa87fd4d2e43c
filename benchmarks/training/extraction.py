"""Feature extraction from a recording, as a share of what the bare encoders do on the same batches."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from aecf_ros.core.labeled_samples import NOTHING
from aecf_ros.replay.samples import BagUnit, scan_recording
from aecf_ros.training.data.corpus import Corpus
from aecf_ros.training.export.head_graph import export_onnx
from aecf_ros.training.features.cache import Extraction, extract
from aecf_ros.training.features.onnx_encoder import OUTPUT, FrozenEncoder, open_encoder

WIDTHS = (64, 64, 128, 256, 512)
SIDE = 224


class StandIn(nn.Module):
    """An encoder with random weights and about the arithmetic of a ResNet-18 at 224x224."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, WIDTHS[0], 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        for before, width in zip(WIDTHS, WIDTHS[1:], strict=False):
            stride = 1 if before == width else 2
            layers += [nn.Conv2d(before, width, 3, stride, 1), nn.ReLU()]
            layers += [layer for _ in range(3) for layer in (nn.Conv2d(width, width, 3, 1, 1), nn.ReLU())]
        self.body = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) -> float32 (B, 512)."""
        return self.body(image.permute(0, 3, 1, 2).float() / 255.0).mean((2, 3))


def measure_extraction(recording: Path, audio_encoder: Path, stride_s: float, repeats: int) -> dict[str, float]:
    """Samples per second of :func:`aecf_ros.training.features.cache.extract` and of the encoders alone, in turns.

    Returns:
        ``samples``; ``bare`` and ``extracted`` in samples per second, the best of ``repeats``; their ``share``; and the
        ``lowest`` and ``highest`` share of neighboring runs.
    """
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(
            StandIn(),
            [torch.zeros((2, SIDE, SIDE, 3), dtype=torch.uint8)],
            ["image"],
            [OUTPUT],
            Path(folder) / "camera.onnx",
        )
        encoders = {
            "camera": open_encoder(Path(folder) / "camera.onnx", "camera"),
            "audio": open_encoder(audio_encoder, "audio"),
        }
        specs = [of.spec for of in encoders.values()]
        scan = scan_recording(recording.stem, recording, specs)
        classes = {label: k for k, label in enumerate(sorted({span.label for span in scan.spans}))} or {"": NOTHING}
        unit = scan.unit(specs, classes, stride_s, 0.0, 0.35)
        corpus = Corpus(recording.stem, list(classes), specs, {"test": [unit]}, paired=True)
        bare, extracted = [], []
        for repeat in range(repeats):
            bare.append(_bare(unit, encoders))
            since = time.perf_counter()
            extract(Extraction(corpus, encoders, {"test": 0}, 0, Path(folder) / str(repeat)))
            extracted.append(time.perf_counter() - since)
        samples = sum(int(batch.present.sum()) for batch in unit.batches(32))
    shares = [b / e for b, e in zip(bare, extracted, strict=True)]
    return {
        "samples": samples,
        "bare": samples / min(bare),
        "extracted": samples / min(extracted),
        "share": min(bare) / min(extracted),
        "lowest": min(shares),
        "highest": max(shares),
    }


def _bare(unit: BagUnit, encoders: dict[str, FrozenEncoder]) -> float:
    """Seconds that the encoders take over batches that lie in memory."""
    size = min(of.batch for of in encoders.values())
    batches = list(unit.batches(size))
    since = time.perf_counter()
    for batch in batches:
        for name, encoder in encoders.items():
            if len(batch.inputs[name]):
                encoder.encode(batch.inputs[name])
    return time.perf_counter() - since
