"""`aecf demo`: the fusion node on the bundle's recording, while its sensors fail."""

from __future__ import annotations

from pathlib import Path

import click

from aecf_ros.commands.shared.terminal import PathArgument, in_one_line, wide_console
from aecf_ros.core.bundle import BundleError
from aecf_ros.nodes.fusion.parameters import shipped, shipped_model
from aecf_ros.nodes.tools.demo import DemoError, run_demo
from aecf_ros.replay.bag.errors import BagError
from aecf_ros.replay.faults.schedule import FaultError


@click.command("demo")
@click.option("--model", type=PathArgument, default=None, help="Model bundle; the shipped one by default.")
@click.option("--bag", type=PathArgument, default=None, help="Recording; the bundle's demo.mcap by default.")
@click.option("--faults", type=PathArgument, default=None, help="Faults file; the shipped schedule by default.")
@click.option("--out", type=PathArgument, default=Path("out/demo"), show_default=True, help="Where the report goes.")
def demo_command(model: Path | None, bag: Path | None, faults: Path | None, out: Path) -> None:
    """Watch the fusion node keep predicting while its sensors fail."""
    model = model or shipped_model()
    try:
        run_demo(model, bag or model / "demo.mcap", faults or shipped("config/demo_faults.yaml"), out, wide_console())
    except (BundleError, BagError, FaultError, DemoError) as error:
        raise in_one_line(error) from None
