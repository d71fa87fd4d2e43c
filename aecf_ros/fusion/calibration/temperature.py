"""Temperature scaling (Guo et al. 2017)."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (PyTorch's own convention)


def fit_temperature(logits: Tensor, targets: Tensor) -> Tensor:
    """The inverse temperature with the least negative log-likelihood: scalar."""
    log_scale = torch.zeros((), dtype=torch.float64, requires_grad=True)
    minimize([log_scale], lambda: F.cross_entropy(logits.double() * log_scale.exp(), targets))
    return log_scale.detach().exp().to(logits.dtype)


def minimize(parameters: list[Tensor], loss: Callable[[], Tensor]) -> None:
    """Minimize ``loss()`` over ``parameters`` in place, by L-BFGS."""
    optimizer = torch.optim.LBFGS(parameters, max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
