"""One case: every system in turn, some repetitions, medians."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.node.cases import Case, Effort, Traffic
from benchmarks.node.processes import BenchmarkError, Sensors, Sink, System

SYSTEMS = ("floor", "naive_default", "naive_1thread", "node")
NODE = "node"
GREETING_S, GIVE_UP_S = 0.5, 30.0
STAGES = "stage "
"""How the node's diagnostics begin the keys of its stages."""


def start(case: Case, model: Path, names: Sequence[str], logs: Path) -> list[System]:
    """Start the processes of a case."""
    kind = "jpeg" if case.traffic.jpeg else "raw"
    lead = "camera" if case.traffic.camera_hz else "audio"
    arguments = {
        "floor": ("benchmarks.node.floor", [str(model), kind, lead]),
        "naive_default": ("benchmarks.node.naive", [str(model), kind, "0"]),
        "naive_1thread": ("benchmarks.node.naive", [str(model), kind, "1"]),
        NODE: ("aecf_ros.nodes.fusion.node", []),
    }
    systems = []
    for name in names:
        module, own = arguments[name]
        ros = ["--ros-args", "-r", f"__ns:=/{name}"]
        topic = f"/{name}/prediction"
        if name == NODE:
            ros += ["-p", f"model:={model}", "-p", f"camera.transport:={'compressed' if case.traffic.jpeg else 'raw'}"]
            topic = f"/{name}/fusion_node/prediction"
        systems.append(System(name, topic, module, [*own, *ros], logs / f"{name}.log"))
    return systems


@contextmanager
def running(systems: Sequence[System], sensors: Sensors, traffic: Traffic) -> Iterable[Sink]:
    """Everything connected, shown by an answer of every system; stopped in the end, whatever happens."""
    sink = Sink(systems)
    try:
        sensors.wait_ready()
        for system in systems:
            greet(system, traffic, sensors, sink)
        yield sink
    finally:
        sink.close()
        sensors.stop()
        for s in systems:
            s.stop()
            if s.process.returncode not in (0, None):
                raise BenchmarkError(f"{s.name} ended with {s.process.returncode}; see {s.log}")


def greet(system: System, traffic: Traffic, sensors: Sensors, sink: Sink) -> None:
    """Play every sensor until the first answer: DDS discovery may end later in one direction than in the other.

    Raises:
        BenchmarkError: no answer within ``GIVE_UP_S``.
    """
    everything = replace(traffic, camera_hz=30.0, audio_hz=10.0, audio_late_s=0.0).as_dict()
    give_up = time.monotonic() + GIVE_UP_S
    while not sink.received[system.name]:
        if time.monotonic() > give_up:
            raise BenchmarkError(f"{system.name} gave no answer within {GIVE_UP_S:g} s; see {system.log}")
        sensors.play(system.name, GREETING_S, everything)
        sink.spin_for(GREETING_S + 0.1)
        sensors.answer()


def run_case(
    case: Case, model: Path, names: Sequence[str], effort: Effort, logs: Path, advance: Callable[[], None]
) -> dict[str, dict]:
    """Figures of every system, the median of its repetitions; systems take turns, so that load hits all of them."""
    logs.mkdir(parents=True, exist_ok=True)
    systems = start(case, model, names, logs)
    sensors = Sensors(names, case.traffic.jpeg)
    figures: dict[str, list[dict]] = {name: [] for name in names}
    with running(systems, sensors, case.traffic) as sink:
        for repetition in range(effort.repetitions):
            for system in systems if repetition % 2 == 0 else systems[::-1]:
                figures[system.name].append(window(system, case.traffic, sensors, sink, effort.warm_s, effort.window_s))
                advance()
    return {name: _medians(windows) for name, windows in figures.items()}


def window(system: System, traffic: Traffic, sensors: Sensors, sink: Sink, warm_s: float, window_s: float) -> dict:
    """One repetition of one system: ``warm_s`` that do not count, then ``window_s`` that do."""
    sink.received[system.name].clear()
    sink.diagnostics.clear()
    sensors.play(system.name, warm_s + window_s + 0.3, traffic.as_dict())
    sink.spin_for(warm_s)
    cpu_before, from_answer = system.cpu_s(), len(sink.received[system.name])
    sink.spin_for(window_s)
    cpu_s, to_answer = system.cpu_s() - cpu_before, len(sink.received[system.name])
    sink.spin_for(0.35)
    sent = sensors.answer()
    sink.spin_for(0.2)
    answers = sink.received[system.name]
    return {
        **_latency(answers, sent["camera"] or sent["audio"], warm_s, window_s),
        "cpu": cpu_s / window_s,
        "predictions_per_s": (to_answer - from_answer) / window_s,
        "rss_mb": system.rss_mb(),
        "stages_ms": _stages(sink, system.name) if system.name == NODE else {},
    }


def _latency(answers: Sequence[tuple[int, int]], stamps: Sequence[int], warm_s: float, window_s: float) -> dict:
    """From stamp to reception of the first answer to each frame of the window, or to each sound without frames."""
    first: dict[int, int] = {}
    for stamp_ns, received_ns in answers:
        first.setdefault(stamp_ns, received_ns)
    counted = [s for s in stamps if warm_s * 1e9 <= s - stamps[0] < (warm_s + window_s) * 1e9]
    took_ms = np.array([(first[s] - s) / 1e6 for s in counted if s in first])
    answered = len(took_ms) / len(counted)
    if not len(took_ms):
        return {"p50_ms": None, "p99_ms": None, "max_ms": None, "answered": 0.0}
    return {
        "p50_ms": float(np.median(took_ms)),
        "p99_ms": float(np.quantile(took_ms, 0.99)),
        "max_ms": float(took_ms.max()),
        "answered": answered,
    }


def _stages(sink: Sink, name: str) -> dict[str, float]:
    """Medians by stage, as the node's own diagnostics last said them."""
    for _, message in reversed(sink.diagnostics):
        for status in message.status:
            if status.name.endswith(": inference"):
                stages = {
                    v.key.removeprefix(STAGES).removesuffix(" (ms)"): float(v.value)
                    for v in status.values
                    if v.key.startswith(STAGES)
                }
                if stages:
                    return stages
    return {}


def stages_of(figures: dict, stage: str) -> float | None:
    """Median milliseconds of a stage, ``None`` where it never ran."""
    return figures["stages_ms"].get(stage)


def _medians(windows: Sequence[dict]) -> dict:
    """Of each figure over the windows that have it."""
    merged: dict = {}
    for key in windows[0]:
        if key == "stages_ms":
            names = dict.fromkeys(stage for w in windows for stage in w[key])
            merged[key] = {stage: median(w[key][stage] for w in windows if stage in w[key]) for stage in names}
        else:
            values = [w[key] for w in windows if w[key] is not None]
            merged[key] = median(values) if values else None
            if key in ("p50_ms", "cpu"):
                merged[f"{key}_spread"] = [min(values), max(values)] if values else None
    return merged
