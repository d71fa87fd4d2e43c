"""Stories of one stream: what arrives, when, and what its health is then. Times are in seconds of steady time."""
import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aecf_ros.core.streams import (
    PublishersMatched,
    SampleReceived,
    SampleRejected,
    StreamMonitor,
    StreamThresholds,
    TimePassed,
)
from aecf_ros.core.types import NANOSECONDS, StreamState

OK, WAITING, STALE, DROPPED, REJECTED = (StreamState[n] for n in ("OK", "WAITING", "STALE", "DROPPED", "REJECTED"))


class Story:
    """A monitor with the verbs of a story; every verb gives the state after it."""

    def __init__(self, **thresholds: float) -> None:
        self.monitor = StreamMonitor("camera", StreamThresholds(**thresholds))

    def _tell(self, event: object, at_s: float) -> StreamState:
        self.status = self.monitor.update(event, round(at_s * NANOSECONDS))
        return self.status.state

    def good(self, *times_s: float) -> StreamState:
        return [self._tell(SampleReceived(), t) for t in times_s][-1]

    def bad(self, *times_s: float, reason: str = "no such encoding") -> StreamState:
        return [self._tell(SampleRejected(reason), t) for t in times_s][-1]

    def at(self, time_s: float) -> StreamState:
        return self._tell(TimePassed(), time_s)

    def publishers(self, count: int, at_s: float) -> StreamState:
        return self._tell(PublishersMatched(count), at_s)


def every(period_s: float, start_s: float, end_s: float) -> list[float]:
    return [start_s + i * period_s for i in range(round((end_s - start_s) / period_s))]


def test_a_stream_waits_for_its_first_sample_however_long_and_then_is_ok_at_once() -> None:
    story = Story()
    assert story.at(0) is WAITING
    assert story.at(100) is WAITING
    assert story.status.silent_s is None and story.status.rate_hz is None
    assert story.monitor.next_change_ns() is None
    assert story.good(100.1) is OK
    assert story.status.reason == ""


def test_silence_is_stale_then_dropped_and_three_good_samples_bring_it_back() -> None:
    story = Story(stale_after_s=0.35, dropped_after_s=1.0, recover_samples=3)
    story.good(*every(0.1, 0, 1))
    last_s = 0.9
    assert story.at(last_s + 0.35) is OK
    assert story.at(last_s + 0.351) is STALE
    assert "0.35 s" in story.status.reason
    assert story.at(last_s + 1.0) is STALE
    assert story.at(last_s + 1.001) is DROPPED
    assert story.at(60) is DROPPED
    assert story.status.silent_s == pytest.approx(59.1)
    assert story.good(60.1) is DROPPED and "1 of 3" in story.status.reason
    assert story.good(60.2) is DROPPED and "2 of 3" in story.status.reason
    assert story.good(60.3) is OK and story.status.reason == ""


def test_a_short_silence_also_takes_three_good_samples() -> None:
    story = Story()
    story.good(0, 0.1, 0.2)
    assert story.at(0.7) is STALE
    assert [story.good(t) for t in (0.8, 0.9, 1.0)] == [STALE, STALE, OK]


def test_samples_with_silences_between_them_do_not_add_up_to_a_recovery() -> None:
    story = Story()
    story.good(0, 0.1)
    states = [story.good(t) for t in every(0.5, 1, 20)]  # each silence is longer than stale_after_s
    assert OK not in states
    assert [story.good(20 + t) for t in (0.1, 0.2, 0.3)][-1] is OK


def test_a_sample_that_comes_too_late_shows_the_silence_before_it() -> None:
    story = Story()
    story.good(0, 0.1)
    assert story.good(5.0) is DROPPED  # nobody asked in between, the silence still counts


@pytest.mark.parametrize("rate_hz", [5, 7.5, 10, 15, 25, 30, 50, 60])
@pytest.mark.parametrize("seed", [0, 1])
def test_jitter_of_a_fifth_of_the_period_never_flaps_in_ten_minutes(rate_hz: float, seed: int) -> None:
    story, rng, period_s = Story(), random.Random(seed), 1 / rate_hz
    states = set()
    for i in range(int(600 * rate_hz)):
        at_s = (i + rng.uniform(-0.2, 0.2)) * period_s + 1
        states.add(story.at(at_s - 1e-6)) if i else None
        states.add(story.good(at_s))
    assert states == {OK}
    assert story.status.rate_hz == pytest.approx(rate_hz, rel=0.05)


def test_one_bad_frame_among_good_ones_is_counted_and_does_not_switch_off() -> None:
    story = Story(reject_after=3)
    story.good(0, 0.1)
    assert story.bad(0.2, reason="JPEG is truncated") is OK
    assert "JPEG is truncated" in story.status.reason
    assert (story.status.received, story.status.rejected) == (3, 1)
    assert story.good(0.3, 0.4, 0.5) is OK and story.status.reason == ""


def test_every_other_frame_bad_stays_ok_because_good_ones_keep_coming() -> None:
    story = Story()
    story.good(0)
    for i in range(1, 200):
        assert (story.bad if i % 2 else story.good)(i * 0.1) is OK


def test_three_bad_frames_in_a_row_are_a_rejected_stream_and_three_good_ones_end_it() -> None:
    story = Story()
    story.good(0, 0.05)
    assert [story.bad(t) for t in (0.1, 0.15, 0.2)] == [OK, OK, REJECTED]
    assert story.status.reason == "no such encoding"
    assert [story.good(t) for t in (0.25, 0.3, 0.35)] == [REJECTED, REJECTED, OK]


def test_a_bad_frame_starts_the_recovery_over() -> None:
    story = Story()
    story.bad(0, 0.1, 0.2)
    assert story.good(0.3, 0.4) is REJECTED
    assert story.bad(0.5) is REJECTED
    assert [story.good(t) for t in (0.6, 0.7, 0.8)] == [REJECTED, REJECTED, OK]


def test_the_first_message_ever_being_bad_says_so_instead_of_waiting() -> None:
    assert Story().bad(0) is REJECTED


def test_a_stream_of_only_bad_messages_stays_rejected_for_as_long_as_they_come() -> None:
    story = Story()
    assert {story.bad(t) for t in every(0.5, 0, 60)} == {REJECTED}
    assert story.status.silent_s is None and story.status.rejected == 120


def test_rejected_then_silent_is_dropped() -> None:
    story = Story(dropped_after_s=1.0)
    story.good(0)
    story.bad(0.1, 0.2, 0.3)
    assert story.at(1.3) is REJECTED
    assert story.at(1.301) is DROPPED
    assert "no new sample" in story.status.reason


def test_rejected_then_silent_is_dropped_where_nothing_good_ever_came() -> None:
    story = Story(dropped_after_s=1.0)
    story.bad(0)
    assert (story.at(0.9), story.at(1.1)) == (REJECTED, DROPPED)
    assert story.bad(2, 2.1, 2.2) is REJECTED


def test_a_dropped_stream_that_comes_back_undecodable_is_rejected_after_three() -> None:
    story = Story()
    story.good(0)
    assert story.at(5) is DROPPED
    assert [story.bad(t) for t in (5.1, 5.2, 5.3)] == [DROPPED, DROPPED, REJECTED]


def test_the_last_publisher_gone_is_dropped_at_once_and_the_reason_stays() -> None:
    story = Story()
    story.publishers(1, 0)
    story.good(0.1, 0.2)
    assert story.publishers(0, 0.25) is DROPPED
    assert "publisher" in story.status.reason
    assert not story.monitor.is_live(round(0.26 * NANOSECONDS))
    assert story.at(30) is DROPPED and "publisher" in story.status.reason
    assert story.publishers(1, 31) is DROPPED
    assert [story.good(31 + t) for t in (0.1, 0.2, 0.3)] == [DROPPED, DROPPED, OK]


def test_one_of_two_publishers_gone_changes_nothing() -> None:
    story = Story()
    story.publishers(2, 0)
    story.good(0.1)
    assert story.publishers(1, 0.2) is OK


def test_a_publisher_that_leaves_before_it_sent_anything_leaves_the_stream_waiting() -> None:
    story = Story()
    story.publishers(1, 0)
    assert story.publishers(0, 1) is WAITING
    assert story.publishers(0, 2) is WAITING
    assert story.good(3) is OK


def test_only_ok_late_and_degraded_feed_the_fusion() -> None:
    assert {s.name for s in StreamState if s.feeds_fusion} == {"OK", "LATE", "DEGRADED"}


@pytest.mark.parametrize("wrong", [{"stale_after_s": 0}, {"stale_after_s": -1}, {"stale_after_s": 2, "dropped_after_s": 1}, {"recover_samples": 0},
                                   {"reject_after": 0}, {"stale_after_s": float("nan")}])
def test_senseless_thresholds_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="need|must be"):
        StreamThresholds(**wrong)


thresholds = st.tuples(st.floats(0.001, 10), st.floats(1.0, 5.0)).map(lambda p: StreamThresholds(p[0], p[0] * p[1]))
events = st.lists(st.tuples(st.floats(0, 3), st.sampled_from([SampleReceived(), SampleRejected("bad"), TimePassed(), PublishersMatched(1),
                                                            PublishersMatched(0)])), min_size=1, max_size=12)


def _play(monitor: StreamMonitor, story: Iterable[tuple[float, object]]) -> int:
    now_ns = 1_700_000_000 * NANOSECONDS
    for wait_s, event in story:
        now_ns += round(wait_s * NANOSECONDS)
        monitor.update(event, now_ns)
    return now_ns


@settings(max_examples=400, deadline=None)
@given(thresholds, events)
def test_silence_changes_the_state_at_exactly_the_moment_announced(limits: StreamThresholds, story: list) -> None:
    monitor = StreamMonitor("camera", limits)
    now_ns = _play(monitor, story)
    for _ in range(3):  # at most STALE, then DROPPED
        before = monitor.status(now_ns).state
        change_ns = monitor.next_change_ns()
        if change_ns is None:
            assert before in (WAITING, DROPPED)
            return
        if change_ns - 1 > now_ns:
            assert monitor.update(TimePassed(), change_ns - 1).state is before
        now_ns = max(now_ns, change_ns)
        assert monitor.update(TimePassed(), now_ns).state is not before
    assert monitor.next_change_ns() is None


@settings(max_examples=200, deadline=None)
@given(thresholds, events)
def test_a_loop_that_sleeps_until_the_next_change_ends_dropped(limits: StreamThresholds, story: list) -> None:
    monitor = StreamMonitor("camera", limits)
    monitor.update(SampleReceived(), 0)
    now_ns = _play(monitor, story)
    turns = 0
    while (change_ns := monitor.next_change_ns()) is not None:
        turns += 1
        assert turns <= 3
        now_ns = max(now_ns, change_ns)
        monitor.update(TimePassed(), now_ns)
    assert monitor.status(now_ns).state is DROPPED


@settings(max_examples=200, deadline=None)
@given(thresholds, events)
def test_the_state_depends_on_events_and_not_on_how_often_it_is_asked_for(limits: StreamThresholds, story: list) -> None:
    asked, left_alone = StreamMonitor("camera", limits), StreamMonitor("camera", limits)
    now_ns = 0
    for wait_s, event in story:
        for part in (0.25, 0.5, 0.75):
            asked.update(TimePassed(), now_ns + round(part * wait_s * NANOSECONDS))
        now_ns += round(wait_s * NANOSECONDS)
        assert asked.update(event, now_ns) == left_alone.update(event, now_ns)
