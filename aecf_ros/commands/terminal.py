"""What the commands share at the terminal."""
from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

PathArgument = click.Path(path_type=Path)


def wide_console(width: int = 110) -> Console:
    """A console wide enough for the tables where there is no terminal to ask."""
    console = Console()
    return console if console.is_terminal else Console(width=width)


def in_one_line(error: Exception) -> click.ClickException:
    """What is wrong, as click says it."""
    return click.ClickException(str(error))
