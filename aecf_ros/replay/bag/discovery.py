"""The recordings of a folder, and what tells two of them apart."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

SUFFIXES = (".mcap", ".db3")
_METADATA = "metadata.yaml"
_WHOLE_BYTES = 64 << 20
_BLOCK_BYTES = 1 << 20
_BLOCKS = 64


def find_recordings(path: Path) -> dict[str, Path]:
    """Every recording at or below a path: its name, unique there, and where it lies.

    A recording is a rosbag2 directory, also one whose recorder was killed before it wrote ``metadata.yaml`` if its files are named
    ``NAME_0.mcap`` or ``NAME.mcap`` after it, or else an ``.mcap`` or ``.db3`` file of its own.
    """
    if path.is_file():
        return {path.name: path} if path.suffix in SUFFIXES else {}
    found: dict[str, Path] = {}
    for at, folders, files in os.walk(path):
        folder = Path(at)
        if _is_directory_of_one(folder, files):
            found[folder.relative_to(path).as_posix() if folder != path else path.name] = folder
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found.update(
            {(folder / name).relative_to(path).as_posix(): folder / name for name in files if name.endswith(SUFFIXES)}
        )
    return dict(sorted(found.items()))


def _is_directory_of_one(folder: Path, files: list[str]) -> bool:
    stems = [name.rpartition(".")[0] for name in files if name.endswith(SUFFIXES)]
    return _METADATA in files or (
        bool(stems) and all(re.fullmatch(rf"{re.escape(folder.name)}(_\d+)?", stem) for stem in stems)
    )


def content_digest(path: Path) -> str:
    """SHA-256 over a recording's files, wherever it lies and whatever it is called; labels in a CSV do not count.

    A file above 64 MB counts by its size and 64 blocks of 1 MB spread over it, its first and its last among them, so that an hour of
    raw video costs no more than a minute of it.
    """
    digest = hashlib.sha256()
    inside = (
        [path]
        if path.is_file()
        else sorted(p for p in path.iterdir() if p.is_file() and p.name != _METADATA and p.suffix != ".csv")
    )
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
