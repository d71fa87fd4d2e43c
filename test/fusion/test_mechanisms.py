"""Each mechanism against an example worked out by hand."""

import math

import pytest
import torch

from aecf_ros.fusion.calibration.monotone import LEAST_VARIANCE, lift_to_subsets, soft_lift, with_confidence
from aecf_ros.fusion.experts import DirectionAndLength
from aecf_ros.fusion.gates.ma_afs import scheduler_inputs
from aecf_ros.fusion.gates.reliability import contaminated_log_odds, contaminated_log_probabilities, evidence_share
from aecf_ros.fusion.gates.statistics import EmbeddingDistance, predictive_entropy
from aecf_ros.fusion.mechanisms.cec import cec_term, sampled_pairs, subset_pairs
from aecf_ros.fusion.mechanisms.curriculum import curriculum_rate, mask_dominant
from aecf_ros.fusion.mechanisms.entropy import dropout_lambda, entropy_term, gate_entropy, scheduled_lambda
from aecf_ros.fusion.mechanisms.mwam import dct_matrix, frequency_ratio, modality_weights
from aecf_ros.fusion.presence.agreement import agreement

BOTH = torch.tensor([[True, True]])


def test_gate_entropy_is_log_two_for_equal_weights_and_zero_for_one():
    weights = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    assert torch.allclose(gate_entropy(weights), torch.tensor([math.log(2), 0.0]))


def test_dropout_lambda_is_scaled_variance_capped_and_without_gradient():
    samples = torch.tensor(
        [[[0.4, 0.6], [0.0, 1.0]], [[0.6, 0.4], [1.0, 0.0]]], requires_grad=True
    )  # [K = 2, B = 2, M = 2]
    strength = dropout_lambda(samples, scale=10.0, cap=0.5)
    assert torch.allclose(strength, torch.tensor([0.1, 0.5]))  # variances 0.01 and 0.25
    assert not strength.requires_grad


def test_entropy_signs_reward_penalize_and_stop_at_the_target():
    entropy = torch.tensor([0.2])
    assert entropy_term(entropy, BOTH, 2.0, sign="reward", target=0.5).item() == pytest.approx(-0.4)
    assert entropy_term(entropy, BOTH, 2.0, sign="penalize", target=0.5).item() == pytest.approx(0.4)
    assert entropy_term(entropy, BOTH, 2.0, sign="hinge", target=0.5).item() == pytest.approx(
        2 * (0.5 * math.log(2) - 0.2)
    )
    assert entropy_term(torch.tensor([0.6]), BOTH, 2.0, sign="hinge", target=0.5).item() == 0.0
    with pytest.raises(ValueError, match="entropy sign"):
        entropy_term(entropy, BOTH, 1.0, sign="minus", target=0.5)


def test_the_schedule_ramps_over_the_first_half():
    assert [scheduled_lambda(p, 0.2) for p in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([0.0, 0.1, 0.2, 0.2])


def test_low_entropy_masks_more_or_less_by_direction():
    weights = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    present = BOTH.repeat(2, 1)
    assert torch.allclose(curriculum_rate(weights, present, 0.3, "low-entropy"), torch.tensor([0.3, 0.0]), atol=1e-6)
    assert torch.allclose(curriculum_rate(weights, present, 0.3, "high-entropy"), torch.tensor([0.0, 0.3]), atol=1e-6)


def test_masking_hits_the_dominant_modality_and_never_the_last_one():
    weights = torch.tensor([[0.9, 0.1], [0.2, 0.8], [1.0, 0.0]])
    present = torch.tensor([[True, True], [True, True], [True, False]])
    masked = mask_dominant(weights, present, torch.ones(3))
    assert masked.tolist() == [[False, True], [True, False], [True, False]]


def test_cec_is_the_mean_squared_shortfall_over_pairs():
    pairs = subset_pairs(2)  # subsets: first, second, both
    assert pairs.tolist() == [[0, 2], [1, 2]]
    confidence = torch.tensor([[0.9, 0.4, 0.7]])
    assert cec_term(confidence, pairs, torch.ones(1, 3, dtype=torch.bool)).item() == pytest.approx((0.2**2 + 0) / 2)
    assert cec_term(confidence, pairs, torch.tensor([[True, False, False]])).item() == 0.0


def test_cec_uses_all_pairs_up_to_four_modalities_and_samples_above():
    assert len(sampled_pairs(3)) == len(subset_pairs(3)) == 12
    assert len(sampled_pairs(5)) == len(subset_pairs(4)) < len(subset_pairs(5))


def test_agreement_is_one_for_equal_predictions_zero_for_contradiction_and_for_one_alone():
    same = torch.tensor([[[0.7, 0.3], [0.7, 0.3]]])
    opposite = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    assert agreement(same, BOTH).item() == pytest.approx(1.0, abs=1e-6)
    assert agreement(opposite, BOTH).item() == pytest.approx(0.0, abs=1e-6)
    assert agreement(same, torch.tensor([[True, False]])).item() == 0.0


def test_the_scheduler_sees_entropies_presence_and_agreement():
    logits = torch.tensor([[[0.0, 0.0], [100.0, 0.0]]])
    inputs = scheduler_inputs(logits, BOTH)
    jsd = predictive_entropy(torch.log(torch.tensor([0.75, 0.25]))) - 0.5 * math.log(2)
    expected = torch.tensor([[math.log(2), 0.0, 1.0, 1.0, 1.0 - jsd.item() / math.log(2)]])
    assert torch.allclose(inputs, expected, atol=1e-5)


def test_frequency_ratio_is_high_for_smooth_and_low_for_checkered_blocks():
    transform = dct_matrix()
    assert torch.allclose(transform @ transform.T, torch.eye(8), atol=1e-6)
    smooth = torch.ones(1, 16, 16)
    checkered = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(8, 8).unsqueeze(0)
    assert frequency_ratio(smooth).item() == pytest.approx(math.log1p(64 / 1e-4), rel=1e-4)
    assert frequency_ratio(checkered).item() < 0.1
    easy, hard = modality_weights(torch.tensor([3.0, 1.0]))
    assert easy.item() == pytest.approx(1.5 - 1 / (1 + math.exp(-6 * 0.8)))
    assert hard > easy


def test_a_modality_in_doubt_says_the_prior_and_bounds_the_cost_of_being_wrong():
    log_prior = torch.log(torch.tensor([0.5, 0.5]))
    logits = torch.tensor([[50.0, 0.0]])
    eps = torch.tensor([math.log(0.1 / 0.9)])
    p = contaminated_log_probabilities(logits, torch.ones(1), eps, log_prior).exp()
    assert torch.allclose(p, torch.tensor([[0.95, 0.05]]), atol=1e-6)
    certain_doubt = contaminated_log_probabilities(logits, torch.ones(1), torch.tensor([30.0]), log_prior)
    assert torch.allclose(certain_doubt.exp(), torch.tensor([[0.5, 0.5]]), atol=1e-6)
    half = contaminated_log_odds(torch.ones(1, 3), torch.ones(1), eps, torch.full((3,), -1.0))  # the prior and 1: even
    expected = 0.9 * 0.5 + 0.1 * torch.sigmoid(torch.tensor(-1.0))
    assert torch.allclose(torch.sigmoid(half), expected.expand(1, 3), atol=1e-6)


def test_weights_are_shares_of_the_evidence_and_fall_for_a_corrupted_modality():
    log_prior = torch.log(torch.full((3,), 1 / 3))
    sure = torch.log(torch.tensor([0.98, 0.01, 0.01])) - log_prior
    unsure = torch.log(torch.tensor([0.4, 0.3, 0.3])) - log_prior
    equal = evidence_share(torch.stack([sure, sure])[None], log_prior, BOTH)
    assert torch.allclose(equal, torch.tensor([[0.5, 0.5]]))
    corrupted = evidence_share(torch.stack([sure, unsure])[None], log_prior, BOTH)
    assert corrupted[0, 1] < 0.02
    assert corrupted.sum().item() == pytest.approx(1.0)


def test_distance_is_small_on_training_data_and_large_off_it():
    torch.manual_seed(0)
    label = torch.randint(3, (2000,))
    embeddings = torch.randn(2000, 6) + 5 * torch.nn.functional.one_hot(label, 6)
    distance = EmbeddingDistance(6, 3)
    distance.fit(embeddings, label)
    inside, outside = distance(embeddings[:100]), distance(embeddings[:100] + 20)
    for near, far in zip(inside, outside, strict=True):
        assert far.min() > near.max()
    assert inside[0].exp().mean().item() == pytest.approx(2.0, abs=0.2)  # squared Mahalanobis distance per feature is 1


def test_distances_of_wide_embeddings_lie_in_the_directions_of_most_variance():
    torch.manual_seed(0)
    label = torch.randint(3, (3000,))
    embeddings = 0.1 * torch.randn(3000, 300) + 5 * torch.nn.functional.one_hot(label, 300)
    distance = EmbeddingDistance(300, 3)
    distance.fit(embeddings, label)
    assert distance.landmarks.shape == (512, 128)
    between = embeddings[:100].clone()
    between[:, :3] = 5.0  # within the span of the classes, at none of them
    for near, far in zip(distance(embeddings[:100]), distance(between), strict=True):
        assert far.min() > near.max()


def test_an_expert_sees_where_an_embedding_points_whatever_its_length():
    seen = DirectionAndLength()(torch.tensor([[3.0, 4.0], [30.0, 40.0], [0.0, 0.0]]))
    assert torch.allclose(seen[0, :2], torch.tensor([0.6, 0.8]) * math.sqrt(2))
    assert torch.allclose(seen[0, :2], seen[1, :2])
    assert (seen[1, 2] - seen[0, 2]).item() == pytest.approx(math.log(100), abs=1e-4)
    assert torch.isfinite(seen).all()


def test_soft_lift_reaches_within_reach_and_leaves_conflict_alone():
    confidence, wanted = torch.tensor([0.5, 0.76, 0.7, 0.69, 0.5]), torch.tensor([0.4, 0.8, 0.8, 0.8, 0.8])
    lifted = soft_lift(confidence, wanted, torch.ones(5), reach=0.1 / 0.4**0.5)  # the deviation of 0.8 is 0.4
    assert torch.allclose(lifted, torch.tensor([0.5, 0.8, 0.8, 0.75, 0.5]))


def test_the_less_modalities_agree_the_shorter_a_soft_lift_reaches():
    wanted, agreed = torch.full((4,), 0.8), torch.tensor([1.0, 0.5, 0.25, 0.0])
    lifted = soft_lift(torch.full((4,), 0.76), wanted, agreed, reach=0.08 / 0.4**0.5)
    assert torch.allclose(lifted, torch.tensor([0.8, 0.8, 0.76, 0.76]))


def test_a_soft_lift_is_expected_to_cost_at_most_the_square_of_its_reach_over_the_deviation():
    confidence, wanted, agreed = torch.rand(3, 20000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lifted = soft_lift(confidence, wanted, agreed, reach=0.3)
    price = confidence * (confidence / lifted).log() + (1 - confidence) * ((1 - confidence) / (1 - lifted)).log()
    share = price * (wanted * (1 - wanted)).clamp(min=LEAST_VARIANCE).sqrt() / (0.3 * agreed) ** 2
    assert 0.5 < share.max() <= 1
    assert price.min() >= -1e-12


def test_the_lift_asks_each_subset_how_far_its_own_modalities_agree():
    """Two that nearly agree, and a third that is sure of something else."""
    evidence = torch.tensor([[[2.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 4.0]]])

    def logits_of(present):
        return (evidence * present.unsqueeze(-1)).sum(1)

    def confidence(*used):
        present = torch.tensor([used])
        return lift_to_subsets(logits_of, logits_of(present), present, 0.3).softmax(-1).amax(-1)

    two, three = [evidence[:, :count].sum(1).softmax(-1).amax(-1) for count in (2, 3)]
    alone = evidence.softmax(-1).amax(-1)[0]
    agreed = agreement(evidence[:, :2].softmax(-1), torch.ones(1, 2, dtype=torch.bool))
    assert torch.allclose(confidence(True, True, False), soft_lift(two, alone[:1], agreed, 0.3))
    assert confidence(True, True, False).item() == pytest.approx(alone[0].item()) and alone[0] > two
    assert torch.equal(confidence(True, True, True), three)  # a conflict: below the third alone, and out of reach


def test_raising_confidence_keeps_the_order_of_the_other_labels():
    raised = with_confidence(torch.log(torch.tensor([[0.5, 0.3, 0.2]])), torch.tensor([0.75])).exp()
    assert torch.allclose(raised, torch.tensor([[0.75, 0.15, 0.1]]), atol=1e-6)


def test_hard_monotone_confidence_never_falls_over_any_chain_of_subsets():
    torch.manual_seed(0)
    evidence = 3 * torch.randn(50, 3, 4)

    def logits_of(present):
        return (evidence * present.unsqueeze(-1)).sum(1)

    def confidence(present):
        return lift_to_subsets(logits_of, logits_of(present), present, None).softmax(-1).amax(-1)

    one = torch.tensor([[True, False, False]]).repeat(50, 1)
    two = torch.tensor([[True, True, False]]).repeat(50, 1)
    three = torch.ones(50, 3, dtype=torch.bool)
    assert (confidence(two) >= confidence(one) - 1e-6).all()
    assert (confidence(three) >= confidence(two) - 1e-6).all()
    plain = [logits_of(p).softmax(-1).amax(-1) for p in (one, two, three)]
    assert (plain[1] < plain[0]).any()  # without lifting it does fall
