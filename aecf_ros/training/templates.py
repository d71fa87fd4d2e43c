"""Render the Jinja templates of a package: files in its folder ``templates``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


def render(package: str, template: str, **values: object) -> str:
    """The text of a template; values are escaped where its name ends in ``.html.jinja``.

    Raises:
        jinja2.UndefinedError: the template uses a value that is not in ``values``.
    """
    return _environment(package).get_template(template).render(values)


@cache
def _environment(package: str) -> Environment:
    environment = Environment(
        loader=PackageLoader(package),
        autoescape=select_autoescape(["html.jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"formatted": format, "counted": counted}
    environment.globals["markdown_table"] = markdown_table
    return environment


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Header and rows of cells as a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural unless it is 1.

    >>> counted(1, "recording"), counted(2, "recording")
    ('1 recording', '2 recordings')
    """
    return f"{number} {noun}" + ("" if number == 1 else "s")
