"""Play one schedule of faults live, over DDS to the node in its own process, and replay it: do both see the same?

    python dev/compare_live.py --out out/live

Accuracy of each subset and the delays of every fault, live beside replay. Live delays include those of the machine:
run it where nothing else runs.
"""

import json
from pathlib import Path

import click
import yaml
from rich.console import Console
from rich.table import Table

from aecf_ros.core.bundle import load_bundle
from aecf_ros.nodes.tools.demo import run_demo
from aecf_ros.replay.bag.reader import open_bag
from aecf_ros.replay.faults.schedule import load_faults
from aecf_ros.replay.scoring.driver import evaluate, stream_kinds
from aecf_ros.runtime.backends import make_backend
from aecf_ros.runtime.pipeline import Pipeline

MODEL = Path("models/av_digits")
SCHEDULE = [
    ("camera", "drop"),
    ("audio", "drop"),
    ("camera", "freeze"),
    ("audio", "freeze"),
    ("camera", "corrupt"),
    ("audio", "wrong_encoding"),
    ("camera", "dark"),
    ("audio", "silence"),
    ("camera", "noise"),
    ("audio", "noise"),
    ("camera", "blur"),
    ("audio", "clip"),
    ("camera", "delay"),
    ("audio", "delay"),
    ("camera", "clock_jump"),
    ("audio", "zero_stamp"),
    ("camera", "rate"),
    ("audio", "out_of_order"),
]
FIRST_S, EVERY_S, LASTS_S = 6.0, 5.2, 3.0


def schedule() -> list[dict]:
    """Each kind for three seconds, one after the other."""
    return [
        {
            "stream": stream,
            "kind": kind,
            "start_s": round(FIRST_S + i * EVERY_S, 2),
            "end_s": round(FIRST_S + i * EVERY_S + LASTS_S, 2),
            **({"delay_s": 1.0} if kind == "delay" else {}),
        }
        for i, (stream, kind) in enumerate(SCHEDULE)
    ]


@click.command()
@click.option("--model", type=click.Path(path_type=Path), default=MODEL, show_default=True)
@click.option("--bag", type=click.Path(path_type=Path), default=MODEL / "demo.mcap", show_default=True)
@click.option(
    "--faults",
    type=click.Path(path_type=Path),
    help="A faults file; else eighteen faults of sixteen kinds, three seconds each.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(model: Path, bag: Path, faults: Path | None, out: Path) -> None:
    """Compare a live run with a replay."""
    console = Console()
    out.mkdir(parents=True, exist_ok=True)
    if faults is None:
        faults = out / "faults.yaml"
        faults.write_text(yaml.safe_dump(schedule()), encoding="utf-8")
    live = run_demo(model, bag, faults, out / "live", Console(quiet=True)).to_json()
    bundle = load_bundle(model)
    with open_bag(bag) as recording:
        replayed = evaluate(
            recording,
            Pipeline(bundle.manifest, make_backend("onnxruntime", bundle)),
            load_faults(faults, stream_kinds(bundle.manifest)),
        ).summary.to_json()
    (out / "replayed.json").write_text(json.dumps(replayed), encoding="utf-8")

    scores = Table("fed by", "n live", "n replay", "accuracy live", "replay", "apart, points")
    for name in ["overall", *live["subsets"]]:
        one, other = (s["overall"] if name == "overall" else s["subsets"][name] for s in (live, replayed))
        if one["n"] and other["n"]:
            scores.add_row(
                name,
                str(one["n"]),
                str(other["n"]),
                f"{one['accuracy']:.4f}",
                f"{other['accuracy']:.4f}",
                f"{100 * abs(one['accuracy'] - other['accuracy']):.2f}",
            )
    console.print(scores)
    delays, worst = (
        Table("stream", "fault", "seen after: live", "replay", "over after: live", "replay", "apart, ms"),
        0.0,
    )
    for stream in live["streams"]:
        for one, other in zip(live["streams"][stream]["faults"], replayed["streams"][stream]["faults"], strict=True):
            values = [(run["detected_after_s"], run["recovered_after_s"]) for run in (one, other)]
            apart = [abs(a - b) * 1e3 for a, b in zip(*values, strict=True) if a is not None and b is not None]
            worst = max([worst, *apart])
            cells = [f"{v:.3f}" if v is not None else "never" for pair in zip(*values, strict=True) for v in pair]
            delays.add_row(stream, one["kind"], *cells, " ".join(f"{a:.0f}" for a in apart))
    console.print(delays)
    console.print(
        f"greatest difference of a delay: {worst:.0f} ms; "
        f"{live['frames']['answered']} of {live['frames']['published']} frames answered live"
    )


if __name__ == "__main__":
    main()
