"""Loss curves of a run as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure


def save_curves(curves: Mapping[str, Sequence[float]], path: Path) -> None:
    """Draw the mean loss of each epoch, one panel for each stage, and write a PNG."""
    figure = Figure(figsize=(4 * len(curves), 3), layout="constrained")
    for panel, (name, losses) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        panel.plot(range(1, len(losses) + 1), losses, marker=".")
        panel.set(title=name, xlabel="epoch", ylabel="training loss (nats)")
        panel.grid(alpha=0.3)
    figure.savefig(path, dpi=100)
