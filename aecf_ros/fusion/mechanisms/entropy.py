"""Adaptive entropy: reward the entropy of the gate weights, with a strength for each sample.

The paper (arXiv 2505.15417, section 3) subtracts lambda_t H(p) from a loss that is minimized, which rewards entropy,
while its figure says that entropy is penalized; it takes lambda(x) from Monte-Carlo dropout variance in one place and
from a schedule of the epoch in another. Each reading is an option here. See docs/research/method.md.
"""

import torch
from torch import Tensor


def gate_entropy(weights: Tensor) -> Tensor:
    """Shannon entropy of gate weights over the last axis, in nats: [...] from [..., M]. Absent modalities hold 0."""
    return -torch.xlogy(weights, weights).sum(-1)


def dropout_lambda(samples: Tensor, scale: float, cap: float) -> Tensor:
    """lambda(x) = min(cap, scale * variance over dropout passes of the gate's weights), without gradient.

    samples: [K, B, M], the gate's weights in K dropout passes. The variance is the mean over modalities. Returns [B].
    """
    variance = samples.detach().var(dim=0, unbiased=False).mean(-1)
    return (scale * variance).clamp(max=cap)


def scheduled_lambda(progress: float, peak: float) -> float:
    """The deterministic ablation: a ramp from 0 to `peak` over the first half of training, then held.

    progress: the share of training done, in [0, 1].
    """
    return peak * min(1.0, 2.0 * progress)


def entropy_term(entropy: Tensor, present: Tensor, strength: Tensor | float, *, sign: str, target: float) -> Tensor:
    """The term added to a loss that is minimized: scalar.

    entropy: [B] in nats; present: bool [B, M]; strength: lambda, [B] or a number; target: share of the largest entropy.
    sign "hinge": strength * max(0, target * log |S| - H), so entropy is rewarded until the target;
    "reward": -strength * H; "penalize": +strength * H (the figure's reading).
    """
    if sign == "hinge":
        goal = target * torch.log(present.sum(-1).clamp(min=1).to(entropy.dtype))
        cost = (goal - entropy).clamp(min=0.0)
    elif sign == "reward":
        cost = -entropy
    elif sign == "penalize":
        cost = entropy
    else:
        raise ValueError(f"entropy sign {sign!r} is not known; use 'hinge', 'reward' or 'penalize'")
    return (strength * cost).mean()


def normalized_entropy(entropy: Tensor, present: Tensor) -> Tensor:
    """Entropy over its largest value log |S|, in [0, 1]; 1 where fewer than two modalities are present: [B]."""
    count = present.sum(-1)
    largest = torch.log(count.clamp(min=2).to(entropy.dtype))
    return torch.where(count > 1, entropy / largest, torch.ones_like(entropy)).clamp(0.0, 1.0)
