"""A soft scene is told from a soft lens by what else changed."""

import cv2
import numpy as np
import pytest

from aecf_ros.core.types import NANOSECONDS
from aecf_ros.modalities.image.content import ImageWatch
from aecf_ros.modalities.image.scene_change import SoftScenes
from aecf_ros.modalities.messages import digest
from aecf_ros.modalities.registry import MODALITIES

RNG = np.random.default_rng(0)


def printed(seed: int) -> np.ndarray:
    """A card with print on it, float (48, 64)."""
    rng = np.random.default_rng(seed)
    image = np.full((48, 64), 120.0)
    left, top = rng.integers(5, 30), rng.integers(4, 16)
    image[top : top + 28, left : left + 26] = 210
    for _ in range(5):
        y, x = top + rng.integers(3, 20), left + rng.integers(3, 18)
        image[y : y + 5, x : x + 5] = 30
    return image


def cloth(seed: int) -> np.ndarray:
    """Something with no edge on it, float (48, 64)."""
    return cv2.GaussianBlur(printed(seed), (0, 0), 4.0)[:, ::-1] - 20


def complaints(pictures: list[np.ndarray], each: int = 30) -> list[set[str]]:
    """Kinds of complaint after each frame, each picture shown for so many frames at 15 Hz."""
    watch, found = ImageWatch(), []
    for i, picture in enumerate(p for p in pictures for _ in range(each)):
        image = np.clip(np.round(picture + RNG.normal(0, 1, picture.shape)), 0, 255).astype(np.uint8)
        frame = np.repeat(image[..., None], 3, axis=2)
        found.append(
            {
                c.kind
                for c in watch.look(digest(frame.ravel(), False), frame, i * NANOSECONDS // 15).complaints(
                    MODALITIES["image"].thresholds
                )
            }
        )
    return found


def blurred(picture: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), 2.0)


def test_one_picture_without_edges_among_printed_ones_is_not_blur() -> None:
    shown = [printed(i) for i in range(4)] + [cloth(9)] + [printed(i) for i in range(5, 8)] + [cloth(3)] + [printed(8)]
    assert not any(complaints(shown))


def test_a_lens_that_goes_soft_on_one_picture_is_blur_at_once() -> None:
    found = complaints([*(printed(i) for i in range(4)), blurred(printed(3))])
    assert not any(found[:120]) and all("blurred" in kinds for kinds in found[120:])


def test_a_lens_that_goes_soft_as_the_picture_changes_is_blur_from_the_next_picture_on() -> None:
    found = complaints([*(printed(i) for i in range(4)), *(blurred(printed(i)) for i in (4, 5, 6)), printed(7)])
    assert not any(found[:120]) and all("blurred" in kinds for kinds in found[150:210]) and not any(found[210:])


@pytest.mark.parametrize("shape", [(1, 1), (5, 8), (6, 8), (96, 96)])
def test_pictures_of_any_size_are_judged(shape: tuple[int, int]) -> None:
    scenes = SoftScenes()
    assert scenes.blames_lens(np.zeros(shape, np.int16), 1.0) is False
    assert scenes.blames_lens(np.zeros(shape, np.int16), 0.3) is True


def test_a_scene_that_softens_by_and_by_after_it_came_is_still_another_scene() -> None:
    scenes = SoftScenes()
    before, after = (np.round(picture).astype(np.int16) for picture in (printed(1), cloth(9)))
    assert [
        scenes.blames_lens(picture, sharpness)
        for picture, sharpness in ((before, 1.0), (after, 0.7), (after, 0.6), (after, 0.5))
    ] == [False] * 4
    assert [scenes.blames_lens(before, sharpness) for sharpness in (1.0, 0.5, 0.65)] == [False, True, True]
