import pytest
import torch

from aecf_ros.modalities.registry import MODALITIES
from aecf_ros.training.features.corruption import CLEAN, Corruptions, corrupt, corruptions_of, draw_corruptions

ALL = [(modality, name) for modality in MODALITIES for name in corruptions_of(modality)]


def _samples(modality: str) -> torch.Tensor:
    """64 pictures of bars, or 64 words of two tones, as an encoder takes them."""
    generator = torch.Generator().manual_seed(1)
    if modality == "image":
        image = torch.randint(40, 90, (64, 48, 64, 3), generator=generator, dtype=torch.uint8)
        image[:, 12:36, 24:32] = 200
        return image
    time = torch.arange(4000) / 4000
    tone = torch.rand(64, 1, generator=generator) * 300 + 100
    envelope = torch.exp(-(((time - 0.5) / 0.15) ** 2))
    return 0.2 * envelope * (torch.sin(6.28 * tone * time) + torch.sin(6.28 * 3 * tone * time))


def _corrupted(modality: str, name: str, severity: float, seed: int = 0) -> torch.Tensor:
    samples = _samples(modality)
    kind = torch.full((64,), list(corruptions_of(modality)).index(name)).numpy()
    field = Corruptions(modality, kind, torch.full((64,), severity).numpy())
    return corrupt(samples, field, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("modality", "name"), ALL)
def test_a_kind_changes_more_when_it_is_severe_and_keeps_what_an_encoder_takes(modality, name):
    samples = _samples(modality)
    change = []
    for severity in (1.0, 5.0):
        found = _corrupted(modality, name, severity)
        assert found.shape == samples.shape and found.dtype == samples.dtype
        assert torch.isfinite(found.float()).all() and found.float().abs().max() <= (255 if modality == "image" else 1)
        change.append((found.float() - samples.float()).abs().mean().item())
    if name not in (
        "clipping",
        "echo",
        "speed",
    ):  # clipping has any level; the other two scramble phases from the start
        assert change[1] > 1.2 * change[0]
    assert min(change) > 0


@pytest.mark.parametrize(("modality", "name"), ALL)
def test_a_kind_is_the_same_for_the_same_seed(modality, name):
    assert torch.equal(_corrupted(modality, name, 3.0), _corrupted(modality, name, 3.0))


@pytest.mark.parametrize(("modality", "name"), ALL)
def test_black_pictures_and_digital_silence_stay_finite(modality, name):
    nothing = torch.zeros_like(_samples(modality))
    kind = torch.full((64,), list(corruptions_of(modality)).index(name)).numpy()
    found = corrupt(
        nothing, Corruptions(modality, kind, torch.full((64,), 5.0).numpy()), torch.Generator().manual_seed(0)
    )
    assert torch.isfinite(found.float()).all()


@pytest.mark.parametrize("modality", MODALITIES)
def test_clean_samples_are_left_as_they_are_among_corrupted_ones(modality):
    samples, field = _samples(modality), draw_corruptions(modality, 64, [0])
    field.kind[::2] = CLEAN
    found = corrupt(samples, field, torch.Generator().manual_seed(0))
    assert torch.equal(found[::2], samples[::2])
    assert (found[1::2] != samples[1::2]).flatten(1).any(1).all()


@pytest.mark.parametrize("modality", MODALITIES)
def test_kinds_come_in_equal_shares_at_every_severity_and_by_the_seed(modality):
    field, again, other = (draw_corruptions(modality, 1000, [seed]) for seed in (3, 3, 4))
    assert (field.kind == again.kind).all() and (field.severity == again.severity).all()
    assert (field.kind != other.kind).any()
    counts = torch.from_numpy(field.kind).bincount()
    assert len(counts) == len(corruptions_of(modality)) and counts.max() - counts.min() <= 1
    assert 1 <= field.severity.min() < 1.1 and 4.9 < field.severity.max() <= 5
