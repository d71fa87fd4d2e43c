"""Work is done in order by one thread; of what waits in a slot, only the newest."""

from __future__ import annotations

import threading

import pytest

from aecf_ros.runtime.scheduling import EXPECTED_PERIOD_NS, WORKER_ABOVE, Deadline, Inline, Worker, choose_scheduling

WAIT_S = 30.0


class Bench:
    """A worker whose first work holds it until ``release``, so that what comes behind must wait."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.finished = threading.Event()
        self._held, self._released = threading.Event(), threading.Event()
        self.worker = Worker(Deadline(lambda: None, lambda: None))

    def hold(self) -> None:
        def work() -> None:
            self._held.set()
            assert self._released.wait(WAIT_S)

        self.worker.submit(work)
        assert self._held.wait(WAIT_S)

    def release_and_wait(self) -> None:
        self.worker.submit(self.finished.set)
        self._released.set()
        assert self.finished.wait(WAIT_S)

    def submit(self, name: str, slot: str | None = None) -> None:
        self.worker.submit(lambda: self.done.append(name), slot)


@pytest.fixture
def bench():
    a_bench = Bench()
    yield a_bench
    a_bench._released.set()
    a_bench.worker.stop()


def test_inline_does_the_work_at_once_in_the_same_thread() -> None:
    threads: list[threading.Thread] = []
    schedule = Inline()
    schedule.submit(lambda: threads.append(threading.current_thread()), slot="camera")
    schedule.stop()
    assert threads == [threading.current_thread()] and not schedule.dropped


def test_only_the_newest_frame_of_each_camera_is_served_and_all_sound_is(bench: Bench) -> None:
    bench.hold()
    for i in range(5):
        bench.submit(f"front{i}", "front")
        bench.submit(f"sound{i}")
        bench.submit(f"rear{i}", "rear")
    bench.release_and_wait()
    assert bench.done == ["sound0", "sound1", "sound2", "sound3", "front4", "sound4", "rear4"]
    assert bench.worker.dropped == {"front": 4, "rear": 4}


def test_all_work_is_done_by_one_thread_that_is_not_the_callers(bench: Bench) -> None:
    threads: set[threading.Thread] = set()
    for _ in range(5):
        bench.worker.submit(lambda: threads.add(threading.current_thread()))
    bench.hold()
    bench.release_and_wait()
    assert len(threads) == 1 and threading.current_thread() not in threads


def test_what_waits_when_it_stops_is_forgotten_and_what_runs_is_finished(bench: Bench) -> None:
    bench.hold()
    bench.submit("too late")
    stopping = threading.Thread(target=bench.worker.stop)
    stopping.start()
    while not bench.worker._stopping:
        stopping.join(0.001)
    assert stopping.is_alive()  # the work under way is waited for
    bench._released.set()
    stopping.join(WAIT_S)
    assert not stopping.is_alive() and bench.done == []


def test_it_acts_by_itself_when_nothing_comes_for_as_long_as_it_was_told() -> None:
    acted = threading.Event()
    worker = Worker(Deadline(lambda: 0.01, acted.set))
    assert acted.wait(WAIT_S)
    worker.stop()


def test_what_the_work_raises_reaches_the_loop(bench: Bench) -> None:
    def fail() -> None:
        raise RuntimeError("the graph is gone")

    bench.worker.submit(fail)
    bench.worker._thread.join(WAIT_S)
    with pytest.raises(RuntimeError, match="the graph is gone"):
        bench.submit("more")


@pytest.mark.parametrize(
    ("share", "chosen"),
    [(0.1, "inline"), (WORKER_ABOVE - 0.01, "inline"), (WORKER_ABOVE + 0.01, "worker"), (3.0, "worker")],
)
def test_the_worker_is_chosen_when_inference_nears_the_period_of_the_frames(share: float, chosen: str) -> None:
    assert choose_scheduling("auto", round(share * EXPECTED_PERIOD_NS)) == chosen
    assert choose_scheduling("inline", round(share * EXPECTED_PERIOD_NS)) == "inline"
    assert choose_scheduling("worker", round(share * EXPECTED_PERIOD_NS)) == "worker"
