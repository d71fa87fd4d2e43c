"""Compare a summary.json with the contract of ../shared, less the keys that it has and summaries do not have yet."""

import importlib.util
import json
import re
from pathlib import Path

CHECKER = Path(__file__).resolve().parents[2] / "shared" / "check_summary.py"
KEYS_TO_COME = re.compile(
    r"summary: no '(settled|changing|instant|changes|wrong_above_0\.9|answered_and_right)'"
    r"|changes: no '\w+'"
    r"|overall\.n is \d+, settled and changing hold 0: .*"
    r"|subsets\.[a-z+]+\.(all|settled|changing): no 'n'"
)
"""The belief over time brings these keys, and puts the metrics of a subset under its `all`."""


def differences(summary: Path) -> list[str]:
    """What a summary lacks of the contract of today; the metrics of each subset are checked where they stand today."""
    spec = importlib.util.spec_from_file_location("check_summary", CHECKER)
    assert spec is not None and spec.loader is not None
    checker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(checker)
    fields = json.loads(summary.read_text())
    lines = [line for line in checker.check(fields) if not KEYS_TO_COME.fullmatch(line)]
    return lines + [
        line for name, subset in fields["subsets"].items() for line in checker.metrics(f"subsets.{name}", subset)
    ]
