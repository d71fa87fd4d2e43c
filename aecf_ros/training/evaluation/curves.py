"""Plots of a run: losses, and reliability diagrams."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from aecf_ros.core.metrics.classification import ECE_BINS
from aecf_ros.training.head.fit_loop import History


def save_curves(curves: Mapping[str, History], path: Path) -> None:
    """Draw the losses of each epoch, one panel for each stage, and write a PNG."""
    figure = Figure(figsize=(4 * len(curves), 3), layout="constrained")
    for panel, (name, history) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        panel.plot(range(1, len(history.losses) + 1), history.losses, marker=".", label="training loss")
        if history.held_out:
            panel.plot(
                range(1, len(history.held_out) + 1), history.held_out, marker=".", label="held-out NLL over all subsets"
            )
            panel.legend()
        panel.set(title=name, xlabel="epoch", ylabel="nats")
        panel.grid(alpha=0.3)
    figure.savefig(path, dpi=100)


def save_reliability(reliability: Mapping[str, np.ndarray], path: Path) -> None:
    """Draw accuracy over confidence in the bins of the ECE, one panel for each subset of modalities, and write a PNG.

    Args:
        reliability: by subset float ``(2, N)``: confidence, and 1 where the label was right. The area of a dot is the
            share of samples in its bin.
    """
    figure = Figure(figsize=(3.2 * len(reliability), 3.4), layout="constrained")
    for panel, (name, (confidence, right)) in zip(
        figure.subplots(1, len(reliability), squeeze=False)[0], reliability.items(), strict=True
    ):
        bins = np.clip((confidence * ECE_BINS).astype(int), 0, ECE_BINS - 1)
        counts = np.bincount(bins, minlength=ECE_BINS)
        filled = counts > 0
        means = [
            np.bincount(bins, weights=values, minlength=ECE_BINS)[filled] / counts[filled]
            for values in (confidence, right)
        ]
        panel.plot([0, 1], [0, 1], color="gray", linewidth=1)
        panel.scatter(*means, s=10 + 300 * counts[filled] / max(counts.sum(), 1), alpha=0.7)
        panel.set(
            title=f"{name} (n={counts.sum()})", xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02)
        )
    figure.savefig(path, dpi=100)
