"""What a table holds where no encoder says what it takes: its own sizes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aecf_ros.core.types import RawImage
from aecf_ros.modalities.audio.spec import AudioSpec
from aecf_ros.modalities.base import ModalitySpec
from aecf_ros.modalities.image.decode import decode_image
from aecf_ros.modalities.image.spec import ImageSpec
from aecf_ros.modalities.messages import DecodeError
from aecf_ros.modalities.vector.spec import VectorSpec
from aecf_ros.training.data.npy_dataset import DatasetError
from aecf_ros.training.data.table_rows import Cell, Numbers, Rows, numbers_in
from aecf_ros.training.run.config import DataConfig

_IMAGES = {".jpg", ".jpeg", ".png"}
_SOUNDS = {".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".opus", ".au"}
_LONGEST_S = 10.0
_TRIED = 20


def found_modalities(path: Path, rows: Rows, config: DataConfig) -> list[ModalitySpec]:
    """A modality for each column that names pictures or sound files, or holds vectors: of the size of the first that can be read.

    Raises:
        DatasetError: there is no such column, or none of its files can be read.
    """
    named = {column: name for name, column in config.columns.items()}
    told = {config.columns.get(of, of) for of in ("label", "split", "recording")}
    specs: list[ModalitySpec] = []
    for at, column in enumerate(rows.header):
        cells = [cells[at] for _, cells in rows.lines if cells[at]]
        kinds = {Path(cell).suffix.lower() for cell in cells[:_TRIED] if isinstance(cell, str)}
        name = re.sub(r"[^a-z0-9_]", "_", named.get(column, column).lower()).lstrip("_0123456789") or "column"
        if column not in told and (dim := _length(path, cells[:_TRIED])) is not None:
            specs.append(VectorSpec(name=name, kind="vector", dim=dim))
            continue
        files = [path.parent / cell for cell in cells[:_TRIED]]
        if kinds & _IMAGES:
            specs.append(_picture(path, name, files))
        elif kinds & _SOUNDS:
            specs.append(_sound(path, name, files))
    if not specs:
        raise DatasetError(
            f"{path}: no column names pictures ({', '.join(sorted(_IMAGES))}) or sound ({', '.join(sorted(_SOUNDS))}) or holds vectors; "
            f"it has {', '.join(rows.header)}"
        )
    return specs


def _length(path: Path, cells: Sequence[Cell]) -> int | None:
    """Of the vectors of a column: lists of numbers, or .npy files; ``None`` where it holds others."""
    for cell in cells:
        vector = cell if isinstance(cell, Numbers) else numbers_in(cell)
        if vector is not None:
            return len(vector.values)
        if not cell.lower().endswith(".npy"):
            return None
        try:
            return int(np.load(path.parent / cell, allow_pickle=False).size)
        except (OSError, ValueError, EOFError):
            continue
    return None


def _picture(path: Path, name: str, files: Sequence[Path]) -> ImageSpec:
    for file in files:
        try:
            height, width = decode_image(RawImage(0, 0, "jpeg", 0, 0, 0, file.read_bytes())).image.shape[:2]
        except (DecodeError, OSError):
            continue
        return ImageSpec(name=name, kind="image", height=height, width=width)
    raise DatasetError(
        f"{path}: none of the first pictures of '{name}' can be read; paths count from the table's folder"
    )


def _sound(path: Path, name: str, files: Sequence[Path]) -> AudioSpec:
    import soundfile

    for file in files:
        try:
            info = soundfile.info(file)
        except (soundfile.LibsndfileError, RuntimeError, OSError):
            continue
        if info.frames:
            window_s = min(info.frames / info.samplerate, _LONGEST_S)
            return AudioSpec(name=name, kind="audio", rate_hz=info.samplerate, window_s=window_s)
    raise DatasetError(f"{path}: none of the first sounds of '{name}' can be read; paths count from the table's folder")
