"""`aecf doctor`: whether this machine has what the nodes need."""

from __future__ import annotations

import click

from aecf_ros.commands.shared.terminal import wide_console
from aecf_ros.nodes.tools.doctor import examine, findings_json, findings_table


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
def doctor_command(ctx: click.Context, as_json: bool) -> None:
    """Say what this machine has, what is wrong with it, and what to do."""
    findings = examine()
    if as_json:
        click.echo(findings_json(findings))
    else:
        wide_console().print(findings_table(findings))
    ctx.exit(1 if any(f.verdict == "FAIL" for f in findings) else 0)
