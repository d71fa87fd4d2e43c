"""The package `aecf` 0.1.0 as it is, from the folder that `make setup-bench` installs it into."""

import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from aecf_ros.fusion import baselines as base

FOLDER = str(Path(sys.prefix) / "upstream")


def upstream_installed() -> bool:
    """Whether the package can be imported; puts its folder at the end of the path."""
    if FOLDER not in sys.path:
        sys.path.append(FOLDER)
    return find_spec("aecf") is not None


class Upstream(nn.Module):
    """The package `aecf` 0.1.0 as it is: one query attends to the modalities, a linear head follows; absent keys are
    padding.
    """

    def __init__(self, dims, classes):
        from aecf import create_fusion_pool

        super().__init__()
        self.query, self.pool = create_fusion_pool(embed_dim=dims[0], num_modalities=len(dims), mask_prob=0.15)
        self.head = nn.Linear(dims[0], classes)

    def forward(self, embeddings, present):
        clean = torch.stack([torch.where(present[:, m, None], e, 0.0) for m, e in enumerate(embeddings)], dim=1)
        query = self.query.expand(len(present), -1, -1)
        fused, info = self.pool(query, clean, key_padding_mask=~present, return_info=True)
        self.info = info
        logits = self.head(fused.squeeze(1))
        weights = info["attention_weights"].squeeze(1)
        nothing = torch.zeros(*present.shape, logits.shape[1])
        confidence = logits.softmax(-1).amax(-1)
        return base.FusionOutput(logits, weights, nothing, base.gate_entropy(weights), confidence)
