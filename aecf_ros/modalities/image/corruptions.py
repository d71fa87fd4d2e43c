"""What befalls pictures in the field: kinds of corruption, severity 1 to 5, each as ``field.py`` says.

Every kind is a pure function (batch, severity, generator) -> batch: float32 (B, 3, H, W) in [0, 1], severity float32
(B,) in
[1, 5]; what comes back may leave [0, 1]. Lengths are shares of the height.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from aecf_ros.modalities.corruptions import normal, rows, uniform

_TAPS = 15


def sensor_noise(image: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian noise on every channel, standard deviation 0.06 to 0.3 of full scale."""
    return image + 0.06 * rows(severity, 4) * normal(image.shape, generator)


def blur(image: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Out of focus: a Gaussian of 1 to 5 % of the height."""
    sigma = 0.01 * image.shape[2] * severity
    reach = min(math.ceil(2.5 * float(sigma.max())), image.shape[2] - 1, image.shape[3] - 1)
    at = torch.arange(-reach, reach + 1)
    kernel = torch.exp(-0.5 * (at / sigma.unsqueeze(1)) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)  # (3B, taps)
    x = image.flatten(0, 1).unsqueeze(0)  # (1, 3B, H, W)
    x = functional.conv2d(
        functional.pad(x, (0, 0, reach, reach), mode="replicate"), kernel[:, None, :, None], groups=len(kernel)
    )
    x = functional.conv2d(
        functional.pad(x, (reach, reach, 0, 0), mode="replicate"), kernel[:, None, None, :], groups=len(kernel)
    )
    return x.view(image.shape)


def motion(image: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """A streak of 5 to 25 % of the height in any direction."""
    angle = uniform(len(image), 0.0, math.pi, generator)
    length = 0.05 * severity * 2.0  # in affine_grid's units, where the height is 2
    aspect = image.shape[2] / image.shape[3]
    total = torch.zeros_like(image)
    for share in torch.linspace(-0.5, 0.5, _TAPS):
        shift = share * length
        total += _moved(
            image, torch.ones_like(angle), torch.zeros_like(angle), shift * angle.cos() * aspect, shift * angle.sin()
        )
    return total / _TAPS


def low_light(image: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """1/2 to 1/32 of the light, with photon and read noise, left as dark as it is."""
    x = image * 0.5 ** rows(severity, 4)
    return x + (x / 300.0 + 0.006**2).sqrt() * normal(image.shape, generator)


def overexposure(image: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Light times 1.5 to 8 over a veil, cut off at white."""
    return image * 1.5 ** rows(severity, 4) + 0.05 * rows(severity, 4)


def low_contrast(image: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Haze or a dirty lens: 82 to 10 % of the contrast around a gray, and a little noise."""
    gray = rows(uniform(len(image), 0.3, 0.8, generator), 4)
    return gray + (image - gray) * (1.0 - 0.18 * rows(severity, 4)) + 0.015 * normal(image.shape, generator)


def occlusion(image: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Something in front of the lens: a disc of one color, 10 to 50 % of the height in radius."""
    count, _, height, width = image.shape
    radius = 0.1 * severity * height
    row, column = uniform(count, 0.15, 0.85, generator) * height, uniform(count, 0.15, 0.85, generator) * width
    y, x = torch.arange(height).view(1, -1, 1), torch.arange(width).view(1, 1, -1)
    inside = (y - rows(row, 3)) ** 2 + (x - rows(column, 3)) ** 2 < rows(radius, 3) ** 2
    return torch.where(inside.unsqueeze(1), torch.rand((count, 3, 1, 1), generator=generator), image)


def tilt(image: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Turned by 9 to 45 degrees either way, and up to a third nearer or farther."""
    way = torch.where(torch.rand(len(image), generator=generator) < 0.5, -1.0, 1.0)
    zoom = torch.exp(uniform(len(image), -0.06, 0.06, generator) * severity)
    zero = torch.zeros(len(image))
    return _moved(image, zoom, way * severity * math.radians(9.0), zero, zero)


def _moved(image: Tensor, zoom: Tensor, angle: Tensor, shift_x: Tensor, shift_y: Tensor) -> Tensor:
    """Turned and scaled about the middle, then shifted (half-heights and half-widths); the border repeats."""
    aspect = image.shape[2] / image.shape[3]
    cosine, sine = zoom * angle.cos(), zoom * angle.sin()
    top = torch.stack([cosine, -sine * aspect, shift_x], 1)
    matrix = torch.stack([top, torch.stack([sine / aspect, cosine, shift_y], 1)], 1)
    grid = functional.affine_grid(matrix, list(image.shape), align_corners=False)
    return functional.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)


KINDS = (sensor_noise, blur, motion, low_light, overexposure, low_contrast, occlusion, tilt)


def to_float(samples: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) as the corruptions take it: float32 (B, 3, H, W) in [0, 1]."""
    return samples.permute(0, 3, 1, 2).float() / 255.0


def from_float(images: Tensor) -> Tensor:
    """What :func:`to_float` undoes; values are cut off at [0, 1]."""
    return (images.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
