"""Encoders as torch exported programs, for ``backend: torch``."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor, nn

from aecf_ros.training.export.head_graph import ExportError

TOLERANCE = 1e-4


def export_program(module: nn.Module, sample: Tensor, path: Path) -> None:
    """Write an encoder as a program for one sample, and compare the two.

    Args:
        sample: ``(B, ...)``, at least one; the program takes one sample at a time, for CUDA graphs.
        path: ends in ``.pt2``.

    Raises:
        ExportError: the program differs from the module by more than :data:`TOLERANCE`.
    """
    first = sample[:1].contiguous()
    exporter = logging.getLogger("torch.export")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        torch.export.save(torch.export.export(module.eval(), (first,)), path)
    finally:
        exporter.setLevel(level)
    program = torch.export.load(path).module()
    with torch.inference_mode():
        gap = float((program(first) - module(first)).abs().max())
    if not gap <= TOLERANCE:
        raise ExportError(
            f"{path.name}: the program differs from the trained encoder by {gap:.2g}; "
            "report this with the torch version"
        )
