"""Faults of a stream of vectors: numbers that say less, and messages that cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from aecf_ros.modalities.faults import ContentFault, Malform, Option
from aecf_ros.modalities.messages import copy_with, in_container_of


class Noise(ContentFault):
    """White noise at ``snr_db`` below the mean power of the vector."""

    OPTIONS: ClassVar = {"snr_db": Option((20, 12, 6, 0, -6), -60, 120)}

    def change(self, content: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        sigma = np.sqrt(np.mean(np.square(content)) * 10 ** (-self.options["snr_db"] / 10))
        return np.asarray(content + rng.standard_normal(len(content), np.float32) * np.float32(sigma))


CONTENT_FAULTS: Mapping[str, type[ContentFault]] = {"noise": Noise}


def edit_vector(message: Any, change: Callable[[np.ndarray], np.ndarray]) -> Any:
    """A copy with ``change`` done to the numbers, float32 ``(n,)`` to as many or fewer."""
    return copy_with(
        message, values=in_container_of(message.values, change(np.array(message.values, np.float32)).astype(np.float32))
    )


def wrong_size(message: Any, info: Any | None, rng: np.random.Generator) -> tuple[Any, Any]:
    """A vector that lacks its last number."""
    return edit_vector(message, lambda numbers: numbers[:-1]), info


def nan(message: Any, info: Any | None, rng: np.random.Generator) -> tuple[Any, Any]:
    """The first number and a tenth of the others are NaN."""

    def spoil(numbers: np.ndarray) -> np.ndarray:
        hit = (rng.random(len(numbers)) < 0.1) | (np.arange(len(numbers)) == 0)
        return np.where(hit, np.nan, numbers)

    return edit_vector(message, spoil), info


MALFORMED: Mapping[str, Malform] = {"wrong_size": wrong_size, "nan": nan}
