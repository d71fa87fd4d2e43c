"""The objective, the out-of-fold fit, calibration, prediction sets and the baselines, on small synthetic data."""

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own convention)

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
)
from aecf_ros.fusion import baselines as base
from aecf_ros.fusion.calibration.conformal import MondrianConformal, conformal_threshold
from aecf_ros.fusion.calibration.monotone import choose_reach
from aecf_ros.fusion.calibration.temperature import fit_temperature
from aecf_ros.fusion.crossfit import assign_folds, recalibrate, settle


def samples(count=600, classes=4, width=8, noise=1.5, seed=0):
    """Two modalities, each a noisy code of the label."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(classes, (count,), generator=generator)
    code = 2.0 * torch.eye(classes, width)
    return [code[label] + noise * torch.randn(count, width, generator=generator) for _ in range(2)], label


def fit_experts(layer, embeddings, targets, steps, learning_rate):
    """Each expert by its own likelihood, all modalities present."""
    present = torch.ones(len(targets), len(embeddings), dtype=torch.bool)
    optimizer = torch.optim.Adam(layer.parameters(), lr=learning_rate)
    for _ in range(steps):
        loss, _ = FusionObjective(EXPERTS_ONLY)(layer, FusionBatch(embeddings, present, targets))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def train(layer, objective, steps=80, count=600):
    torch.manual_seed(0)
    embeddings, label = samples(count)
    present = torch.ones(count, 2, dtype=torch.bool)
    optimizer = torch.optim.Adam(layer.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    layer.train()
    for step in range(steps):
        loss, _ = objective(layer, FusionBatch(embeddings, present, label), generator, progress=step / steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return layer.eval()


def loss_of(layer, pattern=(True, True)):
    embeddings, label = samples(seed=1)
    with torch.no_grad():
        return F.cross_entropy(layer(embeddings, torch.tensor(pattern).repeat(len(label), 1)).logits, label).item()


@pytest.mark.parametrize("gate", ["additive", "convex", "scheduler"])
def test_the_published_objective_trains_every_softmax_gate(gate):
    torch.manual_seed(0)
    layer = train(AECF([8, 8], 4, gate=gate, expert_hidden=()), FusionObjective(PUBLISHED))
    assert loss_of(layer) < 0.9
    assert loss_of(layer, (True, False)) < 1.2


def test_each_switch_adds_its_term_and_off_adds_none():
    layer = AECF([8, 8], 4, gate="additive", expert_hidden=())
    embeddings, label = samples(64)
    present = torch.ones(64, 2, dtype=torch.bool)

    def terms(**options):
        return set(FusionObjective(ObjectiveConfig(**options))(layer, FusionBatch(embeddings, present, label))[1])

    assert terms() == {"joint"}
    assert terms(entropy="adaptive") == {"joint", "entropy"}
    assert terms(cec_weight=1.0) == {"joint", "cec", "subsets"}
    assert terms(expert_weight=1.0, joint_weight=0.0) == {"experts"}


def test_the_loss_is_a_function_of_its_arguments_and_generator_alone():
    layer = AECF([8, 8], 4, gate="additive", expert_hidden=(), dropout=0.0)
    embeddings, label = samples(64)
    present = torch.ones(64, 2, dtype=torch.bool)
    objective = FusionObjective(PUBLISHED)
    first, second = (
        objective(layer, FusionBatch(embeddings, present, label), torch.Generator().manual_seed(3))[0] for _ in range(2)
    )
    assert torch.equal(first, second)


def test_soft_targets_teach_a_silent_modality_to_say_the_prior():
    layer = AECF([8, 8], 4, gate="evidence", expert_hidden=(16,))
    embeddings, label = samples(300)
    targets = torch.cat([F.one_hot(label, 4).float(), torch.full((300, 4), 0.25)])
    embeddings = [torch.cat([e, torch.full((300, 8), -4.0)]) for e in embeddings]
    present = torch.ones(600, 2, dtype=torch.bool)
    fit_experts(layer, embeddings, targets, steps=150, learning_rate=1e-2)
    silent = layer.eval()([torch.full((1, 8), -4.0)] * 2, present[:1]).logits.softmax(-1)
    assert (silent - 0.25).abs().max() < 0.05


def test_multilabel_objective_trains():
    layer = AECF([8, 8], 4, gate="evidence", expert_hidden=(16,), multilabel=True, prior=torch.full((4,), 0.25))
    layer = train_multilabel(layer)
    embeddings, label = samples(seed=1)
    probability = torch.sigmoid(layer(embeddings, torch.ones(len(label), 2, dtype=torch.bool)).logits)
    assert probability.gather(1, label[:, None]).mean() > 0.6
    assert probability.mean().item() == pytest.approx(0.25, abs=0.03)  # the prior counts once


def train_multilabel(layer):
    embeddings, label = samples()
    fit_experts(layer, embeddings, F.one_hot(label, 4).float(), steps=120, learning_rate=5e-3)
    return layer.eval()


def test_reliability_fitted_on_held_out_kinds_doubts_a_kind_never_seen():
    torch.manual_seed(0)
    (first, second), label = samples(3000)
    kind = torch.randint(-1, 3, (3000,))
    directions = (
        6.0 * torch.eye(8)[4:8]
    )  # features that carry no label: each kind shifts one of them and scrambles the rest
    scrambled = torch.where((kind >= 0)[:, None], directions[kind.clamp(min=0)] + first[torch.randperm(3000)], first)
    layer = AECF([8, 8], 4, expert_hidden=(32,))
    optimizer = torch.optim.Adam(layer.parameters(), lr=5e-3)
    for _ in range(120):
        loss, _ = FusionObjective(EXPERTS_ONLY)(
            layer, FusionBatch([scrambled, second], torch.ones(3000, 2, dtype=torch.bool), label)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    layer.eval()
    unseen = first[torch.randperm(3000)] + directions[3]  # the fourth direction: no kind in training used it
    both = torch.ones(3000, 2, dtype=torch.bool)
    before = layer([unseen, second], both)
    config = CrossFitConfig(expert_steps=80, steps=150, unseen_share=0.3)
    fit_reliability(
        layer, 0, ModalitySamples(scrambled, label, torch.arange(3000), kind), config, torch.Generator().manual_seed(0)
    )
    after = layer.eval()([unseen, second], both)
    assert F.cross_entropy(after.logits, label) < F.cross_entropy(before.logits, label)
    assert after.gate_weights[:, 0].mean() < before.gate_weights[:, 0].mean()


def test_only_an_evidence_gate_has_a_reliability_to_fit():
    (first, _), label = samples(50)
    with pytest.raises(ValueError, match="use gate='evidence'"):
        fit_reliability(AECF([8, 8], 4, gate="additive"), 0, ModalitySamples(first, label, torch.arange(50)))


def test_a_single_known_kind_still_leaves_something_to_train_on():
    (first, _), label = samples(300)
    layer = AECF([8, 8], 4, expert_hidden=(16,))
    config = CrossFitConfig(expert_steps=20, steps=20)
    collected = fit_reliability(
        layer, 0, ModalitySamples(first, label, torch.arange(300), torch.arange(300) % 2 - 1), config
    )
    assert torch.isfinite(collected.logits).all()
    assert 0 < collected.unseen.sum() < len(collected.unseen)


def test_samples_of_one_recording_share_a_fold():
    clusters = torch.arange(40).repeat_interleave(5)
    folds = assign_folds(torch.full((200,), -1), clusters, 4, torch.Generator().manual_seed(0))
    assert (folds.view(40, 5) == folds.view(40, 5)[:, :1]).all()
    assert len(folds.unique()) == 4


def test_recalibration_lowers_the_loss_of_an_overconfident_expert():
    layer = train(AECF([8, 8], 4, expert_hidden=(64,)), FusionObjective(EXPERTS_ONLY), steps=300, count=100)
    (first, _), label = samples(2000, seed=2)
    before = loss_of(layer, (True, False))
    few = copy.deepcopy(layer)
    recalibrate(layer, 0, ModalitySamples(first, label, torch.arange(2000)))
    assert loss_of(layer, (True, False)) < before
    recalibrate(
        few, 0, ModalitySamples(first, label, torch.arange(2000) % 2)
    )  # two recordings move it less than two thousand would
    moved = [(m.gate.reliability[0].head.bias - torch.tensor([0.0, -9.0])).abs().max().item() for m in (few, layer)]
    assert moved[0] < 0.2 * moved[1]


def test_a_fit_that_costs_too_much_on_held_out_data_is_dropped():
    layer = train(AECF([8, 8], 4, expert_hidden=(64,)), FusionObjective(EXPERTS_ONLY))
    (first, _), label = samples(2000, seed=2)
    clusters = torch.arange(2000)
    plain = copy.deepcopy(layer)
    recalibrate(plain, 0, ModalitySamples(first, label, clusters), 3.0)
    sensible = copy.deepcopy(layer)
    assert settle(sensible, 0, ModalitySamples(first, label, clusters))
    layer.gate.reliability[0].head.bias.data[1] = 1.0  # doubts three samples in four
    trusted = copy.deepcopy(layer)
    trusted.gate.reliability[0].clusters.fill_(400)
    assert settle(trusted, 0, ModalitySamples(first, label, clusters))
    assert not settle(layer, 0, ModalitySamples(first, label, clusters))
    assert loss_of(layer, (True, False)) == pytest.approx(loss_of(plain, (True, False)), abs=1e-4)


def test_a_skewed_prior_is_in_the_gate_once():
    prior = torch.tensor([0.7, 0.1, 0.1, 0.1])
    generator = torch.Generator().manual_seed(0)
    label = torch.multinomial(prior, 4000, replacement=True, generator=generator)
    code = 2.0 * torch.eye(4, 8)
    embeddings = [code[label] + 1.5 * torch.randn(4000, 8, generator=generator) for _ in range(2)]
    torch.manual_seed(0)
    layer = AECF([8, 8], 4, expert_hidden=(32,), prior=prior)
    present = torch.ones(4000, 2, dtype=torch.bool)
    fit_experts(layer, embeddings, label, steps=100, learning_rate=5e-3)
    out = layer.eval()(embeddings, present)
    alone = layer(embeddings, torch.tensor([[True, False]]).repeat(4000, 1))
    for logits in (out.logits, alone.logits):
        assert (logits.softmax(-1).mean(0) - prior).abs().max() < 0.03


def test_temperature_recovers_the_scale_that_logits_lost():
    torch.manual_seed(0)
    logits = 2 * torch.randn(20_000, 5)
    label = torch.distributions.Categorical(logits=logits).sample()
    assert fit_temperature(3.0 * logits, label).item() == pytest.approx(1 / 3, rel=0.05)


def test_too_few_samples_for_a_conformal_threshold_are_refused():
    with pytest.raises(ValueError, match="at least 9 are needed"):
        conformal_threshold(torch.rand(5), 0.9)


def test_prediction_sets_cover_within_every_presence_pattern():
    torch.manual_seed(0)
    present = torch.tensor([[True, False], [True, True]]).repeat_interleave(8000, 0)
    scale = torch.where(present.all(1), 4.0, 1.0)[:, None]
    probabilities = (scale * torch.randn(16000, 5)).softmax(-1)
    label = torch.distributions.Categorical(probabilities).sample()
    half = torch.arange(16000) % 2 == 0
    conformal = MondrianConformal(2).fit(probabilities[half], present[half], label[half], coverage=0.9)
    inside = conformal(probabilities[~half], present[~half]).gather(1, label[~half, None]).squeeze(1).float()
    for pattern in (present[~half].all(1), ~present[~half].all(1)):
        assert inside[pattern].mean().item() == pytest.approx(0.9, abs=0.02)
    unfitted = conformal(probabilities[:1], torch.tensor([[False, True]]))
    assert unfitted.all()


def test_the_chosen_reach_reduces_violations_and_stays_under_its_ceiling():
    layer = train(AECF([8, 8], 4, expert_hidden=(32,)), FusionObjective(EXPERTS_ONLY))
    embeddings, label = samples(seed=2)
    present = torch.ones(len(label), 2, dtype=torch.bool)
    plain = layer(embeddings, present)
    before = F.cross_entropy(plain.logits, label).item()
    reach = choose_reach(layer, embeddings, label, violation=0.01, ceiling=before + 0.02)
    layer.monotone, layer.monotone_reach = "soft", reach
    lifted = layer(embeddings, present)
    assert reach > 0
    assert F.cross_entropy(lifted.logits, label) <= before + 0.02
    single = layer(embeddings, torch.tensor([[True, False]]).repeat(len(label), 1)).confidence
    assert (single > lifted.confidence + 1e-6).sum() < (single > plain.confidence + 1e-6).sum()
    assert choose_reach(layer, embeddings, label, violation=0.01, ceiling=0.0) == 0.0


BASELINES = [
    lambda: base.Unimodal([8, 8], 4, hidden=(16,)),
    lambda: base.MeanLogits([8, 8], 4, hidden=(16,)),
    lambda: base.ProductOfExperts([8, 8], 4, hidden=()),
    lambda: base.EnergyWeighted([8, 8], 4, hidden=(16,)),
    lambda: base.ConcatHead([8, 8], 4, hidden=(16,), mask=True),
    lambda: base.ConcatHead([8, 8], 4, hidden=(16,), mask=False),
    lambda: base.SubsetHeads([8, 8], 4, hidden=(16,)),
    lambda: base.TrustedMultiView([8, 8], 4, hidden=(16,)),
]


@pytest.mark.parametrize("make", BASELINES)
def test_every_baseline_learns_and_gives_the_prior_for_nothing(make):
    torch.manual_seed(0)
    model = make()
    embeddings, label = samples()
    present = torch.tensor([[True, True], [True, False], [False, True]]).repeat(200, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(120):
        loss = F.cross_entropy(model(embeddings, present).logits, label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    assert loss_of(model) < 1.3  # chance is 1.386; heads of single modalities see a third of the rows
    nan = [torch.full_like(e, torch.nan) for e in embeddings]
    out = model(nan, torch.zeros_like(present))
    assert torch.allclose(out.logits.softmax(-1), torch.full((600, 4), 0.25))


def test_dempster_combination_of_two_opinions_worked_by_hand():
    evidence = torch.tensor([[[2.0, 0.0], [0.0, 0.0]]])
    assert torch.allclose(base.combine_evidence(evidence), evidence[:, 0], atol=1e-5)  # no evidence is neutral
    both = base.combine_evidence(torch.tensor([[[2.0, 0.0], [2.0, 0.0]]]))
    # b = 1/2, u = 1/2 each: b = 1/4 + 1/4 + 1/4 = 3/4, u = 1/4, evidence = b C / u = 6
    assert torch.allclose(both, torch.tensor([[6.0, 0.0]]), atol=1e-4)
