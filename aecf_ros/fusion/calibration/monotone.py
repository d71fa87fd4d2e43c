"""Confidence that does not fall when a modality is added.

A Bayes-optimal fusion lowers its confidence if modalities conflict, so monotone confidence has a price.
Hard: the confidence is always raised to that of the most confident present subset. Soft: it is raised if the shortfall
is within a reach, which is scaled by the agreement of the modalities and by the square root of the standard deviation
sqrt(t (1 - t)) of a Bernoulli outcome with the target confidence t. Raising c to t is expected to cost KL(c, t) <=
(t - c)^2 / (t (1 - t)) nats, so this cost times the deviation is at most the square of reach times agreement. A larger
shortfall is not raised: a real conflict, where modalities do not agree, stays visible.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (PyTorch's own convention)

from aecf_ros.fusion.presence.agreement import agreement
from aecf_ros.fusion.presence.masking import all_subsets

REACHES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9, 1.0)
LEAST_VARIANCE = 1e-4
"""Minimum of t (1 - t): for a higher target confidence, rounding errors would determine the reach."""


def soft_lift(confidence: Tensor, target: Tensor, agreed: Tensor, reach: float) -> Tensor:
    """The lifted confidence [B]: `target` within the reach, `confidence` beyond 1.25 times it, continuous between.

    confidence, target and agreed, the agreement of the modalities: [B] in [0, 1].

    >>> agreed = torch.tensor([1.0, 1.0, 0.5, 1.0])
    >>> soft_lift(torch.tensor([0.76, 0.69, 0.69, 0.5]), torch.full((4,), 0.8), agreed, 0.1 / 0.4**0.5)
    tensor([0.8000, 0.7500, 0.6900, 0.5000])
    """
    shortfall = (target - confidence).clamp(min=0.0)
    within = reach * agreed * (target * (1.0 - target)).clamp(min=LEAST_VARIANCE).sqrt().sqrt()
    return confidence + torch.minimum(shortfall, (5.0 * within - 4.0 * shortfall).clamp(min=0.0))


def with_confidence(logits: Tensor, confidence: Tensor) -> Tensor:
    """Log probabilities [B, C] with the top label raised to `confidence` [B] and the others keeping their proportions.

    confidence must not be below the present one.
    """
    log_p = torch.log_softmax(logits, dim=-1)
    top = F.one_hot(log_p.argmax(-1), log_p.shape[-1]).bool()
    old = log_p.amax(-1).exp()
    rest = torch.log1p(-confidence.clamp(max=1 - 1e-7)) - torch.log1p(-old.clamp(max=1 - 1e-7))
    lifted = torch.where(top, torch.log(confidence).unsqueeze(-1), log_p + rest.unsqueeze(-1))
    return torch.where((confidence > old).unsqueeze(-1), lifted, log_p)


def lift_to_subsets(
    logits_of: Callable[[Tensor], Tensor], logits: Tensor, present: Tensor, reach: float | None
) -> Tensor:
    """Fused logits [B, C] whose confidence is raised to that of the present subsets.

    logits_of: presence mask bool [B, M] -> logits [B, C] before lifting. reach: None for hard. Subsets are visited from
    small to large and each is lifted over its own subsets first. 2^M - 2 evaluations of a small gate; M is at most 6.
    """
    subsets = all_subsets(present.shape[-1])
    if present.shape[-1] > 6:
        raise ValueError(
            f"{present.shape[-1]} modalities have too many subsets for monotone confidence; use monotone='off'"
        )
    lifted: list[Tensor] = []
    alone: list[Tensor] = []  # probabilities of each modality alone, [B, C]; single modalities are the first subsets
    for row, subset in enumerate(subsets):
        among = present & torch.tensor(subset, device=present.device)
        here = logits if row == len(subsets) - 1 else logits_of(among)
        probabilities = torch.softmax(here, dim=-1)
        confidence = probabilities.amax(-1)
        below = [lifted[r] for r in range(row) if all(a <= b for a, b in zip(subsets[r], subset, strict=True))]
        if below:
            wanted = torch.stack(below).amax(0)
            target = torch.maximum(confidence, wanted)
            if reach is not None:
                target = soft_lift(confidence, wanted, agreement(torch.stack(alone, dim=1), among), reach)
            here, confidence = with_confidence(here, target), target
        else:
            alone.append(probabilities)
        lifted.append(confidence)
    return here


class MonotoneLayer(Protocol):
    """The methods of AECF that `choose_reach` calls."""

    def expert_logits(self, embeddings: Sequence[Tensor], present: Tensor) -> tuple[list[Tensor], Tensor]: ...

    def subset_logits(
        self, embeddings: Sequence[Tensor], logits: Tensor, present: Tensor
    ) -> Callable[[Tensor], Tensor]: ...


@torch.no_grad()
def choose_reach(
    layer: MonotoneLayer,
    embeddings: Sequence[Tensor],
    targets: Tensor,
    *,
    violation: float,
    ceiling: float,
    reaches: Sequence[float] = REACHES,
) -> float:
    """The smallest reach that brings the violation rate down to `violation`, among those whose loss stays under
    `ceiling`.

    If none does, the one with the fewest violations; 0 if all cost too much. layer: an AECF;
    embeddings: M tensors [N, D_m], all present; targets: int64 [N], calibration data; ceiling: negative log-likelihood
    in nats, everything present.
    """
    present = torch.ones(len(targets), len(embeddings), dtype=torch.bool)
    clean, logits = layer.expert_logits(embeddings, present)
    plain = layer.subset_logits(clean, logits, present)
    singles = [
        torch.softmax(plain(torch.eye(len(embeddings), dtype=torch.bool)[m] & present), -1).amax(-1)
        for m in range(len(embeddings))
    ]
    allowed: dict[float, float] = {}
    for reach in reaches:
        lifted = lift_to_subsets(plain, plain(present), present, reach)
        if F.cross_entropy(lifted, targets) <= ceiling:
            confidence = torch.softmax(lifted, -1).amax(-1)
            allowed[reach] = torch.stack([single > confidence + 1e-6 for single in singles]).float().mean().item()
    enough = [reach for reach, rate in allowed.items() if rate <= violation]
    return min(enough) if enough else min(allowed, key=lambda reach: allowed[reach], default=0.0)
