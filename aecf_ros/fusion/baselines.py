"""Baselines with the interface of the layer: forward(embeddings, present) -> FusionOutput.

All take the same frozen features and the same presence mask, except ConcatHead with mask=False. Each handles absent
rows as its source does; a row with nothing present gives the prior.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (PyTorch's own convention)

from aecf_ros.fusion.experts import make_expert
from aecf_ros.fusion.gates.statistics import energy
from aecf_ros.fusion.mechanisms.entropy import gate_entropy
from aecf_ros.fusion.output import FusionOutput
from aecf_ros.fusion.presence.masking import all_subsets, keep_present, masked_softmax, subset_index


class Baseline(nn.Module):
    """Shared parts: experts, the uniform prior for empty rows, and the output record."""

    def __init__(
        self, dims: Sequence[int], classes: int, hidden: Sequence[int] = (256, 256), dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.classes = classes
        self.experts = nn.ModuleList(make_expert(width, classes, hidden, dropout) for width in dims)

    def expert_logits(self, embeddings: Sequence[Tensor], present: Tensor) -> tuple[list[Tensor], Tensor]:
        """Embeddings with absent rows zero, and logits [B, M, C], zero where absent."""
        clean = [keep_present(e, present[:, m]) for m, e in enumerate(embeddings)]
        logits = torch.stack([expert(e) for expert, e in zip(self.experts, clean, strict=True)], dim=1)
        return clean, torch.where(present.unsqueeze(-1), logits, torch.zeros_like(logits))

    def output(self, logits: Tensor, weights: Tensor, modality_logits: Tensor, present: Tensor) -> FusionOutput:
        """The output record; rows with nothing present get uniform logits."""
        logits = torch.where(present.any(-1, keepdim=True), logits, torch.zeros_like(logits))
        confidence = torch.softmax(logits, -1).amax(-1)
        return FusionOutput(logits, weights, modality_logits, gate_entropy(weights), confidence)


def equal_weights(present: Tensor) -> Tensor:
    """1 / |S| for those present: [B, M]."""
    return present.float() / present.sum(-1, keepdim=True).clamp(min=1)


class Unimodal(Baseline):
    """One head for each modality; the first present one in `order` predicts alone."""

    def __init__(self, dims: Sequence[int], classes: int, order: Sequence[int] = (), **options: Any) -> None:
        super().__init__(dims, classes, **options)
        self.order = list(order) or list(range(len(dims)))

    def forward(self, embeddings: Sequence[Tensor], present: Tensor) -> FusionOutput:
        _, logits = self.expert_logits(embeddings, present)
        rank = torch.tensor([-float(self.order.index(m)) for m in range(len(self.order))])
        chosen = torch.where(present, rank, torch.full_like(rank, -1e9)).argmax(-1)
        weights = F.one_hot(chosen, present.shape[1]) * present.float()
        return self.output((weights.unsqueeze(-1) * logits).sum(1), weights, logits, present)


class MeanLogits(Baseline):
    """The mean of the present experts' logits: the usual late fusion."""

    def forward(self, embeddings: Sequence[Tensor], present: Tensor) -> FusionOutput:
        _, logits = self.expert_logits(embeddings, present)
        weights = equal_weights(present)
        return self.output((weights.unsqueeze(-1) * logits).sum(1), weights, logits, present)


class ProductOfExperts(Baseline):
    """Product of temperature-scaled experts, prior divided out; `temperature` [M] is fitted after training."""

    temperature: Tensor

    def __init__(self, dims: Sequence[int], classes: int, **options: Any) -> None:
        super().__init__(dims, classes, **options)
        self.register_buffer("temperature", torch.ones(len(dims)))

    def forward(self, embeddings: Sequence[Tensor], present: Tensor) -> FusionOutput:
        _, logits = self.expert_logits(embeddings, present)
        log_p = torch.log_softmax(logits / self.temperature[:, None], dim=-1) * present.unsqueeze(-1)
        return self.output(log_p.sum(1), equal_weights(present), logits, present)


class EnergyWeighted(Baseline):
    """QMF-style (Zhang et al. 2023, arXiv 2306.02050): logits weighted by a confidence from the energy, w_m =
    logsumexp(l_m) / 10.

    Only the weights: the paper also trains the confidence to rank samples as their loss history does.
    """

    def forward(self, embeddings: Sequence[Tensor], present: Tensor) -> FusionOutput:
        _, logits = self.expert_logits(embeddings, present)
        confidence = -0.1 * energy(logits).detach() * present
        weights = masked_softmax(confidence, present)
        return self.output((confidence.unsqueeze(-1) * logits).sum(1), weights, logits, present)


class ConcatHead(Baseline):
    """A perceptron over the concatenated embeddings, zeros where absent.

    mask=False leaves out the presence mask, as in the published comparison.
    """

    def __init__(
        self, dims: Sequence[int], classes: int, hidden: Sequence[int] = (256, 256), dropout: float = 0.1, *, mask: bool
    ) -> None:
        super().__init__([], classes)
        self.mask = mask
        self.head = make_expert(sum(dims) + (len(dims) if mask else 0), classes, hidden, dropout)

    def forward(self, embeddings: Sequence[Tensor], present: Tensor) -> FusionOutput:
        parts = [keep_present(e, present[:, m]) for m, e in enumerate(embeddings)]
        logits = self.head(torch.cat(parts + ([present.to(parts[0].dtype)] if self.mask else []), dim=-1))
        nothing = torch.zeros(*present.shape, self.classes).to(logits)
        return self.output(logits, equal_weights(present), nothing, present)


class SubsetHeads(Baseline):
    """A perceptron of its own for every subset of modalities."""

    def __init__(
        self, dims: Sequence[int], classes: int, hidden: Sequence[int] = (256, 256), dropout: float = 0.1
    ) -> None:
        super().__init__([], classes)
        self.subsets = all_subsets(len(dims))
        widths = [sum(d for d, used in zip(dims, subset, strict=True) if used) for subset in self.subsets]
        self.heads = nn.ModuleList(make_expert(width, classes, hidden, dropout) for width in widths)

    def forward(self, embeddings: Sequence[Tensor], present: Tensor) -> FusionOutput:
        parts = [keep_present(e, present[:, m]) for m, e in enumerate(embeddings)]
        outputs = self.all_heads(parts)
        pattern = subset_index(present)
        logits = torch.zeros_like(outputs[0])
        for subset, output in zip(self.subsets, outputs, strict=True):
            number = sum(2**m for m, used in enumerate(subset) if used)
            logits = torch.where((pattern == number).unsqueeze(-1), output, logits)
        nothing = torch.zeros(*present.shape, self.classes).to(logits)
        return self.output(logits, equal_weights(present), nothing, present)

    def all_heads(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Logits of every head, [B, C] each, whatever is present; for training."""
        return [
            head(torch.cat([p for p, used in zip(parts, s, strict=True) if used], -1))
            for head, s in zip(self.heads, self.subsets, strict=True)
        ]


class TrustedMultiView(Baseline):
    """TMC (Han et al. 2021, ICLR): experts give Dirichlet evidence, combined by the reduced Dempster rule."""

    def forward(self, embeddings: Sequence[Tensor], present: Tensor) -> FusionOutput:
        _, logits = self.expert_logits(embeddings, present)
        evidence = F.softplus(logits) * present.unsqueeze(-1)
        fused = combine_evidence(evidence)
        uncertainty = self.classes / (evidence.sum(-1) + self.classes)
        weights = masked_softmax(torch.log1p(-uncertainty + 1e-6), present)
        return self.output(torch.log(fused + 1.0), weights, torch.log(evidence + 1.0), present)


def combine_evidence(evidence: Tensor) -> Tensor:
    """Dempster's reduced rule over modalities: evidence [B, C] of the combination from evidence [B, M, C].

    b = e / S, u = C / S, S = sum e + C; two opinions: b = (b1 b2 + b1 u2 + b2 u1) / (1 - K), u = u1 u2 / (1 - K), K the
    conflict sum over i != j of b1_i b2_j. No evidence (b = 0, u = 1) is the neutral element.
    """
    classes = evidence.shape[-1]
    belief, doubt = _opinion(evidence[:, 0], classes)
    for m in range(1, evidence.shape[1]):
        other, other_doubt = _opinion(evidence[:, m], classes)
        conflict = belief.sum(-1, keepdim=True) * other.sum(-1, keepdim=True) - (belief * other).sum(-1, keepdim=True)
        keep = (1.0 - conflict).clamp(min=1e-6)
        belief, doubt = (
            (belief * other + belief * other_doubt + other * doubt) / keep,
            (doubt * other_doubt / keep).clamp(min=1e-6),
        )
    return belief * classes / doubt


def _opinion(evidence: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    strength = evidence.sum(-1, keepdim=True) + classes
    return evidence / strength, classes / strength


def evidential_loss(evidence: Tensor, targets: Tensor, anneal: float) -> Tensor:
    """TMC's loss for one opinion: expected cross-entropy under the Dirichlet plus anneal * KL of the wrong evidence:
    [B].

    evidence: [B, C]; targets: int64 [B].
    """
    alpha = evidence + 1.0
    truth = F.one_hot(targets, alpha.shape[-1]).to(alpha.dtype)
    expected = (truth * (torch.digamma(alpha.sum(-1, keepdim=True)) - torch.digamma(alpha))).sum(-1)
    wrong = truth + (1 - truth) * alpha
    total, classes = wrong.sum(-1), alpha.shape[-1]
    divergence = (
        torch.lgamma(total)
        - torch.lgamma(torch.tensor(float(classes)))
        - torch.lgamma(wrong).sum(-1)
        + ((wrong - 1) * (torch.digamma(wrong) - torch.digamma(total).unsqueeze(-1))).sum(-1)
    )
    return expected + anneal * divergence


def cml_term(full_confidence: Tensor, fewer_confidence: Tensor) -> Tensor:
    """CML (Ma et al. 2023, arXiv 2306.01265): mean of max(0, confidence with one modality removed - confidence with
    all).
    """
    return (fewer_confidence - full_confidence).clamp(min=0.0).mean()
