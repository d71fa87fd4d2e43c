"""What a JPEG or PNG says of itself, read before a decoder believes it and takes the memory for it."""

from __future__ import annotations

import numpy as np

_PNG_SIGNATURE_BYTES, _PNG_CHUNK_BYTES = 8, 12
"""A chunk has its length, its type and a checksum around its data (ISO/IEC 15948, 5.3)."""


def claimed_size(kind: str, data: np.ndarray) -> tuple[int, int, int]:
    """(height, width, where the size ends) of ``jpeg`` or ``png`` data, flat uint8.

    Raises:
        ValueError: there is none.
    """
    header = memoryview(data.data)
    if kind == "png" and len(header) >= 24:
        return int.from_bytes(header[20:24], "big"), int.from_bytes(header[16:20], "big"), 24
    at = 2
    while kind == "jpeg" and at + 9 <= len(header) and header[at] == 0xFF:
        marker, length = header[at + 1], int.from_bytes(header[at + 2 : at + 4], "big")
        if marker == 0xFF:  # padding in front of a marker
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return (
                int.from_bytes(header[at + 5 : at + 7], "big"),
                int.from_bytes(header[at + 7 : at + 9], "big"),
                at + 9,
            )
        at += 2 + length
    raise ValueError("has no size in its header")


def has_whole_chunks(data: np.ndarray) -> bool:
    """Whether every chunk of a PNG, flat uint8, ends within it: OpenCV allocates what a chunk claims, up to 4 GB,
    before it reads it.
    """
    file, at = memoryview(data.data), _PNG_SIGNATURE_BYTES
    while at + _PNG_CHUNK_BYTES <= len(file):
        length, kind = int.from_bytes(file[at : at + 4], "big"), bytes(file[at + 4 : at + 8])
        at += _PNG_CHUNK_BYTES + length
        if kind == b"IEND":
            return at <= len(file)
    return False
