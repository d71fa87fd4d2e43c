"""Fitting the evidence gate: reliability learned on corruption that the experts never saw.

An expert's own training data tells it that it is always right. So for each kind of corruption (or group of kinds) a
stand-in expert is trained without that kind and without a random share of the rest; its logits on both, and their
statistics, are what reliability is fitted on: the first shows what being out of one's depth looks like, the second what
ordinary data looks like. The layer's own experts, trained on everything, then use the fitted reliability.
"""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aecf_ros.fusion.gates.reliability import EvidenceGate, Reliability, contaminated_log_probabilities
from aecf_ros.fusion.gates.statistics import STATISTICS, ClassMoments
from aecf_ros.fusion.layer import AECF

FREE = 3.0  # deviation of a prior that leaves the shift to the data
IGNORED = 1e12  # scale of a statistic of which nothing can be learned: what an unusual quality means shows on held-out kinds alone
ENOUGH_CLUSTERS = 200  # recordings from which stand-ins, without a share of them, still learn what the expert learns


@dataclass(frozen=True)
class CrossFitConfig:
    """How stand-in experts and reliability are trained.

    unseen_share: weight of held-out kinds against held-out samples of kinds that were seen, in [0, 1].
    quality: the gate may use measured quality, where the layer has it and kinds are known.
    folds: how many where fewer than two kinds are known. Few folds make stand-ins that saw too little, and so too much doubt.
    """

    unseen_share: float = 0.1
    quality: bool = True
    folds: int = 6
    expert_steps: int = 300
    steps: int = 400
    batch: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3


@dataclass(frozen=True)
class OutOfFold:
    """What stand-in experts said of samples they were not trained on: a row for each.

    statistics: [N, K] unstandardized; logits: [N, C]; targets: int64 [N]; unseen: bool [N], the whole kind was held
    out.
    """

    statistics: Tensor
    logits: Tensor
    targets: Tensor
    unseen: Tensor


def fit_reliability(
    layer: AECF,
    modality: int,
    embeddings: Tensor,
    targets: Tensor,
    groups: Tensor,
    clusters: Tensor,
    config: CrossFitConfig = CrossFitConfig(),
    generator: torch.Generator | None = None,
) -> OutOfFold:
    """Fit the reliability of one modality of an evidence-gate layer in place, after its experts have been trained.

    embeddings: [N, D], with quality where the layer has it; targets: int64 [N], rows below 0 ("nothing there") have every
    class wrong and teach doubt; groups: int64 [N], the kind of corruption of each sample, -1 for none or unknown;
    clusters: int64 [N], samples made from one recording or image share a number, and a fold: otherwise a stand-in has heard
    the word it is asked about.
    Returns what it was fitted on.
    """
    if not isinstance(layer.gate, EvidenceGate):
        raise ValueError(
            f"reliability belongs to the evidence gate and this layer has a {type(layer.gate).__name__}; "
            "use gate='evidence'"
        )
    reliability = layer.gate.reliability[modality]
    fold = assign_folds(groups, clusters, config.folds, generator)
    known = targets >= 0
    embedded = embeddings[known, : reliability.leading]
    everything = ClassMoments.of(embedded, targets[known], len(layer.log_prior), embedded.double().mean(0))
    dropout = None if generator is None else torch.Generator().manual_seed(generator.initial_seed())
    parts = []
    for k in range(int(fold.max()) + 1):
        held_kind = groups == k
        held = held_kind | (fold == k)
        parts.append(
            _stand_in(layer, modality, embeddings, targets, held, held_kind, everything, config, generator, dropout)
        )
    collected = OutOfFold(*(torch.cat(column) for column in zip(*parts)))
    reliability.fit_distances(everything, embeddings[known])
    fit_to(reliability, collected, layer.log_prior, config, generator)
    reliability.clusters.fill_(len(clusters[known].unique()))
    return collected


def assign_folds(groups: Tensor, clusters: Tensor, folds: int, generator: torch.Generator | None) -> Tensor:
    """A random fold for every cluster: int64 [N]; as many folds as kinds, or `folds` where fewer than two are known."""
    kinds = int(groups.max()) + 1
    count = kinds if kinds > 1 else folds
    names, index = clusters.unique(return_inverse=True)
    return torch.randint(count, names.shape, generator=generator)[index]


def fit_to(
    reliability: Reliability,
    data: OutOfFold,
    log_prior: Tensor,
    config: CrossFitConfig,
    generator: torch.Generator | None,
) -> None:
    """Fit (a, eps) by the likelihood of each modality alone; kinds held out weigh `unseen_share` of the whole."""
    reliability.mean.copy_(data.statistics.mean(0))
    reliability.scale.copy_(data.statistics.std(0).clamp(min=1e-6))
    if not (config.quality and data.unseen.any()):
        reliability.scale[len(STATISTICS) :] = IGNORED
    standard = ((data.statistics - reliability.mean) / reliability.scale).clamp(-6.0, 6.0)
    weight = _balance(data.unseen, config.unseen_share)
    parameters = [*reliability.body.parameters(), *reliability.head.parameters()]
    reliability.head.bias.data[1] = -4.0  # from where eps can move; at its floor it has no gradient
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    size = min(8 * config.batch, len(standard))
    for _ in range(config.steps):
        rows = torch.randint(len(standard), (size,), generator=generator)
        a, doubt = reliability.from_statistics(standard[rows])
        log_p = contaminated_log_probabilities(data.logits[rows], a, doubt, log_prior)
        loss = (weight[rows] * _loss(log_p, data.targets[rows], log_prior)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _stand_in(layer, modality, embeddings, targets, held, held_kind, everything, config, generator, dropout):
    """Train a copy of the expert without `held`, and collect what it says there: the fields of OutOfFold.

    everything: moments of all rows that have a label; dropout: the generator that dropout draws from.
    """
    stand_in = _fresh(layer.experts[modality], generator, dropout)
    train = torch.nonzero(~held & (targets >= 0)).squeeze(1)
    optimizer = torch.optim.AdamW(
        stand_in.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    steps = config.expert_steps
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3 * config.learning_rate, total_steps=steps)
    stand_in.train()
    for _ in range(steps):
        rows = train[torch.randint(len(train), (min(config.batch, len(train)),), generator=generator)]
        loss = F.cross_entropy(layer.log_prior + stand_in(embeddings[rows]), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    seen = copy.deepcopy(layer.gate.reliability[modality])
    out = torch.nonzero(held & (targets >= 0)).squeeze(1)
    held_out = ClassMoments.of(embeddings[out, : seen.leading], targets[out], len(layer.log_prior), everything.origin)
    seen.fit_distances(everything.without(held_out), embeddings[train])
    with torch.no_grad():
        logits = stand_in.eval()(embeddings[held])
        statistics = seen.raw_statistics(embeddings[held], logits)
    return statistics, logits, targets[held], held_kind[held]


def _fresh(expert: nn.Sequential, generator: torch.Generator | None, dropout: torch.Generator | None) -> nn.Sequential:
    """A copy with new random weights; all that it draws comes from these generators rather than from torch's global state."""
    stand_in = copy.deepcopy(expert)
    for name, module in stand_in.named_children():
        if isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            for parameter in (module.weight, module.bias):
                parameter.data = ((torch.rand(parameter.shape, generator=generator) * 2 - 1) * bound).to(parameter)
        elif isinstance(module, nn.Dropout):
            setattr(stand_in, name, _DrawnDropout(module.p, dropout))
    return stand_in


class _DrawnDropout(nn.Module):
    """Dropout that draws from a generator of its own: stand-ins of several modalities may be trained at a time."""

    def __init__(self, p: float, generator: torch.Generator | None):
        super().__init__()
        self.keep, self.generator = 1.0 - p, generator

    def forward(self, x: Tensor) -> Tensor:
        """[B, D] -> [B, D]."""
        if not self.training:
            return x
        return x * torch.empty_like(x).bernoulli_(self.keep, generator=self.generator).div_(self.keep)


def _balance(unseen: Tensor, share: float) -> Tensor:
    """Weights [N] with mean 1 in which the unseen rows have `share` of the total; all 1 where one of the two is empty."""
    fraction = unseen.float().mean()
    if fraction == 0 or fraction == 1:
        return torch.ones_like(unseen, dtype=torch.float32)
    return torch.where(unseen, share / fraction, (1 - share) / (1 - fraction))


def _loss(log_p: Tensor, targets: Tensor, log_prior: Tensor) -> Tensor:
    """Negative log-likelihood [B]; for "nothing there" rows the cross-entropy against the prior."""
    named = F.nll_loss(log_p, targets.clamp(min=0), reduction="none")
    nothing = -(log_prior.exp() * log_p).sum(-1)
    return torch.where(targets >= 0, named, nothing)


def recalibrate(
    layer: AECF, modality: int, embeddings: Tensor, targets: Tensor, clusters: Tensor, deviation: float = 0.03
) -> float:
    """Shift one modality's log a and log-odds of eps, two numbers, to held-out data, in place; its loss there, in nats.

    Reliability is fitted to stand-ins, which saw less than the layer's own experts; this closes the gap. The shift has
    a normal prior of the given deviation and the data counts by its clusters, so that 5,000 rows of 250 recordings move
    it as 250 rows would.
    embeddings: [N, D], targets and clusters: int64 [N] of data neither the experts nor the cross-fit saw; targets below
    0 are left out.
    """
    reliability, known = layer.gate.reliability[modality], targets >= 0
    embeddings, targets = embeddings[known], targets[known]
    penalty = 0.5 / (deviation**2 * len(clusters[known].unique()))
    with torch.no_grad():
        logits = layer.experts[modality].eval()(embeddings)
        a, doubt = reliability(embeddings, logits)
    shift = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.LBFGS([shift], max_iter=40, line_search_fn="strong_wolfe")

    def loss_of(shift: Tensor) -> Tensor:
        log_p = contaminated_log_probabilities(logits, a * shift[0].exp(), doubt + shift[1], layer.log_prior)
        return F.nll_loss(log_p, targets)

    def closure():
        optimizer.zero_grad()
        loss = loss_of(shift) + penalty * shift.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    reliability.head.bias.data += shift.detach()
    return loss_of(shift.detach()).item()


def settle(
    layer: AECF,
    modality: int,
    embeddings: Tensor,
    targets: Tensor,
    clusters: Tensor,
    deviation: float = 0.03,
    price: float = 0.01,
) -> bool:
    """Recalibrate a modality's fitted reliability on held-out data, or drop the fit; whether it stayed, in place.

    With few recordings the stand-ins see too little and doubt too much. Where the fit has seen fewer than ENOUGH_CLUSTERS
    and costs this modality more than `price` nats against the plain expert with a temperature, both on the held-out
    data, the plain expert it is. The arguments are those of `recalibrate`.
    """
    cost = recalibrate(layer, modality, embeddings, targets, clusters, deviation)
    if layer.gate.reliability[modality].clusters >= ENOUGH_CLUSTERS:
        return True
    plain = copy.deepcopy(layer)
    plain.gate.reliability[modality].forget()
    if cost <= recalibrate(plain, modality, embeddings, targets, clusters, FREE) + price:
        return True
    layer.gate.reliability[modality] = plain.gate.reliability[modality]
    return False
