"""Kinds of image corruption, by severity 1 to 5. Every function: float32 [n, 28, 28] in [0, 1], severity int [n], rng
-> same.
"""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

Corruption = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def sensor_noise(images, severity, rng):
    """Gaussian noise, standard deviation 0.1 to 0.7."""
    return images + rng.normal(size=images.shape).astype(np.float32) * (0.15 * severity - 0.05)[:, None, None]


def blur(images, severity, rng):
    """Gaussian blur, 0.8 to 4 pixels."""
    return _each_severity(images, severity, lambda batch, s: ndimage.gaussian_filter(batch, (0, 0.8 * s, 0.8 * s)))


def low_light(images, severity, rng):
    """Light at 1/2 to 1/32, photon and read noise, brightened back to where it was."""
    light = (0.5**severity)[:, None, None] * 60.0
    photons = rng.poisson(np.clip(images, 0, 1) * light) + rng.normal(size=images.shape) * 2.0
    return (photons / light).astype(np.float32)


def occlusion(images, severity, rng):
    """A gray square of 8 to 20 pixels, anywhere over the middle."""
    out = images.copy()
    for image, s in zip(out, severity, strict=True):
        size = 5 + 3 * s
        top, left = rng.integers(4, 26 - size + 4, size=2) - 2
        image[max(top, 0) : top + size, max(left, 0) : left + size] = 0.5
    return out


def motion(images, severity, rng):
    """A streak of 4 to 16 pixels in one of four directions."""
    direction = np.array([(0, 1), (1, 0), (1, 1), (1, -1)])[rng.integers(0, 4, size=len(images))]
    out = np.empty_like(images)
    for i, (s, step) in enumerate(zip(severity, direction, strict=True)):
        length = 1 + 3 * s
        shifts = np.arange(length) - length // 2
        out[i] = np.mean([np.roll(images[i], shift * step, axis=(0, 1)) for shift in shifts], axis=0)
    return out


def rotation(images, severity, rng):
    """12 to 60 degrees, either way."""
    sign = rng.choice([-1, 1], size=len(images))
    return np.stack(
        [
            ndimage.rotate(image, 12.0 * s * g, reshape=False, order=1)
            for image, s, g in zip(images, severity, sign, strict=True)
        ]
    )


def salt_and_pepper(images, severity, rng):
    """8 to 40 % of pixels black or white."""
    draw = rng.random(images.shape)
    share = (0.08 * severity)[:, None, None]
    return np.where(draw < share / 2, 0.0, np.where(draw < share, 1.0, images)).astype(np.float32)


def fog(images, severity, rng):
    """Smooth bright noise over the image, up to three times its weight."""
    haze = ndimage.gaussian_filter(rng.normal(size=images.shape), (0, 4, 4))
    haze = (haze - haze.min((1, 2), keepdims=True)) / np.ptp(haze, axis=(1, 2)).reshape(-1, 1, 1)
    weight = (0.6 * severity)[:, None, None]
    return ((images + weight * haze) / (1 + weight * 0.6)).astype(np.float32)


def contrast(images, severity, rng):
    """Contrast down to 83 to 15 %, around a gray of 0.6, with the noise of eight bits and a little more."""
    keep = (1.0 - 0.17 * severity)[:, None, None]
    return (0.6 + (images - 0.6) * keep + 0.02 * rng.normal(size=images.shape)).astype(np.float32)


SEEN: dict[str, Corruption] = {
    "sensor_noise": sensor_noise,
    "blur": blur,
    "low_light": low_light,
    "occlusion": occlusion,
    "motion": motion,
}
DEVELOPMENT: dict[str, Corruption] = {"rotation": rotation, "salt_and_pepper": salt_and_pepper}
UNSEEN: dict[str, Corruption] = {"fog": fog, "contrast": contrast}


def apply(images: np.ndarray, kinds: dict[str, Corruption], kind: np.ndarray, severity: np.ndarray, rng) -> np.ndarray:
    """Corrupt each image by its own kind (index into `kinds`) and severity (0 leaves it alone): float32 in [0, 1]."""
    out = images.astype(np.float32)
    for index, corrupt in enumerate(kinds.values()):
        rows = np.flatnonzero((kind == index) & (severity > 0))
        if len(rows):
            out[rows] = corrupt(out[rows], severity[rows], rng)
    return np.clip(out, 0.0, 1.0)


def _each_severity(images, severity, corrupt):
    out = images.copy()
    for s in np.unique(severity):
        out[severity == s] = corrupt(images[severity == s], int(s))
    return out
