"""What a further camera costs: the node with one to eight of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (after the backend is chosen)
import numpy as np  # noqa: E402

from benchmarks.node import models  # noqa: E402
from benchmarks.node.cases import Effort, Traffic  # noqa: E402
from benchmarks.node.measure import NODE, running, stages_of, window  # noqa: E402
from benchmarks.node.processes import Sensors, System  # noqa: E402

COUNTS = (1, 2, 3, 4, 5, 6, 7, 8)
TRAFFIC = Traffic(320, 240, camera_hz=10, audio_hz=0)


def measure(counts: tuple[int, ...], cache: Path, effort: Effort, logs: Path, advance: Callable[[], None]) -> dict:
    """CPU of the node and time of a prediction by the number of cameras, with MobileNetV3-small on each, at 10 Hz."""
    logs.mkdir(parents=True, exist_ok=True)
    found = []
    for count in counts:
        model = models.write_bundle(cache / f"mobilenet_{count}", "mobilenet", cameras=count, microphones=0)
        cameras = [m.name for m in models.load_bundle(model).manifest.modalities]
        parameters = [f"model:={model}", *(f"{name}.transport:=raw" for name in cameras)]
        system = System(
            NODE,
            f"/{NODE}/fusion_node/prediction",
            "aecf_ros.nodes.fusion.node",
            ["--ros-args", "-r", f"__ns:=/{NODE}", *(part for p in parameters for part in ("-p", p))],
            logs / f"streams{count}.log",
        )
        sensors = Sensors([NODE], jpeg=False, cameras=cameras, microphones=())
        windows = []
        with running([system], sensors, TRAFFIC) as sink:
            for _ in range(effort.repetitions):
                windows.append(window(system, TRAFFIC, sensors, sink, effort.warm_s, effort.window_s))
                advance()
        stages = [total for w in windows if (total := stages_of(w, "total")) is not None]
        found.append(
            {
                "streams": count,
                "cpu": median(w["cpu"] for w in windows),
                "total_ms": median(stages) if stages else float("nan"),
                "rss_mb": median(w["rss_mb"] for w in windows),
                "answered": median(w["answered"] for w in windows),
            }
        )
    return {"rate_hz": TRAFFIC.camera_hz, "points": found, **{key: fitted(found, key) for key in ("cpu", "total_ms")}}


def fitted(found: list[dict], key: str) -> dict[str, float]:
    """Least squares: the cost of the first stream and of each further one, and the variance explained."""
    x, y = (np.array([point[k] for point in found if np.isfinite(point[key])], float) for k in ("streams", key))
    slope, offset = np.polyfit(x, y, 1)
    rest = float(((y - (slope * x + offset)) ** 2).sum()) / max(float(((y - y.mean()) ** 2).sum()), 1e-12)
    return {"per_stream": float(slope), "at_zero": float(offset), "r2": 1 - rest}


def draw(streams: dict, path: Path) -> None:
    """node-streams.png: CPU and time of a prediction against the number of streams, with the fitted lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(1, 2, figsize=(7, 2.8))
    x = [point["streams"] for point in streams["points"]]
    for axis, key, factor, label in (
        (axes[0], "cpu", 100, f"CPU at {streams['rate_hz']:g} Hz (% of a core)"),
        (axes[1], "total_ms", 1, "a prediction (ms)"),
    ):
        line = streams[key]
        axis.plot(x, [factor * point[key] for point in streams["points"]], "o", color="#1f6f8b")
        axis.plot(x, [factor * (line["at_zero"] + line["per_stream"] * n) for n in x], color="#c9d6df")
        axis.set_xlabel("cameras", fontsize=8)
        axis.set_ylabel(label, fontsize=8)
        axis.set_ylim(bottom=0)
        axis.tick_params(labelsize=7)
        axis.set_title(f"{factor * line['per_stream']:.2g} for each further one, R² {line['r2']:.3f}", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)
