"""Temperature scaling (Guo et al. 2017)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def fit_temperature(logits: Tensor, targets: Tensor) -> Tensor:
    """The inverse temperature with the least negative log-likelihood: scalar. Convex in it, so Newton-like steps find
    it.
    """
    log_scale = torch.zeros((), dtype=torch.float64, requires_grad=True)
    minimize([log_scale], lambda: F.cross_entropy(logits.double() * log_scale.exp(), targets))
    return log_scale.detach().exp().to(logits.dtype)


def minimize(parameters: list[Tensor], loss: Callable[[], Tensor]) -> None:
    """Minimize ``loss()`` over ``parameters`` in place, by L-BFGS."""
    optimizer = torch.optim.LBFGS(parameters, max_iter=50, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)
