"""`aecf demo`: the fusion node over real DDS, fed from a recording whose sensors fail, watched live and scored.

Three processes: the node, the player, and this one, which only listens. They share a private domain on this host.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rich.console import Console
from rich.live import Live

from aecf_msgs.msg import FusedPrediction
from aecf_ros.core.bundle import Manifest, load_bundle
from aecf_ros.core.types import Prediction
from aecf_ros.modalities.registry import MODALITIES
from aecf_ros.nodes.fusion.node import PREDICTION_QOS
from aecf_ros.nodes.ros.convert import prediction_from_message
from aecf_ros.nodes.ros.process import stop_process
from aecf_ros.nodes.ros.shared_memory import SHARED_MEMORY, files_of, orphans
from aecf_ros.replay.bag.reader import open_bag
from aecf_ros.replay.bag.topics import Topics
from aecf_ros.replay.faults.schedule import load_faults
from aecf_ros.replay.report.html import write_comparison
from aecf_ros.replay.report.tables import Scene, draw_live, summary_tables
from aecf_ros.replay.scoring.driver import read_ground_truth, stream_kinds
from aecf_ros.replay.scoring.prediction_log import as_prediction_log
from aecf_ros.replay.scoring.score import Run, lead_image, published_predictions, summarize
from aecf_ros.replay.scoring.summary import Summary

NODE_MODULE = "aecf_ros.nodes.fusion.node"
NODE_START_S = 30.0
NODE_STOP_S = 10.0


class DemoError(RuntimeError):
    """The demo did not finish; the message says what failed and where to look."""


@dataclass
class _Listener:
    """Collects every prediction, with the node time of its publication."""

    received: list[tuple[Prediction, int]] = field(default_factory=list)

    def on_prediction(self, message: FusedPrediction) -> None:
        self.received.append(prediction_from_message(message))


def run_demo(model: Path, bag_path: Path, faults_path: Path, out: Path, console: Console) -> Summary:
    """Run the demo to its end and write ``summary.json`` and ``report.html`` into ``out``.

    Returns:
        The summary.

    Raises:
        DemoError: the node or the player failed.
        BundleError, BagError, FaultError: what was named cannot be used.
    """
    manifest = load_bundle(model).manifest
    faults = load_faults(faults_path, stream_kinds(manifest))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DemoError(f"{out}: cannot be written ({error.strerror}); name a folder with --out") from None
    domain = _private_domain()
    console.print(
        f"[bold]aecf demo[/]: {manifest.name} on {bag_path.name}, faults of {faults_path.name}, ROS_DOMAIN_ID {domain}"
    )
    with open_bag(bag_path) as bag:
        topics = bag.choose_topics(manifest)
        truth = read_ground_truth(bag, topics, manifest)
        duration_s = bag.duration_s
    played_path = out / "played.json"
    played_path.unlink(missing_ok=True)
    player_command = [sys.executable, "-m", "aecf_ros.nodes.tools.player_node"]
    for option, path in (("bag", bag_path), ("model", model), ("faults", faults_path), ("log", played_path)):
        player_command += [f"--{option}", str(path)]
    scene = Scene(manifest, faults, truth, duration_s)
    listener, start_ns, node_exit, left = _run_processes(
        [_node_command(model, manifest, topics), player_command], out, console, scene
    )
    published = json.loads(played_path.read_text(encoding="utf-8"))["published"]
    log = as_prediction_log(published_predictions(listener.received, start_ns, duration_s, manifest), manifest)
    summary = summarize(log, truth, faults, manifest, duration_s, realtime_factor=1.0).with_keys(
        frames=_frames_answered(listener.received, published, lead_image(manifest)),
        node_exit_code=node_exit,
        shared_memory_left=left,
    )
    title = f"aecf demo: {manifest.name}"
    paths = write_comparison(out, [Run(title, manifest, summary, log, truth, tuple(faults), duration_s)], title)
    for table in summary_tables(summary):
        console.print(table)
    console.print("wrote " + " and ".join(str(path) for path in paths))
    if node_exit != 0:
        raise DemoError(f"the fusion node ended with exit code {node_exit}; see {out / 'node.log'}")
    return summary


def _node_command(model: Path, manifest: Manifest, topics: Topics) -> list[str]:
    """Command of the fusion node, with its inputs remapped to the recording's topics."""
    command = [sys.executable, "-m", NODE_MODULE, "--ros-args", "-p", f"model:={model.resolve()}"]
    for modality in manifest.modalities:
        name, suffix = modality.name, MODALITIES[modality.kind].topic_suffix
        command += ["-r", f"{name}{suffix}:={topics.streams[name]}"]
        if name in topics.infos:
            command += ["-r", f"{name}_info:={topics.infos[name]}"]
    return command


def _run_processes(
    commands: Sequence[Sequence[str]], out: Path, console: Console, scene: Scene
) -> tuple[_Listener, int, int, list[str]]:
    """Run node and player to the end of the recording.

    Returns:
        The predictions, the node time at which the recording started, the node's exit code, and the files that it left
        in shared memory.
    """
    node_command, player_command = commands
    listener = _Listener()
    rclpy.init()
    try:
        watcher = Node("aecf_demo")
        watcher.create_subscription(FusedPrediction, "/fusion_node/prediction", listener.on_prediction, PREDICTION_QOS)
        executor = SingleThreadedExecutor()
        executor.add_node(watcher)
        files_before = set(SHARED_MEMORY.glob("*"))
        with _process(node_command, out / "node.log") as node:
            _await_first(executor, listener, node, out / "node.log")
            with _process(player_command, out / "player.log") as player:
                start_ns = _await_start(executor, player, out / "played.json")
                _watch(executor, listener, (node, player), console, replace(scene, start_ns=start_ns))
                if player.wait() != 0:
                    raise DemoError(f"the player failed with exit code {player.returncode}; see {out / 'player.log'}")
            _drain(executor, 0.5)
            node_files = files_of(node.pid)
            node_exit = stop_process(node, NODE_STOP_S)
        executor.shutdown()
        watcher.destroy_node()
    finally:
        rclpy.try_shutdown()
    return listener, start_ns, node_exit, sorted(path.name for path in orphans(node_files - files_before))


def _private_domain() -> str:
    """Choose a ROS domain on this host alone, apart from a robot's and from another demo's."""
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
    return os.environ["ROS_DOMAIN_ID"]


@contextmanager
def _process(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a child process with its output in a file; stop it at the end of the block."""
    with (
        log.open("w", encoding="utf-8") as sink,
        subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT) as process,
    ):
        try:
            yield process
        finally:
            if process.poll() is None:
                stop_process(process, NODE_STOP_S)


def _await_first(executor: SingleThreadedExecutor, listener: _Listener, node: subprocess.Popen, log: Path) -> None:
    give_up = time.monotonic() + NODE_START_S
    while not listener.received:
        executor.spin_once(timeout_sec=0.1)
        if node.poll() is not None:
            lines = log.read_text(encoding="utf-8").strip().splitlines() or ["it printed nothing"]
            raise DemoError(f"the fusion node ended with exit code {node.returncode}: {lines[-1]}")
        if time.monotonic() > give_up:
            raise DemoError(f"no prediction from the fusion node within {NODE_START_S:.0f} s; see {log}")


def _await_start(executor: SingleThreadedExecutor, player: subprocess.Popen, played_path: Path) -> int:
    """Node time at which the recording starts, as soon as the player has written it."""
    while not played_path.is_file() or not (text := played_path.read_text(encoding="utf-8")):
        executor.spin_once(timeout_sec=0.05)
        if player.poll() is not None:
            raise DemoError(
                f"the player failed with exit code {player.returncode}; see {played_path.with_name('player.log')}"
            )
    return json.loads(text)["start_ns"]


def _watch(
    executor: SingleThreadedExecutor,
    listener: _Listener,
    processes: tuple[subprocess.Popen, subprocess.Popen],
    console: Console,
    scene: Scene,
) -> None:
    """Show the latest prediction until the player ends or the node dies."""
    node, player = processes
    next_draw_s = 0.0
    period_s = 0.125 if console.is_terminal else 5.0
    with Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else _Lines(console) as live:
        while player.poll() is None and node.poll() is None:
            executor.spin_once(timeout_sec=0.1)
            if time.monotonic() >= next_draw_s and listener.received:
                next_draw_s = time.monotonic() + period_s
                live.update(draw_live(*listener.received[-1], len(listener.received), scene), refresh=True)
    if node.poll() is not None:
        raise DemoError(f"the fusion node died with exit code {node.returncode} while the recording played")


class _Lines:
    """Prints the live view every few seconds, where there is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, renderable: object, refresh: bool) -> None:
        self._console.print(renderable)


def _drain(executor: SingleThreadedExecutor, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        executor.spin_once(timeout_sec=0.05)


def _frames_answered(
    received: Sequence[tuple[Prediction, int]], published: dict[str, list[int]], lead: int | None
) -> dict:
    """How many of the published frames a prediction names as its newest."""
    if lead is None or not received:
        return {"published": 0, "answered": 0}
    name = received[0][0].modalities[lead].name
    answered = {prediction.modalities[lead].evidence_stamp_ns for prediction, _ in received}
    return {"published": len(published[name]), "answered": len(answered & set(published[name]))}
