"""Agreement of the modalities' own predictions: 1 - Jensen-Shannon divergence, normalized to [0, 1]."""

import torch
from torch import Tensor


def agreement(probabilities: Tensor, present: Tensor) -> Tensor:
    """1 - JSD / log |S| of the present modalities' predictions: [B]; 0 where fewer than two are present.

    probabilities: [B, M, C], each row summing to 1 and finite (absent rows are ignored); present: bool [B, M].
    JSD is the entropy of the mean prediction minus the mean entropy (Lin 1991), at most log |S|.
    """
    share = present.to(probabilities.dtype) / present.sum(-1, keepdim=True).clamp(min=1)  # [B, M]
    mean = (share.unsqueeze(-1) * probabilities).sum(1)  # [B, C]
    mean_entropy = -(share * torch.xlogy(probabilities, probabilities).sum(-1)).sum(-1)
    divergence = -torch.xlogy(mean, mean).sum(-1) - mean_entropy
    count = present.sum(-1)
    normalized = divergence / torch.log(count.clamp(min=2).to(probabilities.dtype))
    return torch.where(count > 1, (1.0 - normalized).clamp(0.0, 1.0), torch.zeros_like(normalized))
