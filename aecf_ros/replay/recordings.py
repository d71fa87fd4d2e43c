"""The recordings of a folder, and what tells two of them apart."""
from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

SUFFIXES = (".mcap", ".db3")
_METADATA = "metadata.yaml"
_WHOLE_BYTES = 256 << 20
_BLOCK_BYTES = 1 << 20
_BLOCKS = 64


def find_recordings(path: Path) -> dict[str, Path]:
    """Every recording at or below a path: its name, unique there, and where it lies.

    A recording is a rosbag2 directory, also one whose recorder was killed before it wrote ``metadata.yaml`` if its files are named
    ``NAME_0.mcap`` or ``NAME.mcap`` after it, or else an ``.mcap`` or ``.db3`` file of its own.
    """
    if _is_recording(path):
        return {path.name: path}
    return {found.relative_to(path).as_posix(): found for found in _below(path)} if path.is_dir() else {}


def _is_recording(path: Path) -> bool:
    if path.is_file():
        return path.suffix in SUFFIXES
    if not path.is_dir():
        return False
    if (path / _METADATA).is_file():
        return True
    files = [p for p in path.iterdir() if p.suffix in SUFFIXES]
    return bool(files) and all(re.fullmatch(rf"{re.escape(path.name)}(_\d+)?", file.stem) for file in files)


def _below(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if _is_recording(entry):
            yield entry
        elif entry.is_dir():
            yield from _below(entry)


def content_digest(path: Path) -> str:
    """SHA-256 over a recording's files, wherever it lies and whatever it is called; labels in a CSV do not count.

    A file above 256 MB counts by its size and 64 blocks of 1 MB spread over it, its first and its last among them, so that an hour of
    raw video costs no more than a minute of it.
    """
    digest = hashlib.sha256()
    inside = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.is_file() and p.name != _METADATA and p.suffix != ".csv")
    for file in inside:
        size = file.stat().st_size
        digest.update(size.to_bytes(8, "big"))
        with file.open("rb") as opened:
            if size <= _WHOLE_BYTES:
                while block := opened.read(_BLOCK_BYTES):
                    digest.update(block)
                continue
            for i in range(_BLOCKS):
                opened.seek((size - _BLOCK_BYTES) * i // (_BLOCKS - 1))
                digest.update(opened.read(_BLOCK_BYTES))
    return digest.hexdigest()
