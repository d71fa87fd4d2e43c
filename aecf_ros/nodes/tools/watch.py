"""`aecf watch`: a live terminal view of a running fusion node."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from aecf_msgs.msg import FusedPrediction
from aecf_ros.core.types import NANOSECONDS, Prediction
from aecf_ros.nodes.ros.convert import prediction_from_message
from aecf_ros.replay.report.tables import headline, streams_table

HISTORY_S = 60
FIRST_S = 5.0
SILENT_S = 1.0
DRAW_PERIOD_S = 0.125
PRINT_PERIOD_S = 5.0
BEST_EFFORT_QOS = QoSProfile(depth=20, reliability=ReliabilityPolicy.BEST_EFFORT)
"""Best effort matches whatever the node offers."""
_LEVELS = "▁▂▃▄▅▆▇█"
PREDICTION_TYPE = "aecf_msgs/msg/FusedPrediction"


class WatchError(RuntimeError):
    """Nothing to watch; says on which topic, and what there is instead."""


class History:
    """Values of the last ``HISTORY_S`` seconds, one mean for each."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, float, int]] = deque(maxlen=HISTORY_S)

    def add(self, at_s: float, value: float) -> None:
        """Note a value at a time that never goes back."""
        second = math.floor(at_s)
        if self._seconds and self._seconds[-1][0] == second:
            _, total, count = self._seconds.pop()
            self._seconds.append((second, total + value, count + 1))
        else:
            self._seconds.append((second, value, 1))

    def line(self, now_s: float) -> str:
        """A character for each second, the newest at the right: eight heights from 0 to 1, blank where nothing came."""
        means = {second: total / count for second, total, count in self._seconds}
        newest = math.floor(now_s)
        return sparkline(means.get(second) for second in range(newest - HISTORY_S + 1, newest + 1))


def sparkline(values: Iterable[float | None]) -> str:
    """Bars for values in [0, 1]; blank for None.

    >>> sparkline([0.0, 0.5, None, 1.0])
    '▁▅ █'
    """
    return "".join(
        " " if v is None else _LEVELS[min(len(_LEVELS) - 1, int(max(0.0, v) * len(_LEVELS)))] for v in values
    )


@dataclass
class Scope:
    """Everything that is known of the node being watched. Fed and drawn by one thread."""

    node: str
    prediction: Prediction | None = None
    published_ns: int = 0
    received_s: float = 0.0
    count: int = 0
    reasons: dict[str, tuple[int, str]] = field(default_factory=dict)
    confidence: History = field(default_factory=History)
    weights: dict[str, History] = field(default_factory=dict)
    arrivals_s: deque[float] = field(default_factory=lambda: deque(maxlen=50))

    def on_prediction(self, message: FusedPrediction, now_s: float) -> None:
        """Take a prediction that arrived at steady time ``now_s``."""
        self.prediction, self.published_ns = prediction_from_message(message)
        self.received_s = now_s
        self.count += 1
        self.arrivals_s.append(now_s)
        self.confidence.add(now_s, self.prediction.confidence)
        for report in self.prediction.modalities:
            self.weights.setdefault(report.name, History())
            if report.used:
                self.weights[report.name].add(now_s, report.gate_weight)

    def on_diagnostics(self, message: DiagnosticArray) -> None:
        """Take what the node says of its streams; others' diagnostics are ignored."""
        prefix = f"{self.node.rsplit('/', 1)[-1]}: "
        for status in message.status:
            if status.name.startswith(prefix):
                self.reasons[status.name.removeprefix(prefix)] = (int.from_bytes(status.level, "big"), status.message)

    @property
    def rate_hz(self) -> float:
        """Predictions in a second, over the last ones."""
        span_s = self.arrivals_s[-1] - self.arrivals_s[0] if self.arrivals_s else 0.0
        return (len(self.arrivals_s) - 1) / span_s if span_s > 0 else 0.0


def draw(scope: Scope, now_s: float) -> RenderableType:
    """The view at steady time ``now_s``."""
    prediction = scope.prediction
    assert prediction is not None  # the caller waits for the first
    head = headline(prediction)
    head.add_row(
        "set", Text("{" + ", ".join(prediction.prediction_set) + "}" + f"  covers {prediction.coverage:.0%}"), ""
    )
    head.add_row(
        "latency",
        f"{(scope.published_ns - prediction.stamp_ns) / NANOSECONDS * 1e3:.1f} ms",
        f"{scope.rate_hz:.1f} predictions/s",
    )
    agreement = f"{prediction.agreement:.2f}" if sum(report.used for report in prediction.modalities) > 1 else "-"
    head.add_row("agreement", agreement, f"gate entropy {prediction.gate_entropy:.2f} nats")
    lines = Table.grid(padding=(0, 2))
    lines.add_row("confidence", Text(scope.confidence.line(now_s), "green"))
    for name, history in scope.weights.items():
        lines.add_row(f"weight {name}", Text(history.line(now_s), "blue"))
    reasons = Table.grid(padding=(0, 2))
    for name, (level, text) in scope.reasons.items():
        reasons.add_row(name, Text(text, {0: "green", 1: "yellow"}.get(level, "red")))
    silent_s = now_s - scope.received_s
    subtitle = (
        Text(f"no prediction for {silent_s:.0f} s", "bold red") if silent_s > SILENT_S else Text("Ctrl-C ends", "dim")
    )
    return Panel(
        Group(head, Text(""), streams_table(prediction, scope.published_ns), Text(""), reasons, Text(""), lines),
        title=f"{scope.node} {prediction.model}, {scope.count} predictions",
        title_align="left",
        subtitle=subtitle,
        subtitle_align="left",
        width=96,
    )


def watch(node_name: str, console: Console) -> None:
    """Show a running node until Ctrl-C.

    Raises:
        WatchError: no prediction within ``FIRST_S``.
    """
    name = "/" + node_name.strip("/")
    topic = f"{name}/prediction"
    scope = Scope(name)
    rclpy.init()
    try:
        watcher = Node("aecf_watch")
        watcher.create_subscription(
            FusedPrediction, topic, lambda m: scope.on_prediction(m, time.monotonic()), BEST_EFFORT_QOS
        )
        watcher.create_subscription(DiagnosticArray, "/diagnostics", scope.on_diagnostics, BEST_EFFORT_QOS)
        executor = SingleThreadedExecutor()
        executor.add_node(watcher)
        try:
            _await_first(executor, watcher, scope, topic)
            _show(executor, scope, console)
        finally:
            executor.shutdown()
            watcher.destroy_node()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()


def _await_first(executor: SingleThreadedExecutor, watcher: Node, scope: Scope, topic: str) -> None:
    give_up_s = time.monotonic() + FIRST_S
    while scope.prediction is None:
        executor.spin_once(timeout_sec=0.1)
        if time.monotonic() > give_up_s:
            raise WatchError(
                nothing_on(topic, watcher.get_topic_names_and_types(), lambda t: watcher.count_publishers(t) > 0)
            )


def nothing_on(topic: str, topics: Iterable[tuple[str, list[str]]], is_published: Callable[[str], bool]) -> str:
    """Say why nothing arrives: list the published topics of the right type, or that there are none."""
    others = sorted(name for name, types in topics if PREDICTION_TYPE in types and is_published(name))
    if topic in others:
        return (
            f"nothing on {topic} within {FIRST_S:.0f} s though somebody publishes it; is the node active? `ros2"
            f" lifecycle get {topic.removesuffix('/prediction')}`"
        )
    if others:
        nodes = ", ".join(f"--node {name.removesuffix('/prediction')}" for name in others)
        return f"nobody publishes {topic}; topics of type {PREDICTION_TYPE}: {', '.join(others)}; try {nodes}"
    return (
        f"nobody publishes {topic}, nor any other topic of type {PREDICTION_TYPE}; is the fusion node running, with the"
        " same ROS_DOMAIN_ID?"
    )


def _show(executor: SingleThreadedExecutor, scope: Scope, console: Console) -> None:
    next_draw_s = 0.0
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            while rclpy.ok():
                executor.spin_once(timeout_sec=DRAW_PERIOD_S)
                if time.monotonic() >= next_draw_s:
                    next_draw_s = time.monotonic() + DRAW_PERIOD_S
                    live.update(draw(scope, time.monotonic()), refresh=True)
    while rclpy.ok():  # a file or a pipe gets the same picture now and then
        executor.spin_once(timeout_sec=DRAW_PERIOD_S)
        if time.monotonic() >= next_draw_s:
            next_draw_s = time.monotonic() + PRINT_PERIOD_S
            console.print(draw(scope, time.monotonic()))
