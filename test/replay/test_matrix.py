"""Every kind of fault on each stream it can act on, twenty draws each with the timing of real sensors: the right state, in time, and back."""
from functools import cache

import pytest
from test.replay.simulated import CHUNK_S, FRAME_S, KINDS, Messages, World, run

from aecf_ros.core.thresholds import DEFAULT_THRESHOLDS
from aecf_ros.core.types import StreamState as S
from aecf_ros.replay.effects import KINDS as EFFECTS
from aecf_ros.replay.faults import Fault

REPETITIONS = 20
START_S, END_S, SECONDS = 4.5, 7.0, 8.2
PERIOD_S = {"camera": FRAME_S, "audio": CHUNK_S}
JITTER = 1.2  # of a period: a message comes up to a fifth of it later
CONTENT_S = 1.0

RIGHT = {
    "drop": {S.STALE, S.DROPPED}, "freeze": {S.FROZEN}, "delay": {S.LATE, S.STALE, S.DROPPED}, "jitter": {S.DEGRADED}, "rate": {S.DEGRADED, S.STALE},
    "noise": {S.DEGRADED}, "blur": {S.DEGRADED}, "dark": {S.DEGRADED}, "silence": {S.DEGRADED}, "clip": {S.DEGRADED}, "corrupt": {S.REJECTED},
    "wrong_encoding": {S.REJECTED}, "wrong_size": {S.REJECTED}, "nan": {S.REJECTED}, "clock_jump": {S.CLOCK_FAULT}, "zero_stamp": {S.CLOCK_FAULT},
    "out_of_order": {S.CLOCK_FAULT}}
"""What a fault must show as; which of the first two depends on how much of the stream is left."""


def allowed_s(kind: str, stream: str) -> float:
    """The threshold of the state and one period, or a second for what wears the content or the pace down."""
    t, period_s = DEFAULT_THRESHOLDS[KINDS[stream]], PERIOD_S[stream]
    if kind in ("drop", "delay"):
        return max(t.stale_after_s, 5 * period_s) + JITTER * period_s
    if kind == "freeze":
        return t.frozen_after_s + 2 * JITTER * period_s
    if kind in ("corrupt", "wrong_encoding", "wrong_size", "nan"):
        return (t.reject_after + JITTER) * period_s
    if kind in ("clock_jump", "zero_stamp", "out_of_order"):
        return 2 * JITTER * period_s
    return CONTENT_S


def cases() -> list[tuple[str, str]]:
    return [(kind, stream) for kind, effect in EFFECTS.items() for stream in KINDS if KINDS[stream] in effect.streams]


OPTIONS = {("delay", "camera"): {"delay_s": 1.0}, ("delay", "audio"): {"delay_s": 1.0}, ("jitter", "camera"): {"jitter_s": 0.25}, ("rate", "camera"): {"factor": 0.4}, ("rate", "audio"): {"factor": 0.4}}
"""Where the greatest severity is another fault: a camera with a tenth of its frames is not slow, it is gone half of the time."""


@cache
def world(seed: int) -> Messages:
    """The messages of one draw; no fault changes them, so that every case may have the same."""
    return tuple(World(seed, loss=0.0).recorded(SECONDS))


@pytest.mark.parametrize(("kind", "stream"), cases())
def test_a_fault_is_seen_as_what_it_is_in_time_and_is_over_when_it_is_over(kind: str, stream: str) -> None:
    other = next(name for name in KINDS if name != stream)
    period_s = PERIOD_S[stream]
    wrong = []
    for seed in range(REPETITIONS):
        fault = Fault(stream=stream, kind=kind, start_s=START_S, end_s=END_S, seed=seed, **OPTIONS.get((kind, stream), {}))
        seen = run(world(seed), [fault], SECONDS)
        detected_s = seen.first(stream, RIGHT[kind], START_S, END_S)
        if detected_s is None or detected_s > allowed_s(kind, stream):
            wrong.append(f"seed {seed}: right state after {detected_s}, allowed {allowed_s(kind, stream):.3f}; {seen.alarms(stream, START_S, END_S)[:3]}")
        stray = [alarm for alarm in seen.alarms(stream, 0.5, START_S)] + seen.alarms(other, 0.5)
        if stray:
            wrong.append(f"seed {seed}: alarm where nothing was wrong: {stray[:2]}")
        recovered_s = seen.first(stream, {S.OK, S.DEGRADED, S.LATE} if RIGHT[kind].isdisjoint({S.LATE, S.DEGRADED}) else {S.OK}, END_S + 1e-9)
        recovery_s = (3 + 1 + JITTER) * period_s
        if recovered_s is None or recovered_s > recovery_s:
            wrong.append(f"seed {seed}: recovered after {recovered_s}, allowed {recovery_s:.3f}; {seen.alarms(stream, END_S)[-2:]}")
        if stream == "camera" and seen.longest_gap_s() > 2 * FRAME_S:
            wrong.append(f"seed {seed}: gap of {seen.longest_gap_s():.3f} s, two periods are {2 * FRAME_S:.3f}")
    assert not wrong, "\n".join(wrong[:12]) + f"\n{len(wrong)} in all"


@pytest.mark.parametrize("jpeg", [False, True])
def test_streams_with_nothing_wrong_raise_no_alarm(jpeg: bool) -> None:
    for seed in range(4):
        seen = run(tuple(World(100 + seed, jitter=0.2, loss=0.01, jpeg=jpeg).recorded(60.0)), [], 60.0)
        assert seen.alarms("camera") == [] and seen.alarms("audio") == []
        assert seen.longest_gap_s() <= 2 * FRAME_S
