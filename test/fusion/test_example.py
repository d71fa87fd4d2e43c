"""The example in docs runs, and does what its text says."""

import runpy
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "replace_concatenation.py"


def test_three_lines_replace_a_concatenation(capsys):
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert "nan" not in "".join(lines)
    assert lines[3].endswith("confidence 0.10, gate weights [0.00, 0.00]")
