"""What every process of ours has in common."""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT

ROUNDS, FRAMES, FRAME_BYTES = 20, 3, 6_000_000
"""Three large frames at once: glibc gives back what is free at the end of the heap when that is more than twice the
largest block so far.
"""
TAKE_AND_FREE = f"""
import resource, sys
from aecf_ros.nodes.ros.process import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def take_and_free():
    frames = [bytes([1]) * {FRAME_BYTES} for _ in range({FRAMES})]
    del frames

take_and_free()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    take_and_free()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_taken_anew(how: str) -> int:
    return int(
        subprocess.run(
            [sys.executable, "-c", TAKE_AND_FREE, how], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout
    )


HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(
    HUGE_PAGES.is_file() and "[always]" in HUGE_PAGES.read_text(),
    reason="with huge pages for everything there are too few to count",
)
def test_the_memory_of_a_large_frame_is_kept_for_the_next_one() -> None:
    pages = FRAMES * FRAME_BYTES // mmap.PAGESIZE
    assert pages_taken_anew("given back") > ROUNDS * pages / 2 > 2 * pages > pages_taken_anew("kept")
