"""Steepness of edges follows the lens and not what is shown."""
import cv2
import numpy as np
import pytest

from aecf_ros.core.edges import edge_steepness


def card(rng: np.random.Generator, edges: int, contrast: float) -> np.ndarray:
    """Float (48, 64): that many rectangles on a plain ground."""
    image = np.full((48, 64), 100.0)
    for _ in range(edges):
        top, left = rng.integers(2, 34), rng.integers(2, 46)
        image[top:top + rng.integers(6, 12), left:left + rng.integers(6, 14)] = 100 + contrast * rng.choice([-1, 1])
    return image


def seen(image: np.ndarray, blur_px: float = 0.0, noise: float = 1.0, seed: int = 0) -> float | None:
    if blur_px:
        image = cv2.GaussianBlur(image, (0, 0), blur_px)
    noisy = image + np.random.default_rng(seed).normal(0, noise, image.shape)
    return edge_steepness(np.clip(np.round(noisy), 0, 255).astype(np.int16))


@pytest.mark.parametrize("edges", [1, 4, 20])
@pytest.mark.parametrize("contrast", [40, 90])
def test_blur_of_one_pixel_and_more_halves_it_whatever_is_shown(edges: int, contrast: float) -> None:
    rng = np.random.default_rng(edges)
    for _ in range(10):
        image = card(rng, edges, contrast)
        sharp, soft, softer = seen(image), seen(image, 1.0), seen(image, 2.5)
        assert sharp > 0.75 and 0.2 < soft < 0.6 * sharp and softer < 0.4 * sharp


def test_noise_is_not_taken_for_blur() -> None:
    image = card(np.random.default_rng(1), 6, 80)
    assert all(seen(image, noise=sigma) > 0.6 for sigma in (0.5, 5, 20, 60))


@pytest.mark.parametrize("image", [np.full((48, 64), 128.0), np.tile(np.linspace(60, 120, 64), (48, 1))], ids=["plain", "gradient"])
def test_a_picture_without_edges_says_nothing(image: np.ndarray) -> None:
    assert seen(image) is None


@pytest.mark.parametrize("shape", [(1, 1), (7, 200), (8, 8), (8, 300), (96, 96)])
def test_any_size_is_measured_or_left(shape: tuple[int, int]) -> None:
    value = edge_steepness(np.random.default_rng(0).integers(0, 256, shape).astype(np.int16))
    assert value is None if min(shape) < 8 else 0 < value <= 1
