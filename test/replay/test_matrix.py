"""Every kind of fault on each stream it can act on, twenty draws each with the timing of real sensors: the right
state, in time, and back.

Rates from end to end of what the defaults are made for: cameras of 5 to 60 Hz, chunks of 10 to 500 ms.
"""

import os
import random
from functools import cache

import pytest

from aecf_ros.core.types import StreamState as S
from aecf_ros.modalities.registry import MODALITIES
from aecf_ros.replay.faults.registry import faults_on
from aecf_ros.replay.faults.schedule import Fault
from test.replay.simulated import FRAME_S, KINDS, PERIODS_S, Messages, World, run

REPETITIONS = 20
REPETITIONS_AT_OTHER_RATES = int(os.environ.get("AECF_MATRIX_REPETITIONS", "3"))
"""Twenty of every rate take five minutes."""
OTHER_PERIODS_S = {"camera": (1 / 60, 1 / 30, 1 / 5), "audio": (0.01, 0.5)}
START_S = 4.5
JITTER = 1.2  # of a period: a message comes up to a fifth of it later
CONTENT_S = 1.0
SHORT_S = 0.05  # sound is judged by so much, however short its chunks
PACE_PERIODS = {"rate": 10, "jitter": 16}
"""Of a stream with two fifths of its messages four come in 10 periods, and fewer may be chance; jitter begins with a
delay like any other.
"""

RIGHT = {
    "drop": {S.STALE, S.DROPPED},
    "freeze": {S.FROZEN},
    "delay": {S.LATE, S.STALE, S.DROPPED},
    "jitter": {S.DEGRADED},
    "rate": {S.DEGRADED, S.STALE},
    "noise": {S.DEGRADED},
    "blur": {S.DEGRADED},
    "dark": {S.DEGRADED},
    "silence": {S.DEGRADED},
    "clip": {S.DEGRADED},
    "corrupt": {S.REJECTED},
    "wrong_encoding": {S.REJECTED},
    "wrong_size": {S.REJECTED},
    "nan": {S.REJECTED},
    "clock_jump": {S.CLOCK_FAULT},
    "zero_stamp": {S.CLOCK_FAULT},
    "out_of_order": {S.CLOCK_FAULT},
}
"""What a fault must show as; which of the first two depends on how much of the stream is left."""


def allowed_s(kind: str, stream: str, period_s: float | None = None) -> float:
    """The threshold of the state and one period; a second for what wears the content or the pace down, where so few
    messages can tell.
    """
    t, period_s = MODALITIES[KINDS[stream]].thresholds, PERIODS_S[stream] if period_s is None else period_s
    if kind in ("drop", "delay"):
        return max(t.stale_after_s, 5 * period_s) + JITTER * period_s
    if kind == "freeze":
        return max(t.frozen_after_s, 3 * period_s) + JITTER * period_s
    if kind in ("corrupt", "wrong_encoding", "wrong_size", "nan"):
        return (t.reject_after + JITTER) * period_s
    if kind in ("clock_jump", "zero_stamp", "out_of_order"):
        return 2 * JITTER * period_s
    if kind in PACE_PERIODS:
        return max(CONTENT_S, (PACE_PERIODS[kind] - 1 + JITTER) * period_s)
    return max(CONTENT_S, (1 + JITTER) * period_s)


def cases() -> list[tuple[str, str]]:
    return [(kind, stream) for stream in KINDS for kind in faults_on(KINDS[stream])]


def options(kind: str, period_s: float) -> dict[str, float]:
    """Where the greatest severity is another fault: a camera with a tenth of its frames is not slow, it is gone half
    of the time.
    """
    return {"delay": {"delay_s": 1.0}, "jitter": {"jitter_s": max(0.25, 4 * period_s)}, "rate": {"factor": 0.4}}.get(
        kind, {}
    )


@cache
def world(seed: int, streams: tuple[tuple[str, float], ...], seconds: float) -> Messages:
    """The messages of one draw; no fault changes them, so that every case may have the same."""
    return tuple(World(seed, loss=0.0, periods_s=dict(streams)).recorded(seconds))


def misses(kind: str, stream: str, periods_s: dict[str, float], repetitions: int) -> list[str]:
    """What was wrong in draws of a fault that begins and ends anywhere between two messages."""
    period_s, wrong = periods_s[stream], []
    lasts_s = max(2.5, 18 * period_s)
    seconds = START_S + period_s + lasts_s + max(1.2, 7 * period_s)
    for seed in range(repetitions):
        start_s = START_S + random.Random(seed).uniform(0, period_s)
        end_s = start_s + lasts_s
        fault = Fault(stream=stream, kind=kind, start_s=start_s, end_s=end_s, seed=seed, **options(kind, period_s))
        seen = run(world(seed, tuple(periods_s.items()), seconds), [fault], seconds)
        detected_s, limit_s = seen.first(stream, RIGHT[kind], start_s, end_s), allowed_s(kind, stream, period_s)
        if detected_s is None or detected_s > limit_s:
            wrong.append(
                f"seed {seed}: right state after {detected_s}, allowed {limit_s:.3f}; "
                f"{seen.alarms(stream, start_s, end_s)[:3]}"
            )
        others = [alarm for other in periods_s if other != stream for alarm in seen.alarms(other, 0.5)]
        if stray := [*seen.alarms(stream, 0.5, start_s), *others]:
            wrong.append(f"seed {seed}: alarm where nothing was wrong: {stray[:2]}")
        recovered_s = seen.first(
            stream, {S.OK, S.DEGRADED, S.LATE} if RIGHT[kind].isdisjoint({S.LATE, S.DEGRADED}) else {S.OK}, end_s + 1e-9
        )
        worn = stream == "audio" and kind in ("noise", "silence", "clip")
        recovery_s = (3 + 1 + JITTER) * period_s + (max(0.0, SHORT_S - period_s) if worn else 0.0)
        if recovered_s is None or recovered_s > recovery_s:
            wrong.append(
                f"seed {seed}: recovered after {recovered_s}, allowed {recovery_s:.3f}; "
                f"{seen.alarms(stream, end_s)[-2:]}"
            )
        if stream == "camera" and seen.longest_gap_s() > 2 * period_s:
            wrong.append(f"seed {seed}: gap of {seen.longest_gap_s():.3f} s, two periods are {2 * period_s:.3f}")
    return wrong


@pytest.mark.parametrize(("kind", "stream"), cases())
def test_a_fault_is_seen_as_what_it_is_in_time_and_is_over_when_it_is_over(kind: str, stream: str) -> None:
    wrong = misses(kind, stream, PERIODS_S, REPETITIONS)
    assert not wrong, "\n".join(wrong[:12]) + f"\n{len(wrong)} in all"


@pytest.mark.parametrize(
    ("kind", "stream", "period_s"),
    [(*case, period_s) for case in cases() for period_s in OTHER_PERIODS_S[case[1]]],
    ids=lambda v: v if isinstance(v, str) else f"{v:.3g}",
)
def test_so_it_is_for_slow_and_fast_streams(kind: str, stream: str, period_s: float) -> None:
    wrong = misses(kind, stream, {stream: period_s}, REPETITIONS_AT_OTHER_RATES)
    assert not wrong, "\n".join(wrong[:12]) + f"\n{len(wrong)} in all"


@pytest.mark.parametrize("jpeg", [False, True])
def test_streams_with_nothing_wrong_raise_no_alarm(jpeg: bool) -> None:
    for seed in range(4):
        seen = run(tuple(World(100 + seed, jitter=0.2, loss=0.01, jpeg=jpeg).recorded(60.0)), [], 60.0)
        assert seen.alarms("camera") == [] and seen.alarms("audio") == []
        assert seen.longest_gap_s() <= 2 * FRAME_S
