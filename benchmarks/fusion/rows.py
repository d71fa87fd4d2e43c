"""Every head in the comparison: a name, and how it is made from a variant's training and calibration samples."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own convention)
from torch import Tensor, nn

from aecf_ros.fusion import (
    AECF,
    EXPERTS_ONLY,
    PUBLISHED,
    CrossFitConfig,
    FusionBatch,
    FusionObjective,
    ModalitySamples,
    ObjectiveConfig,
    fit_reliability,
    recalibrate,
    settle,
)
from aecf_ros.fusion import baselines as base
from aecf_ros.fusion.calibration.monotone import choose_reach
from aecf_ros.fusion.calibration.temperature import fit_temperature
from aecf_ros.fusion.crossfit import FREE
from aecf_ros.fusion.mechanisms.mwam import modality_weights
from aecf_ros.fusion.presence.masking import random_subsets
from benchmarks.fusion.training import Budget, Samples, Training
from benchmarks.fusion.upstream import Upstream, upstream_installed

PLAIN = {"expert_hidden": (256, 256), "expert_direction": False}
LINEAR = {"expert_hidden": ()}
NO_QUALITY = CrossFitConfig(quality=False)  # of the ablations of ours: they know what the baselines know
OURS = "aecf"
STRONG = "product of experts"


@dataclass
class Context:
    """One variant and seed. What several rows share is trained once: the strong experts and the joint concatenation
    head.
    """

    variant: str
    seed: int
    training: Training
    calibration: Samples
    budget: Budget
    frequency_ratios: Callable[[], np.ndarray]
    cache: Path
    cross_fit: CrossFitConfig = field(default_factory=CrossFitConfig)
    shared: dict[str, tuple[nn.Module, float]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    remembered_s: dict[str, float] = field(default_factory=dict)
    making_s: float = 0.0

    @property
    def experts(self) -> AECF:
        """The experts of the baselines (2 x 256), each trained by its own likelihood; the gate is not fitted."""
        return self._once("experts", lambda: self._remembered("experts", **PLAIN))

    @property
    def own(self) -> AECF:
        """An AECF layer as it comes, its experts trained, its gate not fitted."""
        return self._once("own", lambda: self._remembered("own"))

    @property
    def joint(self) -> base.ConcatHead:
        """A perceptron over both embeddings, trained where both are present, with no mask."""
        return self._once("joint", lambda: self.train(self.new(base.ConcatHead, mask=False), lambda p, g: p))

    @property
    def fitted(self) -> AECF:
        """Our experts with reliability fitted out of fold."""
        experts = self.own
        return self._once("fitted", lambda: self.fit_gate(experts, self.cross_fit, with_kinds=True))

    def _remembered(self, name: str, **options) -> AECF:
        """The trained experts from the cache, where an earlier job of the same variant, seed and budget left them."""
        path = self.cache / "models" / f"{self.variant}-{self.seed}-{name}-{self.training.digest(self.budget)}.npz"
        if not path.is_file():
            start = time.process_time()
            layer = self.train_layer(EXPERTS_ONLY, **options)
            arrays = {key: value.numpy() for key, value in layer.experts.state_dict().items()}
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path.with_suffix(".part.npz"), cpu_s=time.process_time() - start, **arrays)
            path.with_suffix(".part.npz").rename(path)
        layer = AECF(self.training.dims, self.training.classes, quality=self.training.quality, **options)
        with np.load(path, allow_pickle=False) as archive:
            self.remembered_s[name] = float(archive["cpu_s"])
            layer.experts.load_state_dict(
                {key: torch.from_numpy(archive[key]) for key in archive.files if key != "cpu_s"}
            )
        return layer.eval()

    def _once(self, name: str, make: Callable[[], nn.Module]) -> nn.Module:
        if name not in self.shared:
            start = time.process_time()
            model = make()
            spent = time.process_time() - start
            self.making_s += spent
            self.shared[name] = (model, self.remembered_s.get(name, spent))
        self.used.add(name)
        return self.shared[name][0]

    def build(self, make: Callable[["Context"], nn.Module]) -> tuple[nn.Module, float]:
        """A row's model, and the CPU seconds it took: its own and those of the shared models it uses, whoever trained
        them.
        """
        self.used, self.making_s = set(), 0.0
        start = time.process_time()
        self.seeded()
        model = make(self).eval()
        own = time.process_time() - start - self.making_s
        return model, own + sum(self.shared[name][1] for name in self.used)

    def new(self, kind: type, **options) -> nn.Module:
        return kind(self.training.dims, self.training.classes, **options)

    def seeded(self) -> None:
        torch.manual_seed(self.seed)

    def train_layer(self, objective: ObjectiveConfig, weights: Tensor | None = None, **options) -> AECF:
        """An AECF layer trained by an objective."""
        self.seeded()
        layer = AECF(self.training.dims, self.training.classes, quality=self.training.quality, **options)
        loss = FusionObjective(objective)

        def loss_of(embeddings, present, label, progress, generator):
            return loss(layer, FusionBatch(embeddings, present, label, weights), generator, progress=progress)[0]

        return self.training.fit(layer, loss_of, self.budget, self.seed)

    def train(self, model: nn.Module, mask: Callable, extra: Callable | None = None) -> nn.Module:
        """Cross-entropy under mask(present, generator), plus extra(model, embeddings, present, label, progress)."""

        def loss_of(embeddings, present, label, progress, generator):
            loss = F.cross_entropy(model(embeddings, mask(present, generator)).logits, label)
            return loss if extra is None else loss + extra(model, embeddings, present, label, progress)

        return self.training.fit(model, loss_of, self.budget, self.seed)

    def fit_gate(self, experts: AECF, config: CrossFitConfig, *, with_kinds: bool) -> AECF:
        """A copy with reliability fitted out of fold, over kinds of corruption or over random folds alone."""
        layer = copy.deepcopy(experts)
        for m, (embeddings, label, kind, cluster) in enumerate(self.training.sides()):
            generator = torch.Generator().manual_seed(self.seed)
            groups = kind if with_kinds else torch.full_like(kind, -1)
            fit_reliability(layer, m, ModalitySamples(embeddings, label, cluster, groups), config, generator)
        return layer.eval()

    def settled(self, layer: AECF) -> AECF:
        """A copy settled on the calibration part, each modality with its cross-fit or without."""
        layer = copy.deepcopy(layer)
        for m, sample in enumerate(self.held_out()):
            settle(layer, m, ModalitySamples(*sample))
        return layer.eval()

    def recalibrated(self, layer: AECF, deviation: float) -> AECF:
        """A copy whose reliabilities are shifted to the calibration part, two numbers for each modality."""
        layer = copy.deepcopy(layer)
        for m, sample in enumerate(self.held_out()):
            recalibrate(layer, m, ModalitySamples(*sample), deviation)
        return layer.eval()

    def held_out(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """The calibration part of each modality: embeddings [N, D], label [N], cluster [N]."""
        part = self.calibration
        clusters = (torch.arange(len(part)), torch.from_numpy(part.recording))
        return [(embedding, part.label, cluster) for embedding, cluster in zip(part.embeddings, clusters, strict=True)]

    @staticmethod
    def fresh(layer: AECF, monotone: str) -> AECF:
        """A copy with another monotone mode."""
        layer = copy.deepcopy(layer).eval()
        layer.monotone = monotone
        return layer

    def with_experts(self, kind: type, **options) -> nn.Module:
        """A baseline on the shared strong experts."""
        model = self.new(kind, **options)
        model.experts = self.experts.experts
        return model.eval()

    def calibration_loss(self, model: nn.Module, pattern: tuple[bool, ...]) -> float:
        present = torch.tensor(pattern).repeat(len(self.calibration), 1)
        with torch.no_grad():
            return F.cross_entropy(model(self.calibration.embeddings, present).logits, self.calibration.label).item()


def unimodal(context: Context) -> nn.Module:
    image_loss = context.calibration_loss(context.experts, (True, False))
    sound_loss = context.calibration_loss(context.experts, (False, True))
    return context.with_experts(base.Unimodal, order=(0, 1) if image_loss < sound_loss else (1, 0))


def concat_mask(context: Context) -> nn.Module:
    context.seeded()
    return context.train(context.new(base.ConcatHead, mask=True), random_subsets)


def product(context: Context, experts: nn.Module | None = None, **options) -> nn.Module:
    """Temperatures of the experts fitted on the calibration part."""
    model = context.new(base.ProductOfExperts, **options)
    model.experts = (experts or context.experts).experts
    model.eval()
    for m, embedding in enumerate(context.calibration.embeddings):
        with torch.no_grad():
            logits = model.experts[m](embedding)
        model.temperature[m] = 1.0 / fit_temperature(logits, context.calibration.label)
    return model


def product_linear(context: Context) -> nn.Module:
    return product(context, context.train_layer(EXPERTS_ONLY, **LINEAR), hidden=())


def subset_heads(context: Context) -> nn.Module:
    """Heads are trained apart, so the shared experts and the joint head are exactly this baseline's three."""
    model = context.new(base.SubsetHeads)
    model.heads = nn.ModuleList([*context.experts.experts, context.joint.head])
    return model.eval()


def trusted(context: Context) -> nn.Module:
    context.seeded()
    model = context.new(base.TrustedMultiView)

    def loss_of(embeddings, present, label, progress, generator):
        _, logits = model.expert_logits(embeddings, present)
        evidence = F.softplus(logits)
        anneal = min(1.0, progress)
        opinions = [base.combine_evidence(evidence), evidence[:, 0], evidence[:, 1]]
        return torch.stack([base.evidential_loss(e, label, anneal).mean() for e in opinions]).sum()

    return context.training.fit(model, loss_of, context.budget, context.seed)


def cml(context: Context) -> nn.Module:
    """Concatenation with mask and random subsets, plus CML's hinge on the confidence with one modality removed."""
    context.seeded()

    def hinge(model, embeddings, present, label, progress):
        full = model(embeddings, present).confidence
        one = torch.zeros_like(present)
        one[:, int(torch.randint(2, ()))] = True
        return base.cml_term(full, model(embeddings, one).confidence)

    return context.train(context.new(base.ConcatHead, mask=True), random_subsets, hinge)


def upstream(context: Context) -> nn.Module:
    context.seeded()
    model = context.new(Upstream)

    def entropy(model, embeddings, present, label, progress):
        return 0.01 * model.pool.curriculum_masking.entropy_loss(model.info["entropy"])

    return context.train(model, random_subsets, entropy)


def ours(context: Context, layer: AECF | None = None, *, monotone: str = "soft") -> nn.Module:
    """Cross-fitted reliability, settled on the calibration part, confidence lifted softly.

    The lift may cost 0.002 nats on the calibration part, and stops where violations are down to 2.5 %: half a
    point below the target on `hard`, some three standard errors of a rate over 10,000 answers.
    """
    layer = context.settled(context.fitted) if layer is None else copy.deepcopy(layer)
    layer.monotone = monotone
    if monotone == "soft":
        ceiling = context.calibration_loss(context.fresh(layer, "off"), (True, True)) + 0.002
        sample = context.calibration
        layer.monotone_reach = choose_reach(layer, sample.embeddings, sample.label, violation=0.025, ceiling=ceiling)
    return layer


def random_folds(context: Context) -> nn.Module:
    """Where no kinds are known that is what ours is."""
    if all(int(kind.max()) < 0 for _, _, kind, _ in context.training.sides()):
        return ours(context)
    return ours(context, context.settled(context.fit_gate(context.own, NO_QUALITY, with_kinds=False)))


def without_quality(context: Context) -> nn.Module:
    """The gate as it is where no quality is measured, at the share chosen for that."""
    if not any(context.training.quality):
        return ours(context)
    return ours(context, context.settled(context.fit_gate(context.own, NO_QUALITY, with_kinds=True)))


def plain_experts(context: Context) -> nn.Module:
    """The gate without measured quality on the experts of the baselines."""
    return ours(
        context, context.settled(context.fit_gate(context.experts, NO_QUALITY, with_kinds=True)), monotone="off"
    )


def evidence_with_cec(context: Context) -> nn.Module:
    """The same experts trained jointly with CEC instead of alone, then the gate without measured quality."""
    trained = context.train_layer(replace(EXPERTS_ONLY, cec_weight=5.0, cec_subset_weight=0.3))
    return ours(context, context.settled(context.fit_gate(trained, NO_QUALITY, with_kinds=True)), monotone="off")


def published(weights: bool = False, gate: str = "additive", **changes) -> Callable[[Context], nn.Module]:
    """The published design on linear experts, with some of it changed."""
    objective = replace(PUBLISHED, **changes)

    def build(context: Context) -> nn.Module:
        shares = modality_weights(torch.from_numpy(context.frequency_ratios())) if weights else None
        return context.train_layer(objective, weights=shares, gate=gate, **LINEAR)

    return build


BASELINES: dict[str, Callable[[Context], nn.Module]] = {
    "unimodal": unimodal,
    "concat, no mask (confound)": lambda c: c.joint,
    "concat + mask": concat_mask,
    "mean of logits": lambda c: c.with_experts(base.MeanLogits),
    "product, linear experts": product_linear,
    STRONG: product,
    "head per subset": subset_heads,
    "energy weighting (QMF)": lambda c: c.with_experts(base.EnergyWeighted),
    "TMC": trusted,
    "CML": cml,
}
if upstream_installed():  # without it its row is missing and the report says so
    BASELINES["upstream aecf 0.1.0"] = upstream

VARIANTS_OF_OURS: dict[str, Callable[[Context], nn.Module]] = {
    OURS: ours,
    "aecf, hard monotone": lambda c: ours(c, monotone="hard"),
    "aecf, no lift": lambda c: ours(c, monotone="off"),
    "aecf, no recalibration": lambda c: ours(c, c.fitted, monotone="off"),
    "aecf, free recalibration": lambda c: ours(c, c.recalibrated(c.fitted, FREE), monotone="off"),
    "aecf, no cross-fit": lambda c: ours(c, c.recalibrated(c.own, FREE), monotone="off"),
}

ABLATIONS_OF_OURS: dict[str, Callable[[Context], nn.Module]] = {
    "aecf, random folds": random_folds,
    "aecf, no measured quality": without_quality,
    "aecf, experts of the baselines": plain_experts,
    "aecf, experts with CEC": evidence_with_cec,
}

ABLATIONS: dict[str, Callable[[Context], nn.Module]] = {
    "additive gate": published(),
    "- entropy": published(entropy="off"),
    "- CEC": published(cec_weight=0.0),
    "- curriculum": published(curriculum="off"),
    "- subset floor": published(subset_floor=0.0),
    "- all three": published(entropy="off", cec_weight=0.0, curriculum="off"),
    "entropy rewarded": published(entropy_sign="reward"),
    "entropy penalized": published(entropy_sign="penalize"),
    "entropy by schedule": published(entropy="schedule"),
    "high entropy masks": published(curriculum="high-entropy"),
    "convex gate": published(gate="convex"),
    "MA-AFS gate": published(gate="scheduler"),
    "MWAM weights": published(weights=True, expert_weight=1.0),
    "expert loss, no MWAM": published(expert_weight=1.0),
}

ALL_ROWS = BASELINES | VARIANTS_OF_OURS | ABLATIONS_OF_OURS | ABLATIONS
