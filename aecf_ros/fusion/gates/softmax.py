"""Gates with softmax weights, and an overview of all gates.

Every gate returns evidence [B, M, C], scaled logits relative to the prior, so that the fused logits are the log prior
plus their sum, and weights [B, M], the share of each modality.

- convex: weights of a masked softmax; evidence w_m l_m. It averages: two modalities that
  agree are no more confident than one.
- additive: the same weights times the number of modalities present; evidence |S| w_m l_m. It adds, as Bayes does.
- evidence: a product of experts, each tempered by its own reliability (see reliability.py).
- scheduler: additive, from predictive entropies and agreement only (MA-AFS, see ma_afs.py).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from aecf_ros.fusion.gates.ma_afs import scheduler_inputs
from aecf_ros.fusion.presence.masking import masked_softmax


class SoftmaxGate(nn.Module):
    """Masked softmax of a two-layer perceptron over all embeddings and the presence mask.

    dims: width of each modality. additive: multiply the weights by the number of modalities present.
    """

    def __init__(self, dims: Sequence[int], hidden: int, dropout: float, *, additive: bool) -> None:
        super().__init__()
        self.additive = additive
        self.score = _scorer(sum(dims) + len(dims), hidden, len(dims), dropout)

    def weights(self, embeddings: Sequence[Tensor], logits: Tensor, present: Tensor) -> Tensor:
        """Gate weights [B, M]; random while dropout is active."""
        inputs = torch.cat([*embeddings, present.to(embeddings[0].dtype)], dim=-1)
        return masked_softmax(self.score(inputs).float(), present)

    def forward(self, embeddings: Sequence[Tensor], logits: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Evidence [B, M, C] and weights [B, M] from embeddings ([B, D_m], zero where absent) and logits [B, M, C]."""
        weights = self.weights(embeddings, logits, present)
        return _scale(weights, logits, present, self.additive), weights


class SchedulerGate(nn.Module):
    """MA-AFS: a softmax gate over the predictive entropies and the agreement of the modalities, without embeddings."""

    def __init__(self, modalities: int, hidden: int, dropout: float, *, additive: bool = True) -> None:
        super().__init__()
        self.additive = additive
        self.score = _scorer(2 * modalities + 1, hidden, modalities, dropout)

    def weights(self, embeddings: Sequence[Tensor], logits: Tensor, present: Tensor) -> Tensor:
        """Gate weights [B, M]; random while dropout is active."""
        return masked_softmax(self.score(scheduler_inputs(logits, present)).float(), present)

    def forward(self, embeddings: Sequence[Tensor], logits: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Evidence [B, M, C] and weights [B, M]; see SoftmaxGate.forward."""
        weights = self.weights(embeddings, logits, present)
        return _scale(weights, logits, present, self.additive), weights


def gate_samples(
    gate: SoftmaxGate | SchedulerGate, embeddings: Sequence[Tensor], logits: Tensor, present: Tensor, passes: int
) -> Tensor:
    """The gate's weights in `passes` dropout passes, in one batch: [K, B, M]. The gate must be in training mode."""
    repeated = [e.repeat(passes, 1) for e in embeddings]
    weights = gate.weights(repeated, logits.repeat(passes, 1, 1), present.repeat(passes, 1))
    return weights.reshape(passes, *present.shape)


def _scale(weights: Tensor, logits: Tensor, present: Tensor, additive: bool) -> Tensor:
    if additive:
        weights = weights * present.sum(-1, keepdim=True).to(weights.dtype)
    return weights.unsqueeze(-1) * logits


def _scorer(width: int, hidden: int, modalities: int, dropout: float) -> nn.Sequential:
    last = nn.Linear(hidden, modalities)
    nn.init.zeros_(last.weight)  # start from equal weights
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), last)
