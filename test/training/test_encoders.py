import math

import pytest
import torch

from aecf_ros.training.features.augment import AUGMENTATIONS, augment_log_mel, augment_luma, augment_sound
from aecf_ros.training.features.encoders import AudioEncoder, CameraEncoder, fourier_basis, mel_filters

RATE_HZ = 16_000


def _tone(hertz: float, amplitude: float = 1.0) -> torch.Tensor:
    return amplitude * torch.sin(2 * math.pi * hertz * torch.arange(RATE_HZ) / RATE_HZ)


def test_the_fourier_basis_is_the_windowed_transform():
    frame = torch.randn(400, generator=torch.Generator().manual_seed(0))
    hann = torch.hann_window(400)
    due = torch.fft.rfft(frame * hann) * 2 / hann.sum()
    found = (fourier_basis(400, 400).squeeze(1) @ frame).view(2, 201)
    torch.testing.assert_close(found[0], due.real, atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1], due.imag, atol=1e-5, rtol=0)


def test_every_mel_band_is_fed_and_a_tone_lands_in_its_band():
    filters = mel_filters(RATE_HZ, 400, 40, 60.0, 7600.0)
    torch.testing.assert_close(filters.sum(1), torch.ones(40))
    encoder = AudioEncoder(RATE_HZ, 1.0)
    for hertz in (300.0, 1000.0, 4000.0):
        loudest = encoder.represent(_tone(hertz).unsqueeze(0))[0, 0].mean(1).argmax()
        center = (filters[loudest] * torch.arange(201) * 40.0).sum()
        assert center.item() == pytest.approx(hertz, rel=0.12)


def test_gain_moves_the_normalized_spectrogram_little_and_digital_zeros_leave_it_finite():
    encoder = AudioEncoder(RATE_HZ, 1.0)
    sound = _tone(700.0, 0.3) + 0.01 * torch.randn(RATE_HZ, generator=torch.Generator().manual_seed(0))
    loud, quiet = (encoder.normalize(encoder.represent(gain * sound.unsqueeze(0))) for gain in (1.0, 0.4))
    torch.testing.assert_close(loud, quiet, atol=0.05, rtol=0)
    half = sound.clone()
    half[8000:] = 0
    for silent in (torch.zeros(1, RATE_HZ), half.unsqueeze(0)):
        normalized = encoder.normalize(encoder.represent(silent))
        assert normalized.isfinite().all() and normalized.abs().max() < 6


def test_brightness_and_contrast_do_not_move_the_normalized_image():
    encoder = CameraEncoder(48, 64)
    image = torch.randint(0, 120, (1, 48, 64, 3), generator=torch.Generator().manual_seed(0))
    plain, brighter = (encoder.normalize(encoder.represent(x.to(torch.uint8))) for x in (image, image * 2 + 10))
    torch.testing.assert_close(plain, brighter, atol=0.5, rtol=0)
    assert (plain - brighter).abs().mean() < 0.1
    flat = encoder.normalize(encoder.represent(torch.full((1, 48, 64, 3), 200, dtype=torch.uint8)))
    assert flat.abs().max() < 1e-3


@pytest.mark.parametrize("encoder", [CameraEncoder(48, 64), AudioEncoder(16_000, 1.0)], ids=["camera", "audio"])
def test_encoders_are_small(encoder):
    assert sum(parameter.numel() for parameter in encoder.parameters()) < 250_000


@pytest.mark.parametrize(
    ("augment", "x"),
    [
        (augment_luma, torch.rand(8, 1, 48, 64)),
        (augment_sound, 0.2 * torch.randn(8, 16_000)),
        (augment_log_mel, torch.randn(8, 1, 40, 98)),
    ],
)
def test_augmentation_changes_every_sample_and_repeats_with_its_generator(augment, x):
    first, second = (augment(x, torch.Generator().manual_seed(5)) for _ in range(2))
    other = augment(x, torch.Generator().manual_seed(6))
    assert torch.equal(first, second) and first.shape == x.shape and first.isfinite().all()
    assert ((first - x).flatten(1).abs().amax(1) > 1e-3).all() and not torch.equal(first, other)


def test_no_augmentation_is_no_change():
    x = torch.randn(2, 1, 4, 4)
    plain = AUGMENTATIONS["none"]
    assert torch.equal(plain.raw(x, torch.Generator()), x) and torch.equal(plain.represented(x, torch.Generator()), x)
