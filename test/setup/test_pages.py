"""Pages are short, and lead where they say: every relative link and its heading are there, and so is every file that
docs/contributing.md names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CONTRIBUTING = ROOT / "docs" / "contributing.md"


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"(?ms)^ *```.*?^ *```", "", page.read_text())


def anchors(page: Path) -> set[str]:
    """The headings of a page, as GitHub names them in links."""
    headings = re.findall(r"(?m)^#+ (.*)$", prose(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_and_its_heading_are_there(page: Path) -> None:
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)) if not target.startswith("http")]
    broken = []
    for target in targets:
        file, _, heading = target.partition("#")
        path = page.parent / file if file else page
        if not path.exists() or (heading and heading not in anchors(path)):
            broken.append(target)
    assert broken == []


def test_every_file_that_the_page_on_contributing_names_is_there() -> None:
    named = re.findall(r"`((?:[\w.]+/)+[\w.]+\.(?:py|md|yaml|txt))`", CONTRIBUTING.read_text())
    assert len(named) > 20
    assert [
        name
        for name in named
        if "NAME" not in name and not any((root / name).is_file() for root in (ROOT, ROOT / "aecf_ros"))
    ] == []


def test_every_mapping_that_the_page_on_contributing_names_is_in_the_code() -> None:
    code = "\n".join(
        path.read_text()
        for folder in ("aecf_ros", "test")
        for path in (ROOT / folder).rglob("*.py")
        if path != Path(__file__)
    )
    named = set(re.findall(r"`(_?[A-Z][A-Z_]{3,})`", CONTRIBUTING.read_text()))
    assert len(named) > 8
    assert {name for name in named if not re.search(rf"\b{name}\b", code)} == set()


def test_the_readme_has_at_most_1200_words() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 1200


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_line_outside_tables_and_code_is_longer_than_120_characters(page: Path) -> None:
    lines = [line for line in prose(page).splitlines() if not line.lstrip().startswith("|")]
    assert [line for line in lines if len(line) > 120] == []
