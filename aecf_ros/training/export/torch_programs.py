"""Encoders as torch exported programs, for ``backend: torch``."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor, nn

from aecf_ros.training.export.head_graph import ExportError

TOLERANCE = 1e-4


def export_program(module: nn.Module, sample: Tensor, path: Path) -> None:
    """Write an encoder as it is for one sample, and compare what was written with it.

    Args:
        sample: at least one sample ``(B, ...)`` as the encoder takes it; the program takes one at a time, as CUDA graphs want.
        path: ends in ``.pt2``.

    Raises:
        ExportError: the program differs from the module by more than :data:`TOLERANCE`.
    """
    one = sample[:1].contiguous()
    exporter = logging.getLogger("torch.export")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        torch.export.save(torch.export.export(module.eval(), (one,)), path)
    finally:
        exporter.setLevel(level)
    program = torch.export.load(path).module()
    with torch.inference_mode():
        gap = float((program(one) - module(one)).abs().max())
    if not gap <= TOLERANCE:
        raise ExportError(
            f"{path.name}: the program differs from the trained encoder by {gap:.2g}; report this with the torch version"
        )
