"""Markdown of the benchmarks' pages."""

import textwrap


def wrapped(markdown: str) -> str:
    """Markdown with its text wrapped at 120 characters; tables, headings and images stay as they are."""
    return "\n".join(
        line if line.startswith(("|", "#", "!")) else textwrap.fill(line, 120, break_on_hyphens=False)
        for line in markdown.split("\n")
    )
