"""The evidence gate: a product of experts, each tempered and contaminated by its own reliability.

    log p_m = log((1 - eps_m) softmax(log prior + a_m l_m) + eps_m prior)
    logits_S = sum over S of log p_m + (1 - |S|) log prior

a_m is an inverse temperature and eps_m the probability that the modality is uninformative for this sample. With a
uniform prior eps_m prior is eps_m / C. Multiplied out, the product is a mixture over the sets of reliable modalities,
weighted by their agreement: one confidently wrong modality costs at most log(1 / eps_m), and conflict lowers the
confidence by itself. (a_m, eps_m) come from a small perceptron over that modality's own statistics only. Unfitted,
a_m = 1 and eps_m is near 0: the plain product of experts.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (PyTorch's own convention)

from aecf_ros.fusion.gates.quality import NOVELTIES, Novelty
from aecf_ros.fusion.gates.statistics import STATISTICS, ClassMoments, EmbeddingDistance, landmarks, modality_statistics

LEAST_DOUBT_LOGIT = -9.0  # eps_m >= 1.2e-4: a floor on doubt, and the value before fitting


class Reliability(nn.Module):
    """(a_m, eps_m) of one modality from its statistics.

    width: of the embedding. classes: of the expert. hidden: units of the perceptron. quality: how many of the last
    columns of the embedding are measured quality (see quality.py).
    """

    mean: Tensor
    scale: Tensor
    clusters: Tensor

    def __init__(self, width: int, classes: int, hidden: int = 32, quality: int = 0) -> None:
        super().__init__()
        self.leading = width - quality
        self.distance = EmbeddingDistance(self.leading, classes)
        self.novelty = Novelty(quality) if quality else None
        count = len(STATISTICS) + (len(NOVELTIES) if quality else 0)
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("scale", torch.ones(count))
        self.register_buffer("clusters", torch.tensor(0))  # independent clusters in the fit
        self.body = nn.Sequential(nn.Linear(count, hidden), nn.Tanh())
        self.head = nn.Linear(hidden, 2)
        self.forget()

    def forget(self) -> None:
        """Reset to the unfitted state: the expert is trusted as it is."""
        nn.init.zeros_(self.head.weight)
        self.head.bias.data = torch.tensor([0.0, LEAST_DOUBT_LOGIT]).to(self.head.bias)
        self.clusters.zero_()

    def fit_distances(self, moments: ClassMoments, embeddings: Tensor) -> None:
        """Fit the distances to training: embeddings [N, D], and the moments of their columns without quality."""
        self.distance.fit_moments(moments, landmarks(embeddings[:, : self.leading]))
        if self.novelty is not None:
            self.novelty.fit(embeddings[:, self.leading :])

    def raw_statistics(self, embedding: Tensor, logits: Tensor) -> Tensor:
        """STATISTICS, and NOVELTIES if there is quality, unstandardized: [B, K] from [B, D] and [B, C]."""
        own = modality_statistics(embedding[:, : self.leading], logits, self.distance)
        return own if self.novelty is None else torch.cat([own, self.novelty(embedding[:, self.leading :])], dim=-1)

    def statistics(self, embedding: Tensor, logits: Tensor) -> Tensor:
        """Standardized statistics [B, K], clipped at 6 deviations, so that unseen values stay bounded."""
        return ((self.raw_statistics(embedding, logits) - self.mean) / self.scale).clamp(-6.0, 6.0)

    def forward(self, embedding: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Inverse temperature a and log-odds of eps, each [B], from an embedding [B, D] and logits [B, C]."""
        return self.from_statistics(self.statistics(embedding, logits))

    def from_statistics(self, statistics: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, from standardized statistics [B, K]; for fitting."""
        log_a, doubt = self.head(self.body(statistics)).float().unbind(-1)
        return log_a.clamp(-4.0, 1.5).exp(), doubt.clamp(LEAST_DOUBT_LOGIT, -LEAST_DOUBT_LOGIT)


def log_sigmoid(x: Tensor) -> Tensor:
    """log(sigmoid(x)), accurate in onnxruntime too, whose sigmoid has a relative error of 1e-4 in the tail."""
    return -F.softplus(-x)


def contaminated_log_probabilities(logits: Tensor, a: Tensor, doubt: Tensor, log_prior: Tensor) -> Tensor:
    """log((1 - eps) softmax(log prior + a l) + eps prior), computed stably: [B, C].

    logits: l, relative to the prior [B, C]; a: [B]; doubt: log-odds of eps [B]; log_prior: [C].
    """
    believed = torch.log_softmax(log_prior + a.unsqueeze(-1) * logits, dim=-1) + log_sigmoid(-doubt).unsqueeze(-1)
    return torch.logaddexp(believed, log_prior + log_sigmoid(doubt).unsqueeze(-1))


def contaminated_log_odds(logits: Tensor, a: Tensor, doubt: Tensor, prior_log_odds: Tensor) -> Tensor:
    """The same for independent labels: log-odds of (1 - eps) sigmoid(log-odds of prior + a l) + eps prior, [B, C]."""
    keep, drop = log_sigmoid(-doubt).unsqueeze(-1), log_sigmoid(doubt).unsqueeze(-1)
    scaled = prior_log_odds + a.unsqueeze(-1) * logits
    yes = torch.logaddexp(log_sigmoid(scaled) + keep, log_sigmoid(prior_log_odds) + drop)
    no = torch.logaddexp(log_sigmoid(-scaled) + keep, log_sigmoid(-prior_log_odds) + drop)
    return yes - no


class EvidenceGate(nn.Module):
    """Evidence of each modality by its own reliability; weights are the shares of that evidence.

    log_prior: [C], log probabilities (multi-label: log-odds), shared with the layer.
    """

    def __init__(
        self, dims: Sequence[int], classes: int, hidden: int, *, multilabel: bool, quality: Sequence[int]
    ) -> None:
        super().__init__()
        self.multilabel = multilabel
        self.reliability = nn.ModuleList(
            Reliability(width, classes, hidden, measured) for width, measured in zip(dims, quality, strict=True)
        )

    def forward(
        self, embeddings: Sequence[Tensor], logits: Tensor, present: Tensor, log_prior: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Evidence [B, M, C], 0 where absent, and weights [B, M]."""
        evidence = []
        for index, reliability in enumerate(self.reliability):
            a, doubt = reliability(embeddings[index], logits[:, index])
            form = contaminated_log_odds if self.multilabel else contaminated_log_probabilities
            alone = form(logits[:, index], a, doubt, log_prior) - log_prior
            evidence.append(torch.where(present[:, index, None], alone, torch.zeros_like(alone)))
        stacked = torch.stack(evidence, dim=1)
        return stacked, evidence_share(stacked, log_prior, present, multilabel=self.multilabel)


def evidence_share(evidence: Tensor, log_prior: Tensor, present: Tensor, *, multilabel: bool = False) -> Tensor:
    """Each present modality's share of the evidence: its divergence from the prior, KL(p_m || prior), over the sum.

    A corrupted modality's p_m is near the prior, so its share falls. Uninformative modalities share equally.
    Returns [B, M].
    evidence: [B, M, C] relative to log_prior [C]; present: bool [B, M].
    """
    posterior = evidence + log_prior
    if multilabel:
        p, prior = torch.sigmoid(posterior), torch.sigmoid(log_prior)
        information = (p * (log_sigmoid(posterior) - log_sigmoid(log_prior))).sum(-1)
        information = information + ((1 - p) * (log_sigmoid(-posterior) - torch.log1p(-prior))).sum(-1)
    else:
        log_p = torch.log_softmax(posterior, dim=-1)
        information = (log_p.exp() * (log_p - log_prior)).sum(-1)
    amount = torch.where(present, information.clamp(min=0.0) + 1e-6, torch.zeros_like(information))
    return amount / amount.sum(-1, keepdim=True).clamp(min=1e-12)
