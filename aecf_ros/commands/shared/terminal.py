"""What the commands share at the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

PathArgument = click.Path(path_type=Path)


def wide_console(width: int = 110) -> Console:
    """A console wide enough for the tables where there is no terminal to ask."""
    console = Console()
    return console if console.is_terminal else Console(width=width)


def say_warnings(console: Console, lines: Iterable[str]) -> None:
    """A line each; brackets in them are text."""
    for line in lines:
        console.print(f"[yellow]warning:[/] {escape(line)}", soft_wrap=True, highlight=False)


def bars_on_stderr() -> Progress:
    """Progress bars where standard error is a terminal; they go when they are done."""
    errors = Console(stderr=True)
    return Progress(console=errors, transient=True, disable=not errors.is_terminal)


def in_one_line(error: Exception) -> click.ClickException:
    """What is wrong, as click says it."""
    return click.ClickException(str(error))
