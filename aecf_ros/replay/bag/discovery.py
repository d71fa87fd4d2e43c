"""Find recordings in a folder, and digest their content."""

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
    """Find the recordings at or below a path: unique name to path.

    A recording is a rosbag2 directory, or a single ``.mcap`` or ``.db3`` file. A directory without
    ``metadata.yaml``, because its
    recorder was killed, counts if its files are named after it: ``NAME.mcap`` or ``NAME_0.mcap``.
    """
    if path.is_file():
        return {path.name: path} if path.suffix in SUFFIXES else {}
    recordings: dict[str, Path] = {}
    for parent, folders, files in os.walk(path):
        folder = Path(parent)
        if _is_recording(folder, files):
            recordings[folder.relative_to(path).as_posix() if folder != path else path.name] = folder
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        recordings.update(
            {(folder / name).relative_to(path).as_posix(): folder / name for name in files if name.endswith(SUFFIXES)}
        )
    return dict(sorted(recordings.items()))


def _is_recording(folder: Path, files: list[str]) -> bool:
    stems = [name.rpartition(".")[0] for name in files if name.endswith(SUFFIXES)]
    return _METADATA in files or (
        bool(stems) and all(re.fullmatch(rf"{re.escape(folder.name)}(_\d+)?", stem) for stem in stems)
    )


def content_digest(path: Path) -> str:
    """SHA-256 over the files of a recording, independent of its path and name; CSV labels are left out.

    Of a file above 64 MB its size and 64 blocks of 1 MB are hashed, evenly spaced from its start to its end.
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
