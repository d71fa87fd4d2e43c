"""Steepness of edges follows the lens and not what is shown."""

import cv2
import numpy as np
import pytest

from aecf_ros.modalities.image.sharpness import edge_steepness


def card(rng: np.random.Generator, edges: int, contrast: float) -> np.ndarray:
    """Float (48, 64): that many rectangles on a plain ground."""
    image = np.full((48, 64), 100.0)
    for _ in range(edges):
        top, left = rng.integers(2, 34), rng.integers(2, 46)
        image[top : top + rng.integers(6, 12), left : left + rng.integers(6, 14)] = 100 + contrast * rng.choice([-1, 1])
    return image


def shadow(image: np.ndarray, levels: float) -> np.ndarray:
    """The same in a soft light of that many levels from side to side and top to bottom."""
    x, y = np.meshgrid(np.linspace(0, 1, image.shape[1]), np.linspace(0, 1, image.shape[0]))
    return image + levels * (np.sin(5 * x) + np.cos(4 * y))


def seen(image: np.ndarray, blur_px: float = 0.0, noise: float = 1.0, seed: int = 0) -> float | None:
    if blur_px:
        image = cv2.GaussianBlur(image, (0, 0), blur_px)
    noisy = image + np.random.default_rng(seed).normal(0, noise, image.shape)
    return edge_steepness(np.clip(np.round(noisy), 0, 255).astype(np.int16), noise)


@pytest.mark.parametrize("edges", [1, 4, 20])
@pytest.mark.parametrize("contrast", [40, 90])
def test_blur_of_a_pixel_and_a_half_halves_it_whatever_is_shown(edges: int, contrast: float) -> None:
    rng = np.random.default_rng(edges)
    for _ in range(10):
        image = card(rng, edges, contrast)
        sharp, soft, softer = seen(image), seen(image, 1.6), seen(image, 3.0)
        assert sharp > 0.9 and soft < 0.53 * sharp and softer < 0.42 * sharp


def test_a_faint_card_in_strong_soft_light_is_as_sharp_as_print() -> None:
    image = shadow(card(np.random.default_rng(1), 1, 28), 35)
    assert seen(image) > 0.7 and seen(image, 1.6) < 0.5


def test_noise_is_not_taken_for_blur_and_does_not_hide_it() -> None:
    image = card(np.random.default_rng(1), 6, 80)
    assert all(seen(image, noise=sigma) > 0.7 for sigma in (0.5, 2, 5))
    assert all(seen(image, 1.6, noise=sigma) < 0.6 for sigma in (0.5, 2, 5))


@pytest.mark.parametrize(
    "image", [np.full((48, 64), 128.0), np.tile(np.linspace(60, 120, 64), (48, 1))], ids=["plain", "gradient"]
)
def test_a_picture_without_edges_says_nothing(image: np.ndarray) -> None:
    assert seen(image) is None


@pytest.mark.parametrize("shape", [(1, 1), (7, 200), (8, 8), (8, 300), (96, 96)])
def test_any_size_is_measured_or_left(shape: tuple[int, int]) -> None:
    value = edge_steepness(np.random.default_rng(0).integers(0, 256, shape).astype(np.int16), 1.0)
    assert value is None if min(shape) < 8 else 0 < value <= 1
