"""What the head adds to an encoder of ResNet-18 class: CPU time of both in onnxruntime, as deployed; one thread, one
sample.
"""

import io
import time

import numpy as np
import onnxruntime
import torch
from torch import nn

from aecf_ros.fusion import AECF


class Block(nn.Module):
    """The basic block of He et al. 2016."""

    def __init__(self, width_in: int, width: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width_in, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        same = stride == 1 and width_in == width
        shortcut = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        self.shortcut = nn.Identity() if same else shortcut

    def forward(self, x):
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet18() -> nn.Sequential:
    """[B, 3, 224, 224] -> [B, 512], random weights: its time is all that is asked of it."""
    layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    width = 64
    for size, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Block(width, size, stride), Block(size, size, 1)]
        width = size
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def measure(repeats: int = 60) -> dict[str, float]:
    """{"encoder_ms", "head_ms", "share"}; the head is AECF's default over two embeddings of 512, ten classes. Medians
    of CPU time.
    """
    image = torch.randn(1, 3, 224, 224)
    inputs = (torch.randn(1, 512), torch.randn(1, 512), torch.ones(1, 2, dtype=torch.bool))
    encoder_ms = _median_ms(resnet18().eval(), (image,), repeats)
    head_ms = _median_ms(_Flat(AECF([512, 512], 10)).eval(), inputs, 10 * repeats)
    return {"encoder_ms": encoder_ms, "head_ms": head_ms, "share": head_ms / encoder_ms}


class _Flat(nn.Module):
    def __init__(self, head: AECF):
        super().__init__()
        self.head = head

    def forward(self, camera, audio, present):
        return tuple(self.head([camera, audio], present))


def _median_ms(model: nn.Module, inputs: tuple[torch.Tensor, ...], repeats: int) -> float:
    buffer = io.BytesIO()
    torch.onnx.export(model, inputs, buffer, dynamo=True, verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(buffer.getvalue(), options)
    feed: dict[str, np.ndarray] = {i.name: x.numpy() for i, x in zip(session.get_inputs(), inputs, strict=True)}
    times = []
    for _ in range(repeats + 5):
        start = time.process_time()
        session.run(None, feed)
        times.append(time.process_time() - start)
    return 1e3 * sorted(times[5:])[repeats // 2]
