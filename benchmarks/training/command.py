"""`python -m benchmarks training`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console

from benchmarks.training.extraction import measure_extraction
from benchmarks.training.head import measure_head

MODEL = Path(__file__).parents[2] / "models" / "av_digits"


def main(arguments: list[str]) -> int:
    """0 done, 2 wrong usage."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks training", description="Rates of feature extraction, seconds of training a head."
    )
    parser.add_argument("--recording", type=Path, default=MODEL / "demo.mcap", help="with a camera and sound")
    parser.add_argument("--stride", type=float, default=0.1, help="seconds between two moments")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--moments", type=int, default=100_000, help="cached for each modality")
    parser.add_argument("--threads", type=int, default=2, help="of the head's training")
    parser.add_argument("--out", type=Path, default=Path("out/bench/training.json"))
    options = parser.parse_args(arguments)
    console = Console()
    extraction = measure_extraction(options.recording, MODEL / "audio_encoder.onnx", options.stride, options.repeats)
    console.print(
        f"extraction: {extraction['extracted']:.1f} samples/s, "
        f"the bare encoders {extraction['bare']:.1f}: {extraction['share']:.1%} "
        f"({extraction['lowest']:.1%} to {extraction['highest']:.1%} in {options.repeats} neighboring pairs)"
    )
    head = measure_head(options.moments, 512, 2, options.threads)
    console.print(
        f"head on {options.moments} cached x 2 x 512: "
        + ", ".join(f"{name} {value:.1f} s" for name, value in head.items())
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"extraction": extraction, "head": head}, indent=1))
    return 0
