"""The node's part of docs/research/benchmarks.md, from out/bench/node.json and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.node.cases import AUDIO_STOPPED, DELIVERY, NOMINAL, OVERLOAD
from benchmarks.node.measure import stages_of
from benchmarks.text import wrapped

BEGIN, END = "<!-- node tables: written by `python -m benchmarks node --docs` -->", "<!-- end of node tables -->"
NAMES = {
    "floor": "floor",
    "naive_default": "usual, default threads",
    "naive_1thread": "usual, one thread",
    "node": "**fusion_node**",
}


def _ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None


def ratios(cases: dict[str, dict]) -> dict[str, float | None]:
    """p50 of the node over that of the floor, by case."""
    return {
        name: _ratio(case["node"]["p50_ms"], case["floor"]["p50_ms"])
        for name, case in cases.items()
        if {"node", "floor"} <= set(case)
    }


def head_shares(cases: dict[str, dict]) -> dict[str, float | None]:
    """Time of the head over that of the camera's encoder, both in place, by case."""
    shares = {}
    for name, case in cases.items():
        encoder = stages_of(case["node"], "encoder camera")
        shares[name] = _ratio(stages_of(case["node"], "head"), encoder)
    return shares


def beyond_ms(node: dict) -> float | None:
    """What the node takes from the arrival of a frame to the end of publishing, without the graphs."""
    parts = [stages_of(node, stage) for stage in ("total", "encoder camera", "head")]
    return None if None in parts else parts[0] - parts[1] - parts[2]


def targets(results: dict) -> list[dict]:
    """What the node must reach, with what it reached; a target whose case was not run is left out."""
    cases, found = results["cases"], []

    def check(text: str, value: float | None, holds: Callable[[float], bool], shown: str) -> None:
        found.append(
            {
                "target": text,
                "measured": "nothing" if value is None else shown.format(value),
                "met": value is not None and holds(value),
            }
        )

    if NOMINAL in cases:
        of = cases[NOMINAL]
        node, floor, naive = of["node"], of["floor"], of["naive_default"]
        check("p50 <= 1.10 x the floor", _ratio(node["p50_ms"], floor["p50_ms"]), lambda x: x <= 1.10, "{:.2f} x")
        check("p99 <= 1.5 x the floor", _ratio(node["p99_ms"], floor["p99_ms"]), lambda x: x <= 1.5, "{:.2f} x")
        check("node beyond transport and graphs <= 1.0 ms", beyond_ms(node), lambda x: x <= 1.0, "{:.2f} ms")
        check("CPU <= 1.3 x the floor", _ratio(node["cpu"], floor["cpu"]), lambda x: x <= 1.3, "{:.2f} x")
        check("every frame answered", node["answered"], lambda x: x >= 0.999, "{:.1%}")
        check(
            "one prediction a frame",
            _ratio(node["predictions_per_s"], 30),
            lambda x: 0.98 <= x <= 1.02,
            "{:.2f} a frame",
        )
        check(
            "p50 >= 5 x below the usual design", _ratio(naive["p50_ms"], node["p50_ms"]), lambda x: x >= 5, "{:.1f} x"
        )
        check(
            "predictions >= 3 x the usual design",
            _ratio(node["predictions_per_s"], naive["predictions_per_s"]),
            lambda x: x >= 2.95,
            "{:.2f} x",
        )
        check(
            "CPU >= 5 x below the usual design (default threads)",
            _ratio(naive["cpu"], node["cpu"]),
            lambda x: x >= 5,
            "{:.2f} x",
        )
    if DELIVERY in cases:
        check(
            "1920x1080 raw at 30 Hz, best effort: every frame delivered and answered",
            cases[DELIVERY]["node"]["answered"],
            lambda x: x >= 0.999,
            "{:.1%}",
        )
    if AUDIO_STOPPED in cases:
        of = cases[AUDIO_STOPPED]
        check("audio stopped: every frame answered", of["node"]["answered"], lambda x: x >= 0.999, "{:.1%}")
        check(
            "audio stopped: the usual design answers",
            of["naive_default"]["predictions_per_s"],
            lambda x: x == 0,
            "{:.1f} a second",
        )
    if OVERLOAD in cases:
        node = cases[OVERLOAD]["node"]
        check(
            "overload: p50 <= 1.5 encoder times",
            _ratio(node["p50_ms"], stages_of(node, "encoder camera")),
            lambda x: x <= 1.5,
            "{:.2f} encoder times",
        )
    if "resnet18 640x480" in cases:
        check(
            "head < 1 % of ResNet-18, in place", results["head_share"]["resnet18 640x480"], lambda x: x < 0.01, "{:.2%}"
        )
    if "soak" in results:
        text = f"memory: under 1 MB/h after warm-up, {results['soak']['minutes']:g} min at 30 Hz"
        check(text, results["soak"]["slope_mb_per_h"], lambda x: x < 1.0, "{:.2f} MB/h")
    return found


def write_tables(results: dict, path: Path) -> None:
    """Replace what lies between BEGIN and END in ``path``, or append it."""
    text = path.read_text()
    if BEGIN not in text:
        text = f"{text.rstrip()}\n\n{BEGIN}\n{END}\n"
    before, rest = text.split(BEGIN, 1)
    path.write_text(f"{before}{BEGIN}\n\n{wrapped(tables(results))}\n{END}{rest.split(END, 1)[1]}")


def tables(results: dict) -> str:
    """All tables as Markdown."""
    run = next(iter(results["runs"].values()))
    lines = [
        f"Measured {run['date']} on {run['machine']}, medians of the repetitions. "
        f"The usual design's synchronizer: {run['synchronizer']}.",
        "",
        "| target | measured | met |",
        "|---|---|---|",
    ]
    lines += [f"| {t['target']} | {t['measured']} | {'yes' if t['met'] else '**no**'} |" for t in results["targets"]]
    for name, case in results["cases"].items():
        run = results["runs"][name]
        lines += [
            "",
            f"### {name}",
            "",
            f"{run['repetitions']} repetitions of {run['window_s']:g} s; "
            f"{run['load_before']:.1f} processes were running before.",
            "",
            "| | p50 ms (range) | p99 ms | max ms | frames answered | predictions/s | CPU % of a core | RSS MB |",
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += [_row(NAMES[system], figures) for system, figures in case.items()]
        ratio, share, stages = (
            results["ratio_p50_to_floor"].get(name),
            results["head_share"].get(name),
            case["node"]["stages_ms"],
        )
        notes = [
            f"p50 {ratio:.2f} times the floor" if ratio else "",
            f"head {share:.1%} of the encoder" if share else "",
        ]
        if (rest := beyond_ms(case["node"])) is not None:
            notes.append(f"node beyond transport and graphs {rest:.2f} ms")
        lines += [
            "",
            "; ".join(n for n in notes if n)
            + (". " if any(notes) else "")
            + "Stages (ms): "
            + ", ".join(f"{stage} {ms:.2f}" for stage, ms in stages.items())
            + ".",
        ]
    if "streams" in results:
        lines += ["", "### One to eight cameras", "", *_streams(results["streams"])]
    return "\n".join(lines)


def _row(name: str, f: dict) -> str:
    if f["p50_ms"] is None:
        latency = "none | none | none"
    else:
        low, high = f["p50_ms_spread"]
        latency = f"{f['p50_ms']:.2f} ({low:.2f}-{high:.2f}) | {f['p99_ms']:.2f} | {f['max_ms']:.1f}"
    return (
        f"| {name} | {latency} | {f['answered']:.1%} | {f['predictions_per_s']:.1f} "
        f"| {100 * f['cpu']:.1f} | {f['rss_mb']:.0f} |"
    )


def _streams(streams: dict) -> list[str]:
    lines = [
        f"320x240 raw at {streams['rate_hz']:g} Hz, MobileNetV3-small on each. "
        f"Each further camera: {100 * streams['cpu']['per_stream']:.1f} % of a core "
        f"(R² {streams['cpu']['r2']:.3f}), {streams['total_ms']['per_stream']:.2f} ms a prediction "
        f"(R² {streams['total_ms']['r2']:.3f}).",
        "",
        "![Cost against the number of cameras](../images/node-streams.png)",
        "",
        "| cameras | CPU % of a core | a prediction, ms | RSS MB |",
        "|---|---|---|---|",
    ]
    return lines + [
        f"| {p['streams']} | {100 * p['cpu']:.1f} | {p['total_ms']:.2f} | {p['rss_mb']:.0f} |"
        for p in streams["points"]
    ]
