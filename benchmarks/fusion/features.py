"""Frozen features of every variant, computed once and cached under out/bench/cache."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from aecf_ros.fusion.mechanisms.mwam import frequency_ratio
from benchmarks.fusion import image_kinds, linked, scenes, sound_kinds
from benchmarks.fusion.encoders import LogMel, embed, image_encoder, sound_encoder, train_encoder
from benchmarks.fusion.sources import Digits, load_digits

VERSION = 1  # raise when a corruption, an encoder or a part changes: the cache is then made anew


@dataclass(frozen=True)
class Scale:
    """How much of everything. `FULL` is what is reported, `QUICK` what the tests run."""

    name: str
    encoder_images: int
    image_epochs: int
    sound_epochs: int
    fusion_images: int
    image_versions: int
    sound_versions: int
    calibration: int
    test: int


FULL = Scale("full", 40000, 3, 25, 15000, 2, 60, 5000, 8000)
QUICK = Scale("quick", 6000, 2, 8, 3000, 1, 10, 1500, 2000)


@dataclass(frozen=True)
class Pairs:
    """Rows that belong together: a sample each.

    image, sound: float32 [N, D]; label: int64 [N]; groups: int16 [N, 2], each modality's kind of corruption (-1: none);
    image_row, recording: int64 [N], which image and which recording (samples that share one are not independent).
    """

    image: np.ndarray
    sound: np.ndarray
    label: np.ndarray
    groups: np.ndarray
    recording: np.ndarray
    image_row: np.ndarray


@dataclass(frozen=True)
class Pool:
    """Images and sounds to be paired anew by label every epoch. Each has its own label, kind and recording."""

    image: np.ndarray
    image_label: np.ndarray
    image_kind: np.ndarray
    sound: np.ndarray
    sound_label: np.ndarray
    sound_kind: np.ndarray
    recording: np.ndarray
    image_row: np.ndarray

    def draw(self, rng: np.random.Generator) -> Pairs:
        """One sound of the same label for each image."""
        rows = np.empty(len(self.image), dtype=np.int64)
        for label in np.unique(self.image_label):
            mine = np.flatnonzero(self.image_label == label)
            rows[mine] = rng.choice(np.flatnonzero(self.sound_label == label), size=len(mine))
        groups = np.stack([self.image_kind, self.sound_kind[rows]], axis=1)
        return Pairs(self.image, self.sound[rows], self.image_label, groups, self.recording[rows], self.image_row)


class Features:
    """Builds and caches. `directory`: where; the raw data is read only when something is missing."""

    def __init__(self, directory: Path, scale: Scale):
        self.directory = directory / f"{scale.name}-v{VERSION}"
        self.scale = scale
        self._digits: Digits | None = None
        self._scenes: dict[str, dict[str, np.ndarray]] | None = None

    @property
    def digits(self) -> Digits:
        if self._digits is None:
            self._digits = load_digits()
        return self._digits

    def pool(self, variant: str) -> Pool | Pairs:
        """Training features of a variant: a Pool to pair by label, or fixed Pairs where pairing is the point."""
        arrays = self._cached(f"{variant}-fusion", lambda: self._part(variant, "fusion"))
        paired = "groups" in arrays
        image_row = np.arange(len(arrays["image"])) % self.scale.fusion_images  # versions lie end to end
        return Pairs(**arrays, image_row=image_row) if paired else Pool(**arrays, image_row=image_row)

    def pairs(self, variant: str, part: str) -> Pairs:
        """Fixed pairs of `calibration` or `test`; a variant may have other kinds: field+development, field+unseen."""
        arrays = self._cached(f"{variant}-{part}", lambda: self._part(variant, part))
        return Pairs(**arrays, image_row=np.arange(len(arrays["image"])))

    def _embed(self, encoder, inputs: np.ndarray) -> np.ndarray:
        return embed(encoder, inputs)

    def _part(self, variant: str, part: str) -> dict[str, np.ndarray]:
        if variant == "scenes":
            self._scenes = self._scenes or scenes.make_parts(4 * self.scale.image_epochs)
            return self._scenes[part]
        return self._fusion(variant) if part == "fusion" else self._pairs(variant, part)

    def frequency_ratios(self, variant: str) -> np.ndarray:
        """MWAM's metric of luma and of log-mel, as trained on: float32 [2], the means over 512 samples of the fusion
        part.
        """
        return self._cached(f"{variant}-frequency", lambda: {"ratios": self._frequency_ratios(variant)})["ratios"]

    def _cached(self, name: str, make) -> dict[str, np.ndarray]:
        path = self.directory / f"{name}.npz"
        if not path.is_file():
            arrays = make()
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path.with_suffix(".part.npz"), **arrays)
            path.with_suffix(".part.npz").rename(path)
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)

    # --- encoders -----------------------------------------------------------------------------------------------------

    def _encoder(self, name: str, encoder, make_batches, epochs: int):
        def train():
            train_encoder(encoder, make_batches, 10, epochs, seed=0)
            return {key: value.numpy() for key, value in encoder.state_dict().items()}

        encoder.load_state_dict({k: torch.from_numpy(v) for k, v in self._cached(f"encoder-{name}", train).items()})
        return encoder.eval()

    def image_encoder(self, variant: str):
        variant = "hard" if variant == "xhard" else variant  # the same images
        rng = np.random.default_rng(1)

        def batches():
            rows = self.digits.image_rows["encoders"][: self.scale.encoder_images]
            for block in np.array_split(rng.permutation(rows), len(rows) // 128):
                images = self.degrade_images(variant, block)
                yield torch.from_numpy(images[:, None]), torch.from_numpy(self.digits.image_label[block])

        return self._encoder(f"image-{variant}", image_encoder(), batches, self.scale.image_epochs)

    def sound_encoder(self, variant: str, without_speaker: int | None = None):
        rng = np.random.default_rng(2)
        name = variant if without_speaker is None else f"{variant}-without-{without_speaker}"

        def batches():
            rows = self.digits.sound_rows["encoders"]
            rows = rows[self.digits.speaker[rows] != without_speaker]
            for block in np.array_split(rng.permutation(rows), len(rows) // 64):
                sounds = self.degrade_sounds(variant, shifted(self.digits.sounds[block], rng), rng)
                yield torch.from_numpy(sounds), torch.from_numpy(self.digits.sound_label[block])

        epochs = (
            self.scale.sound_epochs if without_speaker is None else self.scale.sound_epochs // 2
        )  # five of them to train
        return self._encoder(f"sound-{name}", sound_encoder(), batches, epochs)

    def degrade_images(self, variant: str, rows: np.ndarray) -> np.ndarray:
        """float32 [n, 28, 28] in [0, 1]: as they are, or (hard, xhard) the top components with 25 % of the energy."""
        images = self.digits.images[rows].astype(np.float32) / 255.0
        if variant == "clean":
            return images
        basis = self._cached("components", self._components)
        flat = images.reshape(len(rows), -1) - basis["mean"]
        return (flat @ basis["components"].T @ basis["components"] + basis["mean"]).reshape(images.shape)

    def degrade_sounds(self, variant: str, sounds: np.ndarray, rng) -> np.ndarray:
        """float32 [n, T]: as they are, or in white, pink or babble noise at the variant's signal-to-noise ratio."""
        if variant == "clean":
            return sounds
        low_db, high_db = {"hard": (0.0, 10.0), "xhard": (-15.0, -5.0)}[variant]
        return sound_kinds.mixed_noise(sounds, low_db, high_db, rng)

    def _components(self):
        flat = self.digits.images[self.digits.image_rows["encoders"]].reshape(-1, 784).astype(np.float32) / 255.0
        mean = flat.mean(0)
        values, vectors = np.linalg.eigh(np.cov(flat - mean, rowvar=False))
        energy = np.cumsum(values[::-1]) / values.sum()
        keep = int(np.searchsorted(energy, 0.25)) + 1
        return {"mean": mean, "components": vectors[:, ::-1][:, :keep].T.astype(np.float32)}

    def _frequency_ratios(self, variant: str) -> np.ndarray:
        rng = np.random.default_rng(6)
        image_rows, sound_rows = (
            rng.choice(rows["fusion"], 512) for rows in (self.digits.image_rows, self.digits.sound_rows)
        )
        degradation, _ = _split(variant)
        field = degradation.startswith("field")
        images = self.degrade_images("clean" if field else degradation, image_rows)
        sounds = self.digits.sounds[sound_rows]
        if field:
            kind, severity = rng.integers(0, 5, (2, 512)), rng.integers(0, 6, (2, 512))
            images = image_kinds.apply(images, image_kinds.SEEN, kind[0], severity[0], rng)
            sounds = sound_kinds.apply(sounds, sound_kinds.SEEN, kind[1], severity[1], rng)
        else:
            sounds = self.degrade_sounds(degradation, sounds, rng)
        planes = (torch.from_numpy(images), LogMel()(torch.from_numpy(sounds)).squeeze(1))
        return np.array([frequency_ratio(p).mean() for p in planes], dtype=np.float32)

    # --- parts --------------------------------------------------------------------------------------------------------

    def _fusion(self, variant: str) -> dict[str, np.ndarray]:
        digits, scale = self.digits, self.scale
        rng = np.random.default_rng(3)
        image_rows = digits.image_rows["fusion"][: scale.fusion_images]
        sound_rows = digits.sound_rows["fusion"]
        if variant == "field-linked":
            image_rows = np.tile(image_rows, scale.image_versions)
            drawn = _by_label(digits.image_label[image_rows], sound_rows, digits.sound_label, rng)
            return self._linked(image_rows, drawn, rng)
        if variant == "field":
            image_rows = np.tile(image_rows, scale.image_versions)
            sound_rows = np.tile(sound_rows, scale.sound_versions)
            image, image_kind = self._field_images(image_rows, image_kinds.SEEN, rng)
            sound, sound_kind = self._field_sounds(shifted(digits.sounds[sound_rows], rng), sound_kinds.SEEN, rng)
        else:
            degradation, speaker = _split(variant)
            sound_rows = np.tile(sound_rows[digits.speaker[sound_rows] != speaker], scale.sound_versions * 2 // 3)
            image = self._embed(self.image_encoder(degradation), self.degrade_images(degradation, image_rows)[:, None])
            sounds = self.degrade_sounds(degradation, shifted(digits.sounds[sound_rows], rng), rng)
            sound = self._embed(self.sound_encoder(degradation, speaker), sounds)
            image_kind, sound_kind = np.full(len(image), -1, np.int16), np.full(len(sound), -1, np.int16)
        return {
            "image": image,
            "image_label": digits.image_label[image_rows],
            "image_kind": image_kind,
            "sound": sound,
            "sound_label": digits.sound_label[sound_rows],
            "sound_kind": sound_kind,
            "recording": sound_rows,
        }

    def _pairs(self, variant: str, part: str) -> dict[str, np.ndarray]:
        digits = self.digits
        count = {"calibration": self.scale.calibration, "test": self.scale.test}[part]
        rng = np.random.default_rng({"calibration": 4, "test": 5}[part])
        image_rows, sound_rows = digits.image_rows[part], digits.pairs(part)
        degradation, speaker = _split(variant)
        if speaker is not None:
            image_rows, sound_rows = self._speaker_pairs(part, speaker, image_rows, sound_rows, rng)
        image_rows, sound_rows = image_rows[:count], sound_rows[:count]
        if variant == "field-linked":
            return self._linked(image_rows, sound_rows, rng)
        groups = np.full((len(image_rows), 2), -1, np.int16)
        if variant.startswith("field"):
            of_images, of_sounds = _kinds(variant)
            image, groups[:, 0] = self._field_images(image_rows, of_images, rng)
            sound, groups[:, 1] = self._field_sounds(digits.sounds[sound_rows], of_sounds, rng)
        else:
            image = self._embed(self.image_encoder(degradation), self.degrade_images(degradation, image_rows)[:, None])
            sounds = self.degrade_sounds(degradation, digits.sounds[sound_rows], rng)
            sound = self._embed(self.sound_encoder(degradation, speaker), sounds)
        return {
            "image": image,
            "sound": sound,
            "label": digits.image_label[image_rows],
            "groups": groups,
            "recording": sound_rows,
        }

    def _speaker_pairs(self, part: str, speaker: int, image_rows, sound_rows, rng):
        """Calibration: the pairs of the other speakers. Test: a fifth of the images, with any recording of this
        speaker.
        """
        if part == "calibration":
            keep = self.digits.speaker[sound_rows] != speaker
            return image_rows[keep], sound_rows[keep]
        image_rows = image_rows[speaker::5]
        theirs = np.flatnonzero(self.digits.speaker == speaker)
        return image_rows, _by_label(self.digits.image_label[image_rows], theirs, self.digits.sound_label, rng)

    def _field_images(self, rows: np.ndarray, kinds, rng) -> tuple[np.ndarray, np.ndarray]:
        kind, severity = rng.integers(0, len(kinds), len(rows)), rng.integers(0, 6, len(rows))
        images = image_kinds.apply(self.degrade_images("clean", rows), kinds, kind, severity, rng)
        return self._embed(self.image_encoder("clean"), images[:, None]), np.where(severity > 0, kind, -1).astype(
            np.int16
        )

    def _field_sounds(self, sounds: np.ndarray, kinds, rng) -> tuple[np.ndarray, np.ndarray]:
        kind, severity = rng.integers(0, len(kinds), len(sounds)), rng.integers(0, 6, len(sounds))
        sounds = sound_kinds.apply(sounds, kinds, kind, severity, rng)
        return self._embed(self.sound_encoder("clean"), sounds), np.where(severity > 0, kind, -1).astype(np.int16)

    def _linked(self, image_rows: np.ndarray, sound_rows: np.ndarray, rng) -> dict[str, np.ndarray]:
        label = self.digits.image_label[image_rows]
        scene = linked.draw_scenes(len(label), rng)
        image_rows = linked.replay_another(image_rows, scene.stale_image, rng)
        sound_rows = linked.replay_another(sound_rows, scene.stale_sound, rng)
        images = linked.corrupt_images(self.degrade_images("clean", image_rows), scene, rng)
        sounds = linked.corrupt_sounds(self.digits.sounds[sound_rows], scene, rng)
        return {
            "image": self._embed(self.image_encoder("clean"), images[:, None]),
            "sound": self._embed(self.sound_encoder("clean"), sounds),
            "label": label,
            "groups": np.stack([scene.image_kind, scene.sound_kind], axis=1).astype(np.int16),
            "recording": sound_rows,
        }


def shifted(sounds: np.ndarray, rng: np.random.Generator, reach: int = 400) -> np.ndarray:
    """Each sound rolled by up to `reach` samples (50 ms) either way: training only."""
    shift = rng.integers(-reach, reach + 1, size=len(sounds))
    return np.stack([np.roll(sound, s) for sound, s in zip(sounds, shift, strict=True)])


def _split(variant: str) -> tuple[str, int | None]:
    """ "speaker-out-3" -> ("hard", 3); any other variant -> (itself, None)."""
    return ("hard", int(variant.rsplit("-", 1)[1])) if variant.startswith("speaker-out") else (variant, None)


def _kinds(variant: str):
    name = {"field": "SEEN", "field-development": "DEVELOPMENT", "field-unseen": "UNSEEN"}[variant]
    return getattr(image_kinds, name), getattr(sound_kinds, name)


def _by_label(label: np.ndarray, rows: np.ndarray, row_label: np.ndarray, rng) -> np.ndarray:
    """For each label one of `rows` that has it: int64 [len(label)]."""
    out = np.empty(len(label), dtype=np.int64)
    for value in np.unique(label):
        out[label == value] = rng.choice(rows[row_label[rows] == value], size=int((label == value).sum()))
    return out
