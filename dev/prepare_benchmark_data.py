"""Make dataset folders for `aecf train --data` of the benchmark's archives: digits (MNIST with spoken digits) and scenes
(CIFAR-10 images with ESC-10 sounds), in the parts of their protocols.

Nothing is downloaded: the archives come from `../shared/data` (or AECF_BENCH_DATA). The scenes have no part `encoders`:
64 clips train none that would be honest, so they need frozen ones. Neither has samples that show nothing: train with
pairs.nothing_share=0 head.nothing_share=0 head.all_nothing_share=0.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import cv2
import numpy as np
import yaml
from av_digits.sources import LABELS, RATE_HZ, SOURCES, benchmark_folder, fsdd, mnist

PARTS = ("encoders", "fusion", "calibration", "test")
ENCODER_IMAGES, FUSION_IMAGES = 8000, 3000
FOLDS = {"fusion": (1, 2), "calibration": (3,), "test": (4,)}
CREDITS = ("CIFAR-10 (Krizhevsky 2009)", "ESC-10 (Piczak 2015), CC BY 3.0, authors by file name in its README")


@dataclass(frozen=True)
class Made:
    """One modality of one part: samples, labels (n,) and what is of one recording (n,)."""

    samples: np.ndarray
    labels: np.ndarray
    clusters: np.ndarray


def last_second(sound: np.ndarray) -> np.ndarray:
    """The end of int16 (n,) sound at RATE_HZ as a window of 1 s, zeros before it."""
    window = np.zeros(RATE_HZ, np.int16)
    kept = sound[-RATE_HZ:]
    window[RATE_HZ - len(kept) :] = kept
    return window


def digits(folder: Path) -> Iterator[tuple[str, dict[str, Made]]]:
    """Each part: 28x28 pictures as RGB, and words."""
    for part in PARTS:
        glyphs, words = mnist(part, folder), fsdd(part, folder)
        pictures = np.repeat(glyphs.images[..., None], 3, axis=3)
        sounds = np.stack([last_second(words.samples[a:b]) for a, b in zip(words.offsets[:-1], words.offsets[1:], strict=True)])
        yield part, {
            "camera": Made(pictures, glyphs.labels, np.arange(len(pictures))),
            "audio": Made(sounds, words.labels, np.arange(len(sounds))),
        }


def scenes(folder: Path) -> Iterator[tuple[str, dict[str, Made]]]:
    """Each part but `encoders`: 32x32 pictures, and the 1 s windows of clips that hold sound."""
    with np.load(folder / "scenes_image.npz", allow_pickle=False) as archive:
        jpeg, offsets, label, split = (archive[key] for key in ("jpeg", "offsets", "labels", "split"))
    train = np.random.default_rng(20).permutation(np.flatnonzero(split == 0))
    rows = {
        "fusion": train[ENCODER_IMAGES : ENCODER_IMAGES + FUSION_IMAGES],
        "calibration": train[ENCODER_IMAGES + FUSION_IMAGES :],
        "test": np.flatnonzero(split == 1),
    }
    with np.load(folder / "scenes_sound.npz", allow_pickle=False) as archive:
        samples, edges, sound_label, fold = (archive[key] for key in ("samples", "offsets", "label", "fold"))
    for part, folds in FOLDS.items():
        pictures = np.stack([cv2.cvtColor(cv2.imdecode(jpeg[offsets[i] : offsets[i + 1]], cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB) for i in rows[part]])
        clips = np.flatnonzero(np.isin(fold, folds))
        cut = [(window, clip) for clip in clips for window in windows(samples[edges[clip] : edges[clip + 1]])]
        of = np.array([clip for _, clip in cut])
        yield part, {
            "camera": Made(pictures, label[rows[part]], np.arange(len(pictures))),
            "audio": Made(np.stack([window for window, _ in cut]), sound_label[of], of),
        }


def windows(clip: np.ndarray) -> list[np.ndarray]:
    """The 1 s windows of int16 (n,), half overlapping, whose loudness is at least a tenth of the loudest one's."""
    cut = [clip[i : i + RATE_HZ] for i in range(0, len(clip) - RATE_HZ + 1, RATE_HZ // 2)]
    loudness = [float(np.sqrt(np.square(window.astype(np.float64)).mean())) for window in cut]
    return [window for window, level in zip(cut, loudness, strict=True) if level > 0 and level >= 0.1 * max(loudness)]


def scene_labels(folder: Path) -> list[str]:
    """Class names, each of the picture's and the sound's."""
    with np.load(folder / "scenes_image.npz", allow_pickle=False) as archive:
        return [str(name) for name in archive["classes"]]


SETS: dict[str, tuple[Callable, Callable, int, tuple[str, ...]]] = {
    "digits": (digits, lambda folder: list(LABELS), 28, (SOURCES["mnist"], SOURCES["fsdd"])),
    "scenes": (scenes, scene_labels, 32, CREDITS),
}
"""Name -> parts, labels, side of a picture, credits."""


@click.command(help=__doc__)
@click.argument("name", type=click.Choice(list(SETS)))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Dataset folder to write.")
def main(name: str, out: Path) -> None:
    make, labels, side, credits = SETS[name]
    folder = benchmark_folder()
    try:
        for part, modalities in make(folder):
            (out / part).mkdir(parents=True, exist_ok=True)
            for modality, made in modalities.items():
                np.save(out / part / f"{modality}.npy", made.samples)
                np.save(out / part / f"{modality}_labels.npy", made.labels.astype(np.int16))
                np.save(out / part / f"{modality}_clusters.npy", made.clusters.astype(np.int64))
            click.echo(f"{part}: " + ", ".join(f"{len(made.labels)} of {modality}" for modality, made in modalities.items()))
        specs = [
            {"name": "camera", "kind": "image", "height": side, "width": side},
            {"name": "audio", "kind": "audio", "rate_hz": RATE_HZ, "window_s": 1.0},
        ]
        spec = {"name": name, "labels": labels(folder), "sources": list(credits), "modalities": specs}
    except FileNotFoundError as error:
        raise click.ClickException(f"{error.filename}: no such file; put the archives there, or name their folder in AECF_BENCH_DATA") from None
    (out / "dataset.yaml").write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
    click.echo(f"wrote {out}")


if __name__ == "__main__":
    main()
