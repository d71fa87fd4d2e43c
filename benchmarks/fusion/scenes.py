"""Natural scenes: four classes of CIFAR-10 images with ESC-10 sounds, paired by class. Small and real.

Images: of the 12,000 training ones 8,000 train the encoder, 3,000 the heads, 1,000 calibrate; 2,000 test. Sounds: folds
1-2 train (64 clips), 3 calibrates, 4 tests; every clip is cut into 1 s windows that hold sound. 64 clips cannot train
an encoder that would still be honest
on them, so the sound embedding is fixed: mean and deviation over time of 32 log-mel bands.
"""

import cv2
import numpy as np
import torch

from aecf_ros.training.data.protocols import FOLDS, RATE_HZ, scene_rows, windows
from benchmarks.fusion.encoders import EMBEDDING, color_encoder, embed, mel_filters, train_encoder
from benchmarks.fusion.sources import PARTS, data_directory


def load_images() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Images float32 [n, 3, 32, 32] in [0, 1] and labels int64 [n], by part."""
    with np.load(data_directory() / "scenes_image.npz", allow_pickle=False) as archive:
        jpeg, offsets, label, split = (archive[k] for k in ("jpeg", "offsets", "labels", "split"))
    images = np.stack(
        [cv2.imdecode(jpeg[a:b], cv2.IMREAD_COLOR_RGB) for a, b in zip(offsets[:-1], offsets[1:], strict=True)]
    )
    images = images.transpose(0, 3, 1, 2).astype(np.float32) / 255.0
    rows = {part: scene_rows(part, split) for part in PARTS}
    return {p: images[r] for p, r in rows.items()}, {p: label[r].astype(np.int64) for p, r in rows.items()}


def load_sounds() -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(embedding [n, EMBEDDING], label [n], clip [n]) of every window, by part."""
    with np.load(data_directory() / "scenes_sound.npz", allow_pickle=False) as archive:
        samples, offsets, label, fold = (archive[k] for k in ("samples", "offsets", "label", "fold"))
    out = {}
    for part, folds in FOLDS.items():
        rows = [
            (w.astype(np.float32) / 32768.0, label[c], c)
            for c in np.flatnonzero(np.isin(fold, folds))
            for w in windows(samples[offsets[c] : offsets[c + 1]])
        ]
        embedding = np.stack([sound_embedding(w) for w, _, _ in rows])
        out[part] = (embedding, *(np.array(column, dtype=np.int64) for column in list(zip(*rows, strict=True))[1:]))
    return out


def sound_embedding(sound: np.ndarray) -> np.ndarray:
    """Mean and deviation over frames of log-mel bands: float32 [EMBEDDING]."""
    frames = np.lib.stride_tricks.sliding_window_view(sound, 512)[::256] * np.hanning(512).astype(np.float32)
    power = np.abs(np.fft.rfft(frames)) ** 2
    level = np.log(power @ mel_filters(EMBEDDING // 2, 512, RATE_HZ).T + 1e-6)
    return np.concatenate([level.mean(0), level.std(0)]).astype(np.float32)


def make_parts(epochs: int) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of a Pool (fusion) and of two Pairs (calibration, test)."""
    images, labels = load_images()
    rng = np.random.default_rng(21)

    def batches():
        order = rng.permutation(len(images["encoders"]))
        for block in np.array_split(order, len(order) // 128):
            flipped = images["encoders"][block][..., :: rng.choice([-1, 1])].copy()
            yield torch.from_numpy(flipped), torch.from_numpy(labels["encoders"][block])

    encoder = train_encoder(color_encoder(), batches, 4, epochs, seed=0)
    sounds, out = load_sounds(), {}
    for part, (sound, sound_label, clip) in sounds.items():
        image, label = embed(encoder, images[part]), labels[part]
        if part == "fusion":
            none = (np.full(len(image), -1, np.int16), np.full(len(sound), -1, np.int16))
            out[part] = {
                "image": image,
                "image_label": label,
                "image_kind": none[0],
                "sound": sound,
                "sound_label": sound_label,
                "sound_kind": none[1],
                "recording": clip,
            }
            continue
        chosen = np.array([rng.choice(np.flatnonzero(sound_label == y)) for y in label])
        groups = np.full((len(label), 2), -1, np.int16)
        out[part] = {
            "image": image,
            "sound": sound[chosen],
            "label": label,
            "groups": groups,
            "recording": clip[chosen],
        }
    return out
