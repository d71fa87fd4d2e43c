"""Inputs of the MA-AFS scheduler: predictive entropy of each modality, presence and agreement."""

import torch
from torch import Tensor

from aecf_ros.fusion.gates.statistics import predictive_entropy
from aecf_ros.fusion.presence.agreement import agreement


def scheduler_inputs(logits: Tensor, present: Tensor) -> Tensor:
    """Gate inputs [B, 2 M + 1]: predictive entropy of each modality (0 where absent), presence, agreement.

    logits: [B, M, C] of the modalities alone, finite; present: bool [B, M].
    """
    mask = present.to(logits.dtype)
    together = agreement(torch.softmax(logits, dim=-1), present).unsqueeze(-1)
    return torch.cat([predictive_entropy(logits) * mask, mask, together], dim=-1)
