"""Ten faults in one recording, played over real DDS to the node in its own process: the matrix of test/replay, live."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from aecf_msgs.msg import FusedPrediction
from aecf_ros.core.types import NANOSECONDS, StreamState
from aecf_ros.nodes.fusion.node import PREDICTION_QOS
from aecf_ros.nodes.ros.convert import prediction_from_message
from test.replay.simulated import CHUNK_S, FRAME_S
from test.replay.test_matrix import JITTER, RIGHT, allowed_s

from .conftest import MODEL, ROOT, UNPACED, Peer
from .recordings import first_seconds

SECONDS = 35.0
PERIOD_S = {"camera": FRAME_S, "audio": CHUNK_S}
FAULTS = [
    ("camera", "drop", 5.0, 7.5),
    ("audio", "drop", 7.5, 10.0),
    ("camera", "corrupt", 10.0, 12.5),
    ("audio", "wrong_encoding", 12.5, 15.0),
    ("camera", "dark", 15.0, 17.5),
    ("audio", "silence", 17.5, 20.0),
    ("camera", "freeze", 20.0, 22.5),
    ("audio", "noise", 22.5, 25.0),
    ("camera", "blur", 25.0, 27.5),
    ("camera", "clock_jump", 30.0, 32.5),
]
SHOWN_S = 2 * FRAME_S
"""A state is published with the next prediction, and the message behind it went through DDS."""


class Stalls:
    """How long this machine kept a thread that wanted 5 ms from running: what it does to us it does to the node."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        before_s = time.time()
        while not self._stop.wait(0.005):
            now_s = time.time()
            self._seen.append((now_s, now_s - before_s - 0.005))
            before_s = now_s

    def longest_s(self, from_s: float, to_s: float) -> float:
        return max((late_s for at_s, late_s in self._seen if from_s <= at_s <= to_s), default=0.0)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def stalls():
    watch = Stalls()
    yield watch
    watch.stop()


def play(peer: Peer, recording: Path, folder: Path) -> int:
    """Play it with the faults; gives the node time at which it started, in ns."""
    schedule, log = folder / "faults.yaml", folder / "played.json"
    schedule.write_text(yaml.safe_dump([{"stream": s, "kind": k, "start_s": a, "end_s": b} for s, k, a, b in FAULTS]))
    with (folder / "player.log").open("w") as sink:
        player = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "aecf_ros.nodes.tools.player_node",
                "--bag",
                str(recording),
                "--model",
                str(MODEL),
                "--faults",
                str(schedule),
                "--log",
                str(log),
            ],
            cwd=ROOT,
            env=os.environ,
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    try:
        peer.wait_for(lambda: player.poll() is not None, "the player to end")
    finally:
        player.kill()
    assert player.returncode == 0, (folder / "player.log").read_text()
    return json.loads(log.read_text())["start_ns"]


def test_ten_faults_are_seen_as_what_they_are_in_time_and_predictions_go_on(
    start_node, peer: Peer, stalls: Stalls, tmp_path: Path
) -> None:
    received: list[FusedPrediction] = []
    peer.node.create_subscription(FusedPrediction, "/fusion_node/prediction", received.append, PREDICTION_QOS)
    recording = first_seconds(SECONDS, tmp_path / "bag")
    node = start_node(*UNPACED)  # none of these faults is of the pace, which a busy machine wears down by itself
    peer.wait_for(lambda: received, "the node's first prediction")
    start_ns = play(peer, recording, tmp_path)
    assert node.stop() == 0, node.output()

    answers = [
        ((published_ns - start_ns) / NANOSECONDS, prediction)
        for prediction, published_ns in map(prediction_from_message, received)
    ]
    names = [m.name for m in answers[0][1].modalities]
    wrong = []
    for stream, kind, start_s, end_s in FAULTS:
        states = [(at_s, p.modalities[names.index(stream)].state) for at_s, p in answers]
        late_s = SHOWN_S + stalls.longest_s(start_ns / NANOSECONDS + start_s, start_ns / NANOSECONDS + end_s + 2)

        def first(wanted: set[StreamState], from_s: float, to_s: float, states=states) -> float:
            return next(
                (at_s - from_s for at_s, state in states if from_s < at_s < to_s and state in wanted), float("inf")
            )

        before = {state for at_s, state in states if start_s - 0.5 < at_s < start_s}
        if before != {StreamState.OK}:
            wrong.append(f"{stream} {kind}: {before} before it began")
        seen_s = first(RIGHT[kind], start_s, end_s)
        if seen_s > allowed_s(kind, stream) + late_s:
            wrong.append(
                f"{stream} {kind}: seen after {seen_s:.3f} s, allowed {allowed_s(kind, stream):.3f} + {late_s:.3f}"
            )
        back_s, recovery_s = first({StreamState.OK}, end_s, end_s + 2.5), (3 + 1 + JITTER) * PERIOD_S[stream]
        if back_s > recovery_s + late_s:
            wrong.append(f"{stream} {kind}: OK again after {back_s:.3f} s, allowed {recovery_s:.3f} + {late_s:.3f}")
        times_s = [at_s for at_s, _ in answers if start_s - 0.5 < at_s < end_s + 0.5]
        gap_s = max(b - a for a, b in zip(times_s, times_s[1:], strict=False))
        if gap_s > 2 * FRAME_S + late_s - SHOWN_S:
            wrong.append(
                f"{stream} {kind}: no prediction for {gap_s:.3f} s, two periods are {2 * FRAME_S:.3f} "
                f"+ {late_s - SHOWN_S:.3f}"
            )
        print(
            f"{stream:6} {kind:15} seen {seen_s:.3f} of {allowed_s(kind, stream):.3f}, back "
            f"{back_s:.3f} of {recovery_s:.3f}, gap {gap_s:.3f}, "
            f"stalls {late_s - SHOWN_S:.3f}"
        )
    assert not wrong, "\n".join(wrong)
