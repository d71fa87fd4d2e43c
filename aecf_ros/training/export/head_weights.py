"""``head.safetensors``: the weights that ``head.onnx`` was exported from, for refitting and for use in torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from aecf_ros.core.bundle import Bundle, BundleError
from aecf_ros.core.errors import first_line
from aecf_ros.fusion.layer import AECF
from aecf_ros.training.calibration.calibrate import Calibration
from aecf_ros.training.export.head_graph import ExportedHead

HEAD_WEIGHTS = "head.safetensors"
METADATA = "aecf.head"
"""Key of the file's metadata, whose values are text: JSON of what is not a tensor."""
FUSION, TABLES = "fusion.", "calibration."
"""What the names of the tensors begin with: the fusion layer's own names follow, and those of :class:`Calibration`."""
_TABLES = ("temperatures", "set_thresholds", "outlier_above")
_LISTS = ("centers", "whiteners")


def save_head(path: Path, head: AECF, calibration: Calibration, options: Mapping[str, Any]) -> None:
    """Write a fitted head and its calibration to one safetensors file.

    Args:
        options: the keyword arguments that ``head`` was made with; ``monotone`` and its reach are taken from ``head``.
    """
    tensors = {FUSION + name: value.detach().contiguous() for name, value in head.state_dict().items()}
    for name in _TABLES:
        tensors[TABLES + name] = torch.from_numpy(np.ascontiguousarray(getattr(calibration, name)))
    for name in _LISTS:
        for m, value in enumerate(getattr(calibration, name)):
            tensors[f"{TABLES}{name}_{m}"] = torch.from_numpy(np.ascontiguousarray(value))
    facts = {
        "widths": [centers.shape[1] for centers in calibration.centers],
        "classes": len(head.log_prior),
        "options": dict(options) | {"monotone": head.monotone, "monotone_reach": head.monotone_reach},
        "coverage": calibration.coverage,
        "conflict_below": calibration.conflict_below,
        "abstain_below": calibration.abstain_below,
    }
    path.write_bytes(save(tensors, {METADATA: json.dumps(facts)}))


def load_parts(bundle: Bundle) -> tuple[AECF, Calibration, dict[str, Any]]:
    """The fusion layer, its calibration (with empty ``fits``) and its options, as :func:`save_head` wrote them.

    Raises:
        BundleError: the bundle has no such file, or the file does not match the manifest.
    """
    manifest = bundle.manifest
    if manifest.task == "multilabel":
        raise BundleError(
            f"{bundle.directory}: its task is multilabel, and only heads with one label keep their weights; "
            "give a bundle with one label"
        )
    if manifest.head_weights is None:
        raise BundleError(
            f"{bundle.directory}: has no head.safetensors, as bundles of older versions; train the bundle again"
        )
    path = bundle.path(manifest.head_weights)
    widths = [m.embedding_dim for m in manifest.modalities]
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()[METADATA])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
        if (facts["widths"], facts["classes"]) != (widths, len(manifest.labels)):
            raise ValueError(
                f"expected widths {widths} and {len(manifest.labels)} classes as in the manifest, "
                f"got {facts['widths']} and {facts['classes']}"
            )
        head = AECF(widths, facts["classes"], **facts["options"])
        head.load_state_dict(
            {name.removeprefix(FUSION): value for name, value in tensors.items() if name.startswith(FUSION)}
        )
        tables = {name: tensors[TABLES + name].numpy() for name in _TABLES}
        lists: dict[str, Any] = {
            name: [tensors[f"{TABLES}{name}_{m}"].numpy() for m in range(len(widths))] for name in _LISTS
        }
        calibration = Calibration(
            coverage=facts["coverage"],
            conflict_below=facts["conflict_below"],
            abstain_below=facts["abstain_below"],
            fits=[],
            **tables,
            **lists,
        )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BundleError(
            f"{path}: not the weights of this bundle's head ({first_line(error)}); train the bundle again"
        ) from None
    return head.eval(), calibration, facts["options"]


def load_head(bundle: Bundle) -> ExportedHead:
    """The module that ``head.onnx`` was exported from.

    Raises:
        BundleError: as :func:`load_parts`.
    """
    head, calibration, _ = load_parts(bundle)
    return ExportedHead(head, calibration).eval()
