"""Fit the evidence gate out of fold: learn reliability on corruption that the experts never saw.

An expert is nearly always right on its own training data, which therefore teaches no doubt. So for each kind of
corruption a stand-in expert is trained without that kind and without a random share of the rest. Reliability is fitted
on its logits and statistics on both: the held-out kind shows unknown data, the held-out share shows ordinary data. The
experts of the layer, trained on everything, then use the fitted reliability.
"""

import copy
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (PyTorch's own convention)

from aecf_ros.fusion.gates.reliability import EvidenceGate, Reliability, contaminated_log_probabilities
from aecf_ros.fusion.gates.statistics import STATISTICS, ClassMoments
from aecf_ros.fusion.layer import AECF

FREE = 3.0  # deviation of an uninformative prior of the shift
IGNORED = 1e12  # scale of a statistic that cannot be learned: only held-out kinds show what unusual quality means
ENOUGH_CLUSTERS = 200  # recordings of which a share can be left out without a worse expert


@dataclass(frozen=True)
class CrossFitConfig:
    """Training of the stand-in experts and of the reliability.

    unseen_share: weight of held-out kinds against held-out samples of kinds that were seen, in [0, 1].
    quality: use measured quality in the gate, if the layer has it and kinds are known.
    folds: number of folds if fewer than two kinds are known. With few folds stand-ins see too little, which gives too
    much doubt.
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
    """Outputs of stand-in experts for samples that they were not trained on.

    statistics: [N, K] unstandardized; logits: [N, C]; targets: int64 [N]; unseen: bool [N], whether the
    whole kind was held out.
    """

    statistics: Tensor
    logits: Tensor
    targets: Tensor
    unseen: Tensor


class ModalitySamples(NamedTuple):
    """Samples of one modality.

    embeddings: [N, D], with the quality columns if the layer has them.
    targets: int64 [N]; below 0 for "nothing there".
    clusters: int64 [N]; samples made from one recording or image share a number.
    groups: int64 [N], the kind of corruption of each sample, -1 for none or unknown; only `fit_reliability` needs it.
    """

    embeddings: Tensor
    targets: Tensor
    clusters: Tensor
    groups: Tensor | None = None


def fit_reliability(
    layer: AECF,
    modality: int,
    samples: ModalitySamples,
    config: CrossFitConfig | None = None,
    generator: torch.Generator | None = None,
) -> OutOfFold:
    """Fit the reliability of one modality of an evidence-gate layer in place, after its experts have been trained.

    Samples without a target ("nothing there") count every class as wrong and so teach doubt. The samples of a cluster
    share a fold; otherwise a stand-in would be tested on a word that it was trained on.
    Returns the data of the fit.
    """
    if not isinstance(layer.gate, EvidenceGate):
        raise ValueError(
            f"reliability belongs to the evidence gate and this layer has a {type(layer.gate).__name__}; "
            "use gate='evidence'"
        )
    config = config or CrossFitConfig()
    reliability = layer.reliability(modality)
    embeddings, targets, clusters, groups = samples
    if groups is None:
        groups = torch.full_like(targets, -1)
    fold = assign_folds(groups, clusters, config.folds, generator)
    known = targets >= 0
    embedded = embeddings[known, : reliability.leading]
    moments = ClassMoments.of(embedded, targets[known], len(layer.log_prior), embedded.double().mean(0))
    dropout = None if generator is None else torch.Generator().manual_seed(generator.initial_seed())
    stand_ins = _StandIns(layer.experts[modality], reliability, layer.log_prior, moments, config, (generator, dropout))
    parts = []
    for k in range(int(fold.max()) + 1):
        held_kind = groups == k
        held = held_kind | (fold == k)
        parts.append((*stand_ins.test(embeddings, targets, held), targets[held], held_kind[held]))
    collected = OutOfFold(*(torch.cat(column) for column in zip(*parts, strict=True)))
    reliability.fit_distances(moments, embeddings[known])
    fit_to(reliability, collected, layer.log_prior, config, generator)
    reliability.clusters.fill_(len(torch.unique(clusters[known])))
    return collected


def assign_folds(groups: Tensor, clusters: Tensor, folds: int, generator: torch.Generator | None) -> Tensor:
    """A random fold for every cluster: int64 [N]; one for each kind, or `folds` if fewer than two kinds are known."""
    kinds = int(groups.max()) + 1
    count = kinds if kinds > 1 else folds
    names, index = torch.unique(clusters, return_inverse=True)
    return torch.randint(count, names.shape, generator=generator)[index]


def fit_to(
    reliability: Reliability,
    data: OutOfFold,
    log_prior: Tensor,
    config: CrossFitConfig,
    generator: torch.Generator | None,
) -> None:
    """Fit (a, eps) by the likelihood of the modality alone; held-out kinds have the weight `unseen_share`."""
    reliability.mean.copy_(data.statistics.mean(0))
    reliability.scale.copy_(data.statistics.std(0).clamp(min=1e-6))
    if not (config.quality and data.unseen.any()):
        reliability.scale[len(STATISTICS) :] = IGNORED
    standard = ((data.statistics - reliability.mean) / reliability.scale).clamp(-6.0, 6.0)
    weight = _balance(data.unseen, config.unseen_share)
    parameters = [*reliability.body.parameters(), *reliability.head.parameters()]
    reliability.head.bias.data[1] = -4.0  # eps has no gradient at its floor
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    size = min(8 * config.batch, len(standard))
    for _ in range(config.steps):
        rows = torch.randint(len(standard), (size,), generator=generator)
        a, doubt = reliability.from_statistics(standard[rows])
        log_p = contaminated_log_probabilities(data.logits[rows], a, doubt, log_prior)
        loss = (weight[rows] * _loss(log_p, data.targets[rows], log_prior)).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()


@dataclass(frozen=True)
class _StandIns:
    """Trains copies of an expert without the samples of a fold.

    moments: of all samples with a target; generators: one for weights and batches, one for dropout.
    """

    expert: nn.Module
    reliability: Reliability
    log_prior: Tensor
    moments: ClassMoments
    config: CrossFitConfig
    generators: tuple[torch.Generator | None, torch.Generator | None]

    def test(self, embeddings: Tensor, targets: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
        """Train a copy without the samples `held`, bool [N]: their statistics [n, K] and its logits on them [n, C]."""
        config, generator = self.config, self.generators[0]
        stand_in = _fresh(self.expert, *self.generators)
        train = torch.nonzero(~held & (targets >= 0)).squeeze(1)
        optimizer = torch.optim.AdamW(
            stand_in.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        steps = config.expert_steps
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3 * config.learning_rate, total_steps=steps)
        stand_in.train()
        for _ in range(steps):
            rows = train[torch.randint(len(train), (min(config.batch, len(train)),), generator=generator)]
            loss = F.cross_entropy(self.log_prior + stand_in(embeddings[rows]), targets[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        seen = copy.deepcopy(self.reliability)
        out = torch.nonzero(held & (targets >= 0)).squeeze(1)
        held_out = ClassMoments.of(
            embeddings[out, : seen.leading], targets[out], len(self.log_prior), self.moments.origin
        )
        seen.fit_distances(self.moments.without(held_out), embeddings[train])
        with torch.no_grad():
            logits = stand_in.eval()(embeddings[held])
            return seen.raw_statistics(embeddings[held], logits), logits


def _fresh(expert: nn.Module, generator: torch.Generator | None, dropout: torch.Generator | None) -> nn.Module:
    """A copy with new random weights. It draws from these generators, not from torch's global state."""
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
    """Dropout with its own generator, so that stand-ins of several modalities can be trained at a time."""

    def __init__(self, p: float, generator: torch.Generator | None) -> None:
        super().__init__()
        self.keep, self.generator = 1.0 - p, generator

    def forward(self, x: Tensor) -> Tensor:
        """[B, D] -> [B, D]."""
        if not self.training:
            return x
        return x * torch.empty_like(x).bernoulli_(self.keep, generator=self.generator).div_(self.keep)


def _balance(unseen: Tensor, share: float) -> Tensor:
    """Weights [N] of mean 1 that give the unseen rows `share` of the total; all 1 if there are none, or only those."""
    fraction = unseen.float().mean()
    if fraction == 0 or fraction == 1:
        return torch.ones_like(unseen, dtype=torch.float32)
    return torch.where(unseen, share / fraction, (1 - share) / (1 - fraction))


def _loss(log_p: Tensor, targets: Tensor, log_prior: Tensor) -> Tensor:
    """Negative log-likelihood [B]; for "nothing there" rows the cross-entropy against the prior."""
    named = F.nll_loss(log_p, targets.clamp(min=0), reduction="none")
    nothing = -(log_prior.exp() * log_p).sum(-1)
    return torch.where(targets >= 0, named, nothing)


def recalibrate(layer: AECF, modality: int, samples: ModalitySamples, deviation: float = 0.03) -> float:
    """Shift log a and the log-odds of eps of one modality to held-out data, in place. Returns the loss there, in nats.

    Reliability is fitted to stand-ins, which saw less than the layer's own experts; the shift closes that gap. It has a
    normal prior with the given deviation, and the data counts by clusters: 5,000 rows of 250 recordings weigh as much
    as 250 rows.
    samples: data that neither the experts nor the cross-fit saw; those without a target are left out.
    """
    reliability, known = layer.reliability(modality), samples.targets >= 0
    embeddings, targets = samples.embeddings[known], samples.targets[known]
    penalty = 0.5 / (deviation**2 * len(torch.unique(samples.clusters[known])))
    with torch.no_grad():
        logits = layer.experts[modality].eval()(embeddings)
        a, doubt = reliability(embeddings, logits)
    shift = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.LBFGS([shift], max_iter=40, line_search_fn="strong_wolfe")

    def loss_of(shift: Tensor) -> Tensor:
        log_p = contaminated_log_probabilities(logits, a * shift[0].exp(), doubt + shift[1], layer.log_prior)
        return F.nll_loss(log_p, targets)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(shift) + penalty * shift.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    reliability.head.bias.data += shift.detach()
    return loss_of(shift.detach()).item()


def settle(layer: AECF, modality: int, samples: ModalitySamples, deviation: float = 0.03, price: float = 0.01) -> bool:
    """Recalibrate the fitted reliability of a modality on held-out data, or drop it. Returns whether it is kept.

    With few recordings the stand-ins see too little and doubt too much. The fit is dropped if it saw fewer than
    ENOUGH_CLUSTERS and its loss on the held-out data is more than `price` nats above that of the plain expert with a
    temperature. samples and deviation: see `recalibrate`.
    """
    cost = recalibrate(layer, modality, samples, deviation)
    if layer.reliability(modality).clusters >= ENOUGH_CLUSTERS:
        return True
    plain = copy.deepcopy(layer)
    plain.reliability(modality).forget()
    if cost <= recalibrate(plain, modality, samples, FREE) + price:
        return True
    assert isinstance(layer.gate, EvidenceGate)
    layer.gate.reliability[modality] = plain.reliability(modality)
    return False
