"""Drift is called if live data is significantly unlike training, not by chance and not for one repeated scene."""

import numpy as np
import pytest

from aecf_ros.core.bundle import DriftReference
from aecf_ros.core.drift import CONFIDENCE, EMBEDDINGS, DriftMonitor, independent, upper_tail, values, warning
from aecf_ros.core.types import NANOSECONDS

LEVELS = [0.05, 0.25, 0.5, 0.75, 0.95]
SURE = [0.5, 0.8, 0.9, 0.95, 1.0]
REFERENCE = DriftReference(
    levels=LEVELS, distances={"camera": LEVELS, "audio": LEVELS}, confidence={"camera": SURE, "audio": SURE}
)
"""Distances that are uniform in [0, 1] are those of training; a quarter of the confidence is below 0.8."""
FRAME_S = 0.25


class Live:
    """Four predictions a second; ``far`` and ``unsure`` say how often what is drawn lies beyond what training has.

    What lies beyond changes every ``scene_s``.
    """

    def __init__(self, seed: int = 0, window_s: float = 120.0) -> None:
        self.rng = np.random.default_rng(seed)
        self.watch = DriftMonitor(REFERENCE, ("camera", "audio"), window_s)
        self.at_s, self.called, self.doubtful = 0.0, [], 0.6

    def run(
        self, seconds: float, far: float = 0.05, unsure: float = 0.25, scene_s: float = 1.0, used: tuple = (True, True)
    ) -> None:
        beyond, sure, until = False, True, self.at_s
        for _ in range(round(seconds / FRAME_S)):
            if self.at_s >= until:
                beyond, sure, until = self.rng.random() < far, self.rng.random() >= unsure, self.at_s + scene_s
            self.at_s += FRAME_S
            distance = 0.96 if beyond else 0.5
            self.watch.add(
                self.now_ns, used, np.array([distance, 0.5]), np.array([0.99 if sure else self.doubtful, 0.99])
            )
            if self.at_s % 1.0 == 0 and (line := warning(self.watch.findings(self.now_ns))):
                self.called.append((self.at_s, line))

    @property
    def now_ns(self) -> int:
        return round(self.at_s * NANOSECONDS)

    def found(self) -> dict:
        return {(drift.modality, drift.what): drift for drift in self.watch.findings(self.now_ns)}


@pytest.mark.parametrize(("far", "scene_s"), [(0.05, 1.0), (0.05, 4.0), (0.12, 2.0)])
def test_an_hour_like_training_and_a_little_unlike_it_raise_no_alarm(far: float, scene_s: float) -> None:
    live = Live(seed=3)
    live.run(3600, far, unsure=0.32, scene_s=scene_s)
    assert live.called == []
    assert 110 <= live.found()["camera", EMBEDDINGS].samples <= 120  # one a second, of four


def test_what_is_unlike_training_is_called_by_name_and_ends_when_it_is_over() -> None:
    live = Live()
    live.run(300)
    assert live.called == []
    live.run(300, far=0.62)
    first_s, line = live.called[0]
    assert 300 < first_s < 420
    assert (
        line.startswith("camera embeddings unlike training: ")
        and "95th percentile" in line
        and "`aecf calibrate`" in line
        and "audio" not in line
    )
    live.run(130)
    assert warning(live.watch.findings(live.now_ns)) == ""


def test_confidence_is_compared_where_something_is_recognized() -> None:
    live = Live()
    live.run(200, unsure=0.9)
    assert (
        live.called[0][1].startswith("camera confidence unlike training: ") and "25th percentile" in live.called[0][1]
    )
    assert live.found()["camera", CONFIDENCE].share > 0.8 and not live.found()["camera", EMBEDDINGS].called
    idle = Live()
    idle.doubtful = 0.2  # an empty scene: nothing is recognized
    idle.run(200, unsure=0.95)
    assert idle.called == []


def test_a_few_strange_scenes_that_last_are_not_many_independent_samples() -> None:
    quick, slow = Live(seed=1), Live(seed=1)
    for _ in range(3):  # as much of the time either way
        quick.run(40, far=0.5, scene_s=1.0)
        slow.run(20, far=1.0, scene_s=20.0)
        slow.run(20, far=0.0, scene_s=20.0)
    assert quick.called and not slow.called


def test_half_a_window_must_have_been_seen() -> None:
    live = Live()
    live.run(55, far=1.0)
    assert live.called == []
    live.run(10, far=1.0)
    assert live.called


def test_what_is_absent_is_not_counted_and_what_is_old_is_forgotten() -> None:
    live = Live()
    live.run(100, far=1.0, used=(False, True))
    assert ("camera", EMBEDDINGS) not in live.found() and live.called == []
    live.at_s += 500
    assert live.found() == {} and values(live.watch.findings(live.now_ns)) == {}
    live.run(10, used=(False, False))
    assert live.found() == {}


def test_diagnostics_have_a_number_for_each() -> None:
    live = Live()
    live.run(10.0, far=1.0, unsure=0.0)
    shares = {"camera embeddings": "100", "camera confidence": "0", "audio embeddings": "0", "audio confidence": "0"}
    assert values(live.watch.findings(live.now_ns)) == {
        f"drift {name} (% of 10 samples)": share for name, share in shares.items()
    }


@pytest.mark.parametrize(
    "watch", [DriftMonitor(None, ("camera",), 120.0), DriftMonitor(REFERENCE, ("camera", "audio"), 0.0)]
)
def test_nothing_is_watched_without_a_reference_or_a_window(watch: DriftMonitor) -> None:
    for second in range(200):
        watch.add(second * NANOSECONDS, (True, True), np.array([9.0, 9.0]), np.array([0.6, 0.6]))
    assert watch.findings(200 * NANOSECONDS) == ()


def test_the_tail_is_the_binomial_one() -> None:
    rng = np.random.default_rng(0)
    for share, samples, tolerated in ((0.3, 40, 0.2), (0.6, 15, 0.5), (0.0, 9, 0.2)):
        drawn = (rng.binomial(samples, tolerated, 200_000) >= share * samples).mean()
        assert upper_tail(share, samples, tolerated) == pytest.approx(drawn, abs=0.005)


def test_a_first_order_process_counts_by_what_is_independent_of_it() -> None:
    rng, kept = np.random.default_rng(2), 0.6
    means, counts = [], []
    for _ in range(400):
        flags = np.empty(200)
        flags[0] = rng.random() < 0.5
        for i in range(1, 200):
            flags[i] = flags[i - 1] if rng.random() < kept else rng.random() < 0.5
        means.append(flags.mean())
        counts.append(independent(flags))
    assert np.mean(counts) == pytest.approx(0.25 / np.var(means), rel=0.2)  # what a mean's variance says
