"""docs/research/comparison.md names a test for whatever it says that we have, and that test is there."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def rows():
    """The cells of each feature's row."""
    lines = (ROOT / "docs" / "research" / "comparison.md").read_text().splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert table[0][-2:] == ["aecf_ros", "test here"] and all(len(row) == len(table[0]) for row in table)
    return table[2:]


@pytest.fixture(scope="module")
def tests():
    """Every test function of the suite, as ``file.py::name``."""
    return {
        f"{path.name}::{node.name}"
        for path in (ROOT / "test").rglob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
    }


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_what_we_say_we_have_names_a_test_that_is_there(row, tests):
    ours, checked_by = row[-2:]
    named = [part for part in checked_by.split("`") if "::" in part]
    assert (checked_by == "not offered") == (ours.split(":")[0] == "no")
    assert checked_by == "not offered" or named
    assert set(named) <= tests
