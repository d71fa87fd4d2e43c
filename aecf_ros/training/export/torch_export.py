"""Export the head of a bundle as a torch program that runs without this package."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePath

import torch
from torch import Tensor

from aecf_ros.core.bundle import Bundle
from aecf_ros.training.export.head_graph import ExportError
from aecf_ros.training.export.head_weights import load_head

HEAD_PROGRAM = "head.pt2"
_SAMPLES, _TOLERANCE = 16, 1e-5


def export_torch(bundle: Bundle, out: Path) -> list[Path]:
    """Write ``head.pt2`` to the folder ``out``, and the encoders that the bundle has as programs.

    The program takes an embedding float32 ``(B, D_m)`` for each modality, in the manifest's order, then ``present``
    bool ``(B, M)``, and returns the head's outputs as a tuple. B is free.

    Returns:
        The files.

    Raises:
        BundleError: the bundle has no ``head.safetensors``.
        ExportError: the program does not compute what the head does.
    """
    head, manifest = load_head(bundle), bundle.manifest
    draw = torch.Generator().manual_seed(0)
    embeddings = [torch.randn(_SAMPLES, m.embedding_dim, generator=draw) for m in manifest.modalities]
    present = torch.rand(_SAMPLES, len(embeddings), generator=draw) < 0.7
    out.mkdir(parents=True, exist_ok=True)
    path = out / HEAD_PROGRAM
    batch = torch.export.Dim("batch", min=1, max=65536)
    shapes = tuple({0: batch} for _ in range(len(embeddings) + 1))
    torch.export.save(torch.export.export(head, (*embeddings, present), dynamic_shapes=(shapes,)), path)
    _verify(head, path, [e[:3] for e in embeddings], present[:3])
    files = [path]
    for file in (str(PurePath(m.encoder).with_suffix(".pt2")) for m in manifest.modalities):
        if file in manifest.files:
            shutil.copyfile(bundle.path(file), out / file)
            files.append(out / file)
    return files


@torch.inference_mode()
def _verify(head: torch.nn.Module, path: Path, embeddings: list[Tensor], present: Tensor) -> None:
    """Compare program and head on a batch of another size than the traced one."""
    program = torch.export.load(path).module()
    for output, expected in zip(program(*embeddings, present), head(*embeddings, present), strict=True):
        if not torch.allclose(output.float(), expected.float(), rtol=_TOLERANCE, atol=_TOLERANCE):
            gap = float((output.float() - expected.float()).abs().max())
            raise ExportError(
                f"{path}: the program differs from the head by {gap:.2g}; report this with the torch version"
            )
