"""`field-linked`: scenes in which one cause reaches both sensors, so that the modalities are no longer independent.

calm (40 %)       each modality on its own draws a seen kind at severity 0 to 2
motion (25 %)     one severity 1-5: the image is blurred by motion and the microphone rumbles (pink noise)
power dip (25 %)  one severity 1-5: low light and dropouts together; and with probability 0.12 x severity one of the two
sensors
                  replays an older sample instead, clean, of a random label: only the other sensor shows that there was
                  a dip
crowd (10 %)      one severity 1-5: occlusion and babble
"""

from dataclasses import dataclass

import numpy as np

from benchmarks.fusion import image_kinds, sound_kinds

IMAGE_KINDS, SOUND_KINDS = list(image_kinds.SEEN), list(sound_kinds.SEEN)
EVENTS = (("motion", "pink"), ("low_light", "dropouts"), ("occlusion", "babble"))


@dataclass(frozen=True)
class Scenes:
    """One row a sample. Kinds index the seen kinds, -1 is none; severities 0..5; stale: replays another sample."""

    image_kind: np.ndarray
    image_severity: np.ndarray
    stale_image: np.ndarray
    sound_kind: np.ndarray
    sound_severity: np.ndarray
    stale_sound: np.ndarray


def draw_scenes(count: int, rng: np.random.Generator) -> Scenes:
    """`count` scenes by the shares above."""
    event = rng.choice(4, size=count, p=[0.4, 0.25, 0.25, 0.1]) - 1
    shared = rng.integers(1, 6, count)
    own = rng.integers(0, 3, (2, count))
    calm = event < 0
    dip_fails = (event == 1) & (rng.random(count) < 0.12 * shared)
    camera = rng.random(count) < 0.5
    stale_image, stale_sound = dip_fails & camera, dip_fails & ~camera

    def of(names, position, severity, stale):
        kind = np.where(calm, rng.integers(0, len(names), count), 0)
        for index, pair in enumerate(EVENTS):
            kind[event == index] = names.index(pair[position])
        severity = np.where(stale, 0, np.where(calm, severity, shared))
        return np.where(severity > 0, kind, -1), severity

    image_kind, image_severity = of(IMAGE_KINDS, 0, own[0], stale_image)
    sound_kind, sound_severity = of(SOUND_KINDS, 1, own[1], stale_sound)
    return Scenes(image_kind, image_severity, stale_image, sound_kind, sound_severity, stale_sound)


def replay_another(rows: np.ndarray, stale: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Where stale, the row of another sample of the same part instead."""
    return np.where(stale, rng.permutation(rows), rows)


def corrupt_images(images: np.ndarray, scenes: Scenes, rng) -> np.ndarray:
    """float32 [n, 28, 28] in [0, 1]."""
    return image_kinds.apply(images, image_kinds.SEEN, scenes.image_kind, scenes.image_severity, rng)


def corrupt_sounds(sounds: np.ndarray, scenes: Scenes, rng) -> np.ndarray:
    """float32 [n, T]."""
    return sound_kinds.apply(sounds, sound_kinds.SEEN, scenes.sound_kind, scenes.sound_severity, rng)
