"""Gates: how the evidence of several modalities becomes one.

Every gate answers with evidence [B, M, C], in logits relative to the prior and already scaled, so that the fused logits
are the log prior plus their sum, and with weights [B, M], each modality's share.

- convex: weights of a masked softmax; evidence w_m l_m. Averages, so two modalities that agree are no surer than one.
- additive: the same weights times the number of modalities present; evidence |S| w_m l_m. Adds, as Bayes does.
- evidence: a product of experts, each tempered by its own reliability (see reliability.py).
- scheduler: additive, steered by predictive entropies and agreement only (MA-AFS, see ma_afs.py).
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

    def __init__(self, dims: Sequence[int], hidden: int, dropout: float, *, additive: bool):
        super().__init__()
        self.additive = additive
        self.score = _scorer(sum(dims) + len(dims), hidden, len(dims), dropout)

    def weights(self, embeddings: Sequence[Tensor], logits: Tensor, present: Tensor) -> Tensor:
        """Gate weights [B, M]; random while dropout is active."""
        inputs = torch.cat([*embeddings, present.to(embeddings[0].dtype)], dim=-1)
        return masked_softmax(self.score(inputs).float(), present)

    def forward(self, embeddings: Sequence[Tensor], logits: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Evidence [B, M, C] and weights [B, M] from embeddings ([B, D_m] each, zero where absent) and logits [B, M,
        C].
        """
        weights = self.weights(embeddings, logits, present)
        return _scale(weights, logits, present, self.additive), weights


class SchedulerGate(nn.Module):
    """MA-AFS: the softmax gate, seeing only each modality's predictive entropy and the agreement, never an embedding."""

    def __init__(self, modalities: int, hidden: int, dropout: float, *, additive: bool = True):
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


def gate_samples(gate: nn.Module, embeddings: Sequence[Tensor], logits: Tensor, present: Tensor, passes: int) -> Tensor:
    """The gate's weights in `passes` dropout passes, batched rather than looped: [K, B, M]. The gate is in training
    mode.
    """
    repeated = [e.repeat(passes, 1) for e in embeddings]
    weights = gate.weights(repeated, logits.repeat(passes, 1, 1), present.repeat(passes, 1))
    return weights.reshape(passes, *present.shape)


def _scale(weights: Tensor, logits: Tensor, present: Tensor, additive: bool) -> Tensor:
    if additive:
        weights = weights * present.sum(-1, keepdim=True).to(weights.dtype)
    return weights.unsqueeze(-1) * logits


def _scorer(width: int, hidden: int, modalities: int, dropout: float) -> nn.Sequential:
    last = nn.Linear(hidden, modalities)
    nn.init.zeros_(last.weight)  # start from equal weights: a gate has to earn its preferences
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), last)
