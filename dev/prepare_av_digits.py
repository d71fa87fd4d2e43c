"""Make the data that the model `av_digits` is trained, calibrated and tested on: a dataset folder for `aecf train
--data`.

Nothing is downloaded. MNIST and the Free Spoken Digit Dataset come from `../shared/data` (or AECF_BENCH_DATA); without
that folder the data are scikit-learn's digits and espeak-ng's voices alone, which every machine can make.
"""

import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click
import cv2
import numpy as np
import yaml
from av_digits import scenes, sources, speech
from av_digits.sources import Glyphs, Words

from aecf_ros.modalities.image.decode import resize_image

HEIGHT, WIDTH = 48, 64
FRAME_SIZES = ((160, 120), (320, 240))  # width and height of the frames as a camera would send them
SMALL_SHARE = 0.6
PARTS = ("encoders", "fusion", "calibration", "test")
SIZES = {
    "encoders": {"camera": 66000, "audio": 36000},
    "fusion": {"camera": 15000, "audio": 11000},
    "calibration": {"camera": 6000, "audio": 5500},
    "test": {"camera": 6000, "audio": 5500},
}
QUICK_SIZES = {part: {"camera": 40, "audio": 40} for part in PARTS}
NOTHING_SHARE = {"camera": 0.09, "audio": 0.14}
MNIST_SHARE, FSDD_SHARE = 0.7, 0.4
BLOCK = 200


@dataclass(frozen=True)
class Plan:
    """What each sample of one part and modality is made of.

    corpus: int8 (n,), index into the corpora. item: int32 (n,), the glyph or word in it. labels: int16 (n,), -1 for
    nothing.
    """

    corpora: tuple[Glyphs, ...] | tuple[Words, ...]
    corpus: np.ndarray
    item: np.ndarray
    labels: np.ndarray
    seed: tuple[int, ...]
    file: Path

    @property
    def sources(self) -> np.ndarray:
        """int16 (n,), the corpus of each sample; -1 where there is nothing to recognize."""
        return np.where(self.labels >= 0, self.corpus, -1).astype(np.int16)

    @property
    def clusters(self) -> np.ndarray:
        """int32 (n,), a number shared by all samples of one drawing or recording; nothing is a number of its own."""
        first = np.cumsum([0, *(len(of.labels) for of in self.corpora)])
        own = first[-1] + np.arange(len(self.labels))
        return np.where(self.labels >= 0, first[self.corpus] + self.item, own).astype(np.int32)


def plan_samples(
    corpora: tuple, shares: list[float], n: int, nothing: float, seed: tuple[int, ...], file: Path
) -> Plan:
    """A seeded plan: every corpus is gone through in shuffled rounds, so that no item is used twice before each was
    used once.
    """
    rng = np.random.default_rng(seed)
    empty = np.zeros(n, bool)
    empty[rng.permutation(n)[: round(n * nothing)]] = True
    corpus = rng.choice(len(corpora), size=n, p=np.array(shares) / sum(shares)).astype(np.int8)
    item, labels = np.zeros(n, np.int32), np.full(n, -1, np.int16)
    for index, source in enumerate(corpora):
        usable = np.flatnonzero(source.labels.astype(np.int16) >= 0)
        places = np.flatnonzero((corpus == index) & ~empty)
        rounds = [rng.permutation(usable) for _ in range(len(places) // len(usable) + 1)]
        item[places] = np.concatenate(rounds)[: len(places)]
        labels[places] = source.labels[item[places]]
    return Plan(corpora, corpus, item, labels, seed, file)


_PLAN: Plan  # of a worker process


def _make_frames(start: int) -> int:
    cv2.setNumThreads(1)
    out = np.load(_PLAN.file, mmap_mode="r+", allow_pickle=False)
    stop = min(start + BLOCK, len(_PLAN.labels))
    for i in range(start, stop):
        rng = np.random.default_rng([*_PLAN.seed, i])
        glyph = _PLAN.corpora[_PLAN.corpus[i]].images[_PLAN.item[i]] if _PLAN.labels[i] >= 0 else None
        size = FRAME_SIZES[int(rng.random() > SMALL_SHARE)]
        out[i] = resize_image(scenes.training_frame(glyph, rng, *size), HEIGHT, WIDTH)
    return stop - start


def _make_windows(start: int) -> int:
    out = np.load(_PLAN.file, mmap_mode="r+", allow_pickle=False)
    stop = min(start + BLOCK, len(_PLAN.labels))
    for i in range(start, stop):
        rng = np.random.default_rng([*_PLAN.seed, i])
        words = _PLAN.corpora[_PLAN.corpus[i]]
        talkers = _PLAN.corpora[-1]
        if _PLAN.labels[i] >= 0:
            talk = (talkers, np.flatnonzero(talkers.labels < 0))
            vary_speed = 0.14 if words.corpus == "fsdd" else 0.09
            out[i] = speech.digit_window(words.word(int(_PLAN.item[i])), rng, talk, vary_speed)
        else:
            out[i] = speech.nothing_window(talkers, rng)
    return stop - start


def _take_plan(plan: Plan) -> None:
    global _PLAN
    _PLAN = plan


def fill(plan: Plan, shape: tuple[int, ...], dtype: type, work, workers: int, title: str) -> None:
    """Write a plan's samples to its .npy file, its labels, corpora and clusters beside it."""
    n = len(plan.labels)
    np.lib.format.open_memmap(plan.file, mode="w+", dtype=dtype, shape=(n, *shape)).flush()
    for column in ("labels", "sources", "clusters"):
        np.save(plan.file.with_name(f"{plan.file.stem}_{column}.npy"), getattr(plan, column))
    spawn = multiprocessing.get_context(
        "spawn"
    )  # a fork would take over the threads and signal handlers of whoever calls this
    with (
        ProcessPoolExecutor(workers, mp_context=spawn, initializer=_take_plan, initargs=(plan,)) as pool,
        click.progressbar(length=n, label=title) as bar,
    ):
        for done in pool.map(work, range(0, n, BLOCK)):
            bar.update(done)


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/av_digits_data"), show_default=True)
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    default=Path("out/av_digits_cache"),
    show_default=True,
    help="Folder that keeps espeak-ng's words.",
)
@click.option("--seed", default=0, show_default=True)
@click.option("--workers", default=2, show_default=True)
@click.option("--scale", default=1.0, show_default=True, help="Multiplies every size.")
@click.option("--quick", is_flag=True, help="A tiny dataset, for tests.")
@click.option("--overwrite", is_flag=True, help="Replace the output folder.")
def main(out: Path, cache: Path, seed: int, workers: int, scale: float, quick: bool, overwrite: bool) -> None:
    """Write the dataset folder OUT."""
    if out.exists():
        if not overwrite:
            raise click.ClickException(f"{out}: exists already; give another --out, or --overwrite to replace it")
        shutil.rmtree(out)
    bench = sources.benchmark_folder()
    corpora_there = all((bench / name).is_file() for name in ("mnist.npz", "fsdd.npz"))
    if not corpora_there:
        click.echo(
            f"{bench}: no mnist.npz and fsdd.npz; using scikit-learn's digits and espeak-ng's voices alone",
            err=True,
        )
    try:
        sources.require_espeak()
    except sources.SourceMissingError as error:
        raise click.ClickException(str(error)) from None
    sizes = QUICK_SIZES if quick else {part: {m: round(n * scale) for m, n in of.items()} for part, of in SIZES.items()}
    for index, part in enumerate(PARTS):
        folder = out / part
        folder.mkdir(parents=True)
        drawn: tuple[Glyphs, ...] = (sources.sklearn_digits(part),)
        if corpora_there:
            drawn = (sources.mnist(part, bench), *drawn)
        plan = plan_samples(
            drawn,
            [MNIST_SHARE, 1 - MNIST_SHARE][-len(drawn) :],
            sizes[part]["camera"],
            NOTHING_SHARE["camera"],
            (seed, index, 0),
            folder / "camera.npy",
        )
        fill(plan, (HEIGHT, WIDTH, 3), np.uint8, _make_frames, workers, f"{part:12s} camera")
        takes = 3 if part == "encoders" else 5
        click.echo(f"{part:12s} espeak-ng speaks ...")
        said = sources.espeak(part, cache, seed, 1 if quick else takes, 20 if quick else 1500, 3 if quick else None)
        spoken: tuple[Words, ...] = (
            (sources.fsdd(part, bench, 60 if quick else None), said) if corpora_there else (said,)
        )
        plan = plan_samples(
            spoken,
            [FSDD_SHARE, 1 - FSDD_SHARE][-len(spoken) :],
            sizes[part]["audio"],
            NOTHING_SHARE["audio"],
            (seed, index, 1),
            folder / "audio.npy",
        )
        fill(plan, (round(sources.RATE_HZ * speech.WINDOW_S),), np.int16, _make_windows, workers, f"{part:12s} audio")
    names = [of.corpus for of in (*drawn, *spoken)]
    meta = {
        "name": "av_digits",
        "labels": list(sources.LABELS),
        "description": "A handwritten digit on a card before a camera, and the spoken digit; -1 is nothing there.",
        "sources": [sources.SOURCES[name] for name in names],
        "modalities": [
            {"name": "camera", "kind": "image", "height": HEIGHT, "width": WIDTH}
            | {"sources": [sources.TITLES[of.corpus] for of in drawn]},
            {"name": "audio", "kind": "audio", "rate_hz": sources.RATE_HZ, "window_s": speech.WINDOW_S}
            | {"sources": [sources.TITLES[of.corpus] for of in spoken]},
        ],
        "parts": sizes,
        "seed": seed,
    }
    (out / "dataset.yaml").write_text(yaml.safe_dump(meta, sort_keys=False), encoding="utf-8")
    click.echo(f"{out}: {sum(sum(of.values()) for of in sizes.values())} samples")


if __name__ == "__main__":
    main()
