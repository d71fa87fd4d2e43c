"""`aecf watch` in a real terminal (a pty) over real DDS, and what it draws."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest
from builtin_interfaces.msg import Duration  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from rich.console import Console

from aecf_msgs.msg import FusedPrediction, ModalityReport  # noqa: E402
from aecf_ros.nodes.tools.watch import HISTORY_S, History, Scope, draw, nothing_on, sparkline  # noqa: E402

from .conftest import ROOT, WAIT_S, Peer

COMMAND = [sys.executable, "-m", "aecf_ros.cli", "watch"]


def prediction(confidence: float = 0.93, camera: float = 0.7) -> FusedPrediction:
    reports = [
        ModalityReport(
            name="camera", state=ModalityReport.OK, used=camera > 0, gate_weight=camera, label="seven", confidence=0.8
        ),
        ModalityReport(
            name="audio", state=ModalityReport.OK, used=True, gate_weight=1 - camera, label="one", confidence=0.6
        ),
    ]
    message = FusedPrediction(
        model="av_digits",
        label="seven",
        confidence=confidence,
        prediction_set=["one", "seven"],
        coverage=0.9,
        latency=Duration(nanosec=12_500_000),
        modalities=reports,
    )
    message.header.stamp.sec = 1000
    return message


def diagnostics(node: str = "fusion_node", level: bytes = DiagnosticStatus.ERROR) -> DiagnosticArray:
    return DiagnosticArray(
        status=[DiagnosticStatus(level=level, name=f"{node}: camera", message="STALE: nothing for 0.4 s")]
    )


def drawn(scope: Scope, now_s: float) -> str:
    console = Console(width=110, record=True, file=io.StringIO())
    console.print(draw(scope, now_s))
    return console.export_text()


def test_the_view_shows_label_set_weights_latency_and_reasons() -> None:
    scope = Scope("/fusion_node")
    scope.on_prediction(prediction(), 100.0)
    scope.on_diagnostics(diagnostics())
    scope.on_diagnostics(diagnostics("other_node"))
    text = drawn(scope, 100.1)
    for part in (
        "seven",
        "0.93",
        "{one, seven}",
        "covers 90%",
        "12.5 ms",
        "0.70",
        "0.30",
        "STALE: nothing for 0.4 s",
        "weight camera",
        "weight audio",
    ):
        assert part in text, text
    assert text.count("STALE: nothing") == 1


def test_silence_of_the_node_is_shown() -> None:
    scope = Scope("/fusion_node")
    scope.on_prediction(prediction(), 100.0)
    assert "no prediction for" not in drawn(scope, 100.5)
    assert "no prediction for 7 s" in drawn(scope, 107.0)


def test_an_unused_modality_leaves_a_gap_in_its_sparkline() -> None:
    scope = Scope("/fusion_node")
    for second, camera in enumerate((0.9, 0.9, 0.0, 0.9)):
        scope.on_prediction(prediction(camera=camera), 100.0 + second)
    assert scope.weights["camera"].line(103.0).endswith("██ █")
    assert scope.weights["audio"].line(103.0).endswith("▁▁█▁")


def test_history_keeps_a_minute_of_means() -> None:
    history = History()
    for tenth in range(10 * 200):
        history.add(tenth / 10, 1.0 if tenth % 10 < 5 else 0.0)  # half of each second
    line = history.line(199.9)
    assert len(line) == HISTORY_S and set(line) == {"▅"}
    assert history.line(209.9) == "▅" * (HISTORY_S - 10) + " " * 10


def test_sparkline_has_eight_heights_and_stays_in_bounds() -> None:
    assert sparkline([-1.0, 0.0, 0.124, 0.126, 0.99, 1.0, 2.0, None]) == "▁▁▁▂███ "


@pytest.mark.parametrize(
    ("topics", "says"),
    [
        ([("/robot/fusion_node/prediction", ["aecf_msgs/msg/FusedPrediction"])], "try --node /robot/fusion_node"),
        ([("/fusion_node/prediction", ["aecf_msgs/msg/FusedPrediction"])], "is the node active?"),
        ([("/chatter", ["std_msgs/msg/String"])], "is the fusion node running, with the same ROS_DOMAIN_ID?"),
    ],
)
def test_nothing_received_is_said_with_what_there_is(topics: list[tuple[str, list[str]]], says: str) -> None:
    assert says in nothing_on("/fusion_node/prediction", topics, lambda name: True)


def test_a_wrong_name_ends_with_1_and_one_line_that_names_the_right_topic(peer: Peer) -> None:
    publisher = peer.node.create_publisher(FusedPrediction, "/robot/fusion_node/prediction", 10)
    process = subprocess.Popen(COMMAND, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    peer.wait_for(lambda: process.poll() is not None, "aecf watch to give up", lambda: publisher.publish(prediction()))
    output = process.stdout.read()
    assert process.returncode == 1
    assert len(output.splitlines()) == 1 and "try --node /robot/fusion_node" in output, output


def test_in_a_terminal_it_is_live_until_ctrl_c(peer: Peer) -> None:
    predictions = peer.node.create_publisher(FusedPrediction, "/arm/fusion_node/prediction", 10)
    told = peer.node.create_publisher(DiagnosticArray, "/diagnostics", 10)
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, "--node", "arm/fusion_node"],
        cwd=ROOT,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm"},
        start_new_session=True,
    )
    os.close(slave)
    seen = ""

    def feed() -> None:
        nonlocal seen
        predictions.publish(prediction())
        told.publish(diagnostics())
        while select.select([master], [], [], 0)[0]:
            seen += os.read(master, 65536).decode(errors="replace")

    def screens() -> int:
        return len(re.findall(r"av_digits, \d+ predictions", seen))

    try:
        peer.wait_for(lambda: screens() > 5 and "STALE: nothing" in seen and "seven" in seen, "five screens", feed)
        process.send_signal(signal.SIGINT)
        give_up = time.monotonic() + WAIT_S
        while process.poll() is None and time.monotonic() < give_up:
            feed()
            time.sleep(0.02)
        assert process.returncode == 0
        assert "Traceback" not in seen
    finally:
        process.kill()
        process.wait()
        os.close(master)
