"""Recordings divided into parts: by recording, never by moment, every class in every part where that can be."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches

import numpy as np

from aecf_ros.training.config import DataConfig
from aecf_ros.training.data.npy_dataset import DatasetError

SPLIT_PARTS = ("fusion", "calibration", "test")
"""Parts that recordings are divided into."""
SYNONYMS = {
    "train": "fusion",
    "training": "fusion",
    "val": "calibration",
    "valid": "calibration",
    "validation": "calibration",
}
"""What others call the parts."""
_SEARCHED = 64
"""Recordings up to which other divisions are tried where a class is missing somewhere."""


def part_of(word: str, where: str) -> str:
    """The part that a word names.

    Raises:
        DatasetError: none; the line starts with ``where``.
    """
    part = SYNONYMS.get(word.strip().lower(), word.strip().lower())
    if part not in SPLIT_PARTS:
        raise DatasetError(f"{where}: '{word[:40]}' is no part; write {', '.join(SPLIT_PARTS)} (or train, val)")
    return part


def given_parts(names: Collection[str], config: DataConfig) -> dict[str, str]:
    """Recording -> part, as ``config.parts`` decides.

    Raises:
        DatasetError: it names a recording that is not among ``names``, or no part.
    """
    return {_known(name, names): part_of(word, f"data.parts.{name}") for name, word in config.parts.items()}


def split_recordings(counts: Mapping[str, np.ndarray], config: DataConfig, given: Mapping[str, str]) -> dict[str, str]:
    """A part for each recording.

    Those in ``given`` go where that says. The others are divided by iterative stratification (Sechidis et al., On the
    Stratification of Multi-Label Data, 2011): of the class that fewest of them hold, each goes to a part that lacks
    it, else to
    the one that it brings nearest to its share of all classes. The same recordings, shares and seed give the same
    parts.

    Args:
        counts: recording -> int ``(C,)``, its moments of each class.

    Raises:
        DatasetError: a part stays empty, or the shares leave nothing to train on.
    """
    names = sorted(counts)
    held = np.array([counts[name] for name in names], float).reshape(len(names), -1)
    shares = np.array([1 - config.calibration_share - config.test_share, config.calibration_share, config.test_share])
    if shares[0] <= 0:
        raise DatasetError(
            "data.calibration_share and data.test_share leave nothing to train on; their sum must be below 1"
        )
    part = np.array([SPLIT_PARTS.index(given[name]) if name in given else -1 for name in names])
    free = np.flatnonzero(part < 0)
    _stratify(part, held, shares, np.random.default_rng(config.split_seed))
    if len(names) <= _SEARCHED:
        _improve(part, held, shares, free)
    for p, name in enumerate(SPLIT_PARTS):
        if not (part == p).any() and not len(free):
            raise DatasetError(
                f"the part '{name}' is given nothing; {', '.join(SPLIT_PARTS)} are all needed: give "
                f"some of the data to it"
            )
        if not (part == p).any():
            raise DatasetError(
                f"too few recordings to split: {len(names)} with labeled moments leave none for the part '{name}'; "
                "parts share no recording, so record at least three, with every class in each, or "
                "decide with data.parts"
            )
    return {name: SPLIT_PARTS[p] for name, p in zip(names, part, strict=True)}


def _known(name: str, names: Collection[str]) -> str:
    if name in names:
        return name
    near = get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(names)[:8])}"
    raise DatasetError(f"data.parts.{name}: no such recording with labeled moments; {hint}")


def _stratify(part: np.ndarray, held: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> None:
    """Fill in the parts that are -1, in place; of a class the largest recordings first, because the others make up
    for them.
    """
    rank = rng.permutation(len(part))
    in_part = np.array([held[part == p].sum(0) for p in range(len(shares))])
    total = np.maximum(held.sum(0), 1)
    wanted = shares[:, None] * total
    free = part < 0
    while free.any():
        holders = (held[free] > 0).sum(0)
        if not holders.any():
            part[free] = 0
            return
        c = int(np.argmin(np.where(holders > 0, holders, len(part) + 1)))
        of_class = np.flatnonzero(free & (held[:, c] > 0))
        for r in of_class[np.lexsort((rank[of_class], -held[of_class, c]))]:
            # What it adds to each part's squared distance from its share of every class, in units of that share.
            further = (held[r] * (held[r] + 2 * (in_part - wanted)) / (total * wanted)).sum(1)
            p = int(np.lexsort((further, in_part[:, c] > 0))[0])
            part[r], free[r] = p, False
            in_part[p] += held[r]


def _improve(part: np.ndarray, held: np.ndarray, shares: np.ndarray, free: np.ndarray) -> None:
    """Move and swap free recordings while that brings a class to a part that lacks it."""
    total = np.maximum(held.sum(0), 1)

    def cost(division: np.ndarray) -> tuple[int, float]:
        in_part = np.array([held[division == p].sum(0) for p in range(len(shares))])
        return int((in_part == 0).sum()), float(np.abs(in_part / total - shares[:, None]).sum())

    best = cost(part)
    while best[0]:
        better = None
        for changed in _neighbors(part, free, len(shares)):
            if (now := cost(changed)) < best and now[0] < best[0]:
                best, better = now, changed
        if better is None:
            return
        part[:] = better


def _neighbors(part: np.ndarray, free: np.ndarray, parts: int) -> Iterator[np.ndarray]:
    """Every division in which one free recording is moved, or two are swapped."""
    for i in free:
        for p in range(parts):
            moved = part.copy()
            moved[i] = p
            yield moved
        for j in free[free > i]:
            if part[j] != part[i]:
                swapped = part.copy()
                swapped[[i, j]] = part[[j, i]]
                yield swapped
