"""A synthetic dataset small enough to train on in seconds."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from aecf_ros.training.config import TrainConfig
from aecf_ros.training.config_loader import load_config

LABELS = ["low", "middle", "high"]
HEIGHT, WIDTH, RATE_HZ, WINDOW_S = 16, 20, 8000, 0.3

QUICK = [
    "threads=1",
    "encoders.image.optimizer.epochs=3",
    "encoders.audio.optimizer.epochs=3",
    "encoders.image.embedding_dim=12",
    "encoders.audio.embedding_dim=10",
    "encoders.image.augment=false",
    "encoders.audio.augment=false",
    "head.optimizer.epochs=4",
    "head.samples_per_epoch=512",
    "head.optimizer.batch_size=64",
    "head.optimizer.learning_rate=0.003",
    "head.options={gate: evidence, monotone: 'off'}",  # the lift over three modalities takes a minute to export
    "head.reliability.cross_fit={expert_steps: 40, steps: 60}",
    "pairs.calibration=300",
    "pairs.test=300",
    "calibration.minimum_samples=50",
    "calibration.coverage=0.9",
]


def draw_images(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A bright bar whose row tells the class, on noise; uint8 (N, H, W, 3)."""
    images = rng.integers(0, 90, (len(labels), HEIGHT, WIDTH, 3), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        if label >= 0:
            image[3 + 5 * label : 5 + 5 * label, 4:-4] += 120
    return images


def draw_sounds(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A tone whose pitch tells the class, in noise; int16 (N, samples)."""
    time = np.arange(round(RATE_HZ * WINDOW_S)) / RATE_HZ
    tones = np.sin(2 * np.pi * np.array([400.0, 1000.0, 2200.0])[np.maximum(labels, 0)][:, None] * time)
    sound = rng.normal(0, 0.05, (len(labels), len(time))) + 0.3 * tones * (labels >= 0)[:, None]
    return (np.clip(sound, -1, 1) * 32767).astype(np.int16)


def write_dataset(directory: Path, modalities: dict[str, str], counts: dict[str, int], seed: int = 0) -> Path:
    """Write a dataset folder with ``modalities`` name -> kind and ``counts`` samples in each part."""
    rng = np.random.default_rng(seed)
    specs = []
    for name, kind in modalities.items():
        shape = {"height": HEIGHT, "width": WIDTH} if kind == "image" else {"rate_hz": RATE_HZ, "window_s": WINDOW_S}
        specs.append({"name": name, "kind": kind, "sources": ["even", "odd"]} | shape)
        for part, count in counts.items():
            labels = (np.arange(count) % (len(LABELS) + 1) - 1).astype(np.int16)
            rng.shuffle(labels)
            (directory / part).mkdir(parents=True, exist_ok=True)
            np.save(directory / part / f"{name}.npy", (draw_images if kind == "image" else draw_sounds)(labels, rng))
            np.save(directory / part / f"{name}_labels.npy", labels)
            np.save(directory / part / f"{name}_sources.npy", (np.arange(count) % 2).astype(np.int16))
            np.save(directory / part / f"{name}_clusters.npy", (np.arange(count) // 4).astype(np.int32))
    spec = {
        "name": "bars_and_tones",
        "labels": LABELS,
        "description": "Bars and tones.",
        "sources": ["drawn by the tests, CC0"],
        "modalities": specs,
        "parts": {part: dict.fromkeys(modalities, count) for part, count in counts.items()},
    }
    (directory / "dataset.yaml").write_text(yaml.safe_dump(spec))
    return directory


COUNTS = {"encoders": 320, "fusion": 240, "calibration": 400, "test": 240}


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder with two cameras and a microphone."""
    return write_dataset(
        tmp_path_factory.mktemp("bars"), {"camera": "image", "thermal": "image", "audio": "audio"}, COUNTS
    )


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[[dict[str, str], dict[str, int]], Path]:
    """A function (modalities, counts) -> a new dataset folder."""
    return lambda modalities, counts: write_dataset(tmp_path / "data", modalities, counts)


@pytest.fixture(scope="session")
def quick_config() -> TrainConfig:
    """A configuration that trains on the tiny dataset in seconds."""
    return load_config(None, QUICK)


@pytest.fixture(scope="session")
def quick_overrides() -> list[str]:
    """The same as words of a command line."""
    return list(QUICK)
