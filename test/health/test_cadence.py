"""Losses and jitter told from chance: what each score says of messages drawn from a known distribution."""

import random

import pytest

from aecf_ros.health.jitter import JitterScore
from aecf_ros.health.packet_loss import PacketLossScore

PERIOD_NS, ALLOWED_NS = 100_000_000, 60_000_000


def messages_until_lost(share: float, seed: int, most: int) -> int | None:
    """Messages received until the score complains of losses with probability ``share``, ``None`` where it did not."""
    score, rng, missing = PacketLossScore(), random.Random(seed), 0
    for i in range(most):
        while rng.random() < share:
            missing += 1
        if score.add(missing, 0.25) is not None:
            return i
        missing = 0
    return None


@pytest.mark.parametrize(("share", "most"), [(0.15, 600), (0.2, 200), (0.4, 40), (0.6, 20)])
def test_a_share_that_is_lost_throughout_is_named_the_sooner_the_greater_it_is(share: float, most: int) -> None:
    assert None not in [messages_until_lost(share, seed, most) for seed in range(50)]


@pytest.mark.parametrize("share", [0.01, 0.02])
def test_one_or_two_in_a_hundred_are_not(share: float) -> None:
    assert messages_until_lost(share, 0, 100_000) is None


def test_one_long_gap_is_a_hiccup_and_half_a_dozen_single_ones_are_not() -> None:
    score = PacketLossScore()
    assert score.add(30, 0.25) is None
    assert [score.add(1, 0.25) is not None for _ in range(6)][-2:] == [True, True]


def test_words_count_from_where_losses_began_and_come_with_a_loss() -> None:
    score = PacketLossScore()
    for _ in range(1000):
        assert score.add(0, 0.25) is None
    words = [score.add(1, 0.25) for _ in range(8)]
    assert words[-1] == "8 of 16 messages lost, by their stamps"
    assert score.add(0, 0.25) is None


def test_losses_long_ago_are_forgotten_and_zero_switches_it_off() -> None:
    score = PacketLossScore()
    assert not any(score.add(i % 20 == 0, 0.25) for i in range(2000))  # a twentieth, evenly
    assert not any(score.add(5, 0.0) for _ in range(100))


def transit(
    score: JitterScore, later_ms: list[float], allowed_ns: float = ALLOWED_NS, period_ns: float = PERIOD_NS
) -> list[bool]:
    now_ns, said = 0, []
    for later in later_ms:
        now_ns += round(period_ns + later * 1e6)
        said.append(score.add(now_ns, later * 1e6, allowed_ns, period_ns) is not None)
    return said


def test_a_stall_and_its_backlog_are_no_jitter_and_two_together_are() -> None:
    stall = [250.0, -100.0, -100.0, -50.0]
    assert not any(transit(JitterScore(), (stall + [0.0] * 20) * 20))
    assert any(transit(JitterScore(), stall + stall))


def test_transit_times_that_are_a_fifth_of_a_period_off_are_not_jitter() -> None:
    rng = random.Random(0)
    off = [rng.gauss(0, 20) for _ in range(100_000)]
    assert not any(transit(JitterScore(), [b - a for a, b in zip(off, off[1:], strict=False)]))


@pytest.mark.parametrize("seed", range(10))
def test_transit_times_anywhere_within_four_periods_are_within_sixteen_messages(seed: int) -> None:
    rng = random.Random(seed)
    off = [0.0, *(rng.uniform(0, 400) for _ in range(16))]
    assert any(transit(JitterScore(), [b - a for a, b in zip(off, off[1:], strict=False)]))


def test_bursts_of_messages_that_keep_their_order_are_jitter_though_little_changes_within_one() -> None:
    burst = [-10.0] * 4 + [40.0]
    assert any(transit(JitterScore(), burst * 5, allowed_ns=20e6, period_ns=10e6))
    assert not any(transit(JitterScore(), ([-10.0] + [10.0]) * 500, allowed_ns=20e6, period_ns=10e6))
