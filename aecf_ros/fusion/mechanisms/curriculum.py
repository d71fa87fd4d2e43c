"""Adaptive curriculum masking: mask the dominant modality with a probability that depends on the gate entropy.

The paper's text masks more where gate entropy is low (probe the dominant modality); the published package masks more
where it is high, then returns the unmasked weights. Both directions are options; masking here removes the input and its
presence bit.
"""

import torch
from torch import Tensor

from aecf_ros.fusion.mechanisms.entropy import gate_entropy, normalized_entropy

DIRECTIONS = ("low-entropy", "high-entropy")


def curriculum_rate(weights: Tensor, present: Tensor, rate: float, direction: str) -> Tensor:
    """Probability of masking, [B]: rate * (1 - H / log |S|) for "low-entropy", rate * H / log |S| for "high-entropy".

    weights: [B, M]; present: bool [B, M]; rate: the largest probability.
    """
    if direction not in DIRECTIONS:
        raise ValueError(f"curriculum direction {direction!r} is not known; use one of {', '.join(DIRECTIONS)}")
    entropy = normalized_entropy(gate_entropy(weights), present)
    return rate * (1.0 - entropy if direction == "low-entropy" else entropy)


def mask_dominant(
    weights: Tensor, present: Tensor, probability: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Presence bool [B, M] with the heaviest modality removed with the given probability [B].

    The last modality present is never removed.
    """
    hit = torch.rand(probability.shape, generator=generator, device=probability.device) < probability
    hit = hit & (present.sum(-1) > 1)
    dominant = torch.nn.functional.one_hot(weights.argmax(-1), weights.shape[-1]).bool()
    return present & ~(dominant & hit.unsqueeze(-1))
