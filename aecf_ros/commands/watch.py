"""`aecf watch`: a running fusion node in the terminal."""

from __future__ import annotations

import click

from aecf_ros.commands.shared.terminal import in_one_line, wide_console
from aecf_ros.nodes.tools.watch import WatchError
from aecf_ros.nodes.tools.watch import watch as watch_node


@click.command("watch")
@click.option("--node", default="/fusion_node", show_default=True, help="Name of the node, with its namespace.")
def watch_command(node: str) -> None:
    """Watch a running fusion node live: what it says, how sure, and which sensors it trusts."""
    try:
        watch_node(node, wide_console())
    except WatchError as error:
        raise in_one_line(error) from None
