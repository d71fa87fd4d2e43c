"""Replace a concatenation by AECF in three lines. Run: `python docs/examples/replace_concatenation.py`."""

import torch
from torch import nn

from aecf_ros.fusion import AECF


class Concatenated(nn.Module):
    """The usual late fusion: concatenated embeddings and a linear head. It needs both inputs."""

    def __init__(self, camera: nn.Module, microphone: nn.Module, classes: int):
        super().__init__()
        self.camera, self.microphone = camera, microphone
        self.head = nn.Linear(64 + 32, classes)

    def forward(self, image, sound):
        return self.head(torch.cat([self.camera(image), self.microphone(sound)], dim=-1))


class Fused(Concatenated):
    """The same model with AECF as its head: it uses the inputs that are present; with none it gives the prior."""

    def __init__(self, camera: nn.Module, microphone: nn.Module, classes: int):
        super().__init__(camera, microphone, classes)
        self.head = AECF([64, 32], classes)  # 1

    def forward(self, image, sound, present):  # 2
        return self.head([self.camera(image), self.microphone(sound)], present)  # 3


def main() -> None:
    """One batch with every presence pattern; absent inputs are NaN, as in the buffer of a dead sensor."""
    torch.manual_seed(0)
    model = Fused(nn.Linear(100, 64), nn.Linear(50, 32), classes=10).eval()
    present = torch.tensor([[True, True], [True, False], [False, True], [False, False]])
    image, sound = torch.randn(4, 100), torch.randn(4, 50)
    image[~present[:, 0]], sound[~present[:, 1]] = torch.nan, torch.nan
    out = model(image, sound, present)
    for row in range(4):
        share = ", ".join(f"{w:.2f}" for w in out.gate_weights[row].tolist())
        print(f"present {present[row].tolist()}: confidence {out.confidence[row]:.2f}, gate weights [{share}]")


if __name__ == "__main__":
    main()
