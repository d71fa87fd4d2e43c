"""Handwriting and voices, and the strict split of both: no image, no recording and no voice is in two parts.

Corpora: MNIST and the Free Spoken Digit Dataset (FSDD) from the benchmark data folder, scikit-learn's handwritten
digits, and words spoken by espeak-ng. The parts are those of the audio-visual digits benchmark (`encoders`, `fusion`,
`calibration`, `test`) and `demo`, which only recordings use.
"""

import hashlib
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
from sklearn.datasets import load_digits

from aecf_ros.training.data.npy_dataset import PARTS as BENCHMARK_PARTS
from aecf_ros.training.data.protocols import DIGITS as LABELS
from aecf_ros.training.data.protocols import PROTOCOLS, RATE_HZ, image_rows, recording_rows, trim

PARTS = (*BENCHMARK_PARTS, "demo")
ESPEAK_RATE_HZ = 22050

SOURCES = {
    **dict(zip(("mnist", "fsdd"), PROTOCOLS["digits"].sources, strict=True)),
    "sklearn": "scikit-learn load_digits: Optical Recognition of Handwritten Digits, UCI (Alpaydin, Kaynak), CC BY 4.0",
    "espeak": "words spoken by espeak-ng 1.51 (the program is GPL-3.0-or-later; its sound output is not covered by it)",
}

TITLES = {
    "mnist": "MNIST",
    "fsdd": "Free Spoken Digit Dataset",
    "sklearn": "scikit-learn digits",
    "espeak": "espeak-ng",
}

SKLEARN_SEED = 20
SKLEARN_SHARE = {"encoders": 0.52, "fusion": 0.12, "calibration": 0.11, "test": 0.12, "demo": 0.13}

DEMO_ACCENT = "en-gb-x-rp"
ACCENTS = ("en-gb", "en-us", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029", "en-us-nyc")

# Variants of one author are often one voice with a knob turned, so whole families stay together. Left out as
# unintelligible or not voiced at all: whisper, whisperf, caleb, Demonic, robosoft, robosoft2, robosoft6, robosoft8,
# anikaRobot, kaukovalta, iven.
VARIANTS = {
    "encoders": (
        "Alex", "Mike", "f3", "m2", "m4", "m8", "klatt", "klatt2", "klatt3", "klatt4", "klatt5", "klatt6", "adam",
        "benjamin", "david", "announcer", "UniRobot", "anika", "Diogo", "Henrique", "Hugo", "michel", "miguel", "Marco",
        "john", "norbert", "pedro", "Mr serious", "Tweaky", "fast", "grandma", "grandpa", "gustave", "marcelo", "paul",
        "pablo", "sandro", "travis", "zac", "boris", "croak", "max", "RicishayMax", "RicishayMax2", "robosoft3",
        "robosoft4", "robosoft5", "robosoft7", "Storm",
    ),
    "fusion": ("f5", "m6", "Andrea", "antonio", "quincy", "robert", "rob"),
    "calibration": (
        "f1", "m1", "m7", "Alicia", "Mario", "Michael", "Jacky", "iven2", "iven3", "iven4", "edward", "edward2", "ed",
    ),
    "test": ("f4", "m5", "linda", "belinda", "aunty", "Gene", "Gene2", "shelby", "Denis", "victor"),
    "demo": ("f2", "m3", "Annie", "Andy", "AnxiousAndy", "Lee", "steph", "steph2", "steph3", "Nguyen"),
}  # fmt: skip

# Said by no one who means a digit, and rhyming with none.
OTHER_WORDS = {
    "encoders": (
        "hello", "robot", "table", "window", "garden", "yellow", "purple", "monday", "camera", "battery", "please",
        "stop", "left", "forward", "kitchen", "music", "water", "apple", "banana", "orange", "paper", "pencil",
        "doctor", "elephant", "umbrella", "computer", "morning", "thank you", "goodbye", "charge", "open", "close",
        "hand", "house", "dog", "bird", "school", "chair", "plug", "lamp", "book", "and", "what", "maybe", "because",
        "backward", "faster", "slower", "again", "people", "ocean",
    ),
    "fusion": ("teacher", "summer", "carpet", "lemon", "pull", "grab", "mountain", "together", "ball", "soup"),
    "calibration": ("player", "butter", "jacket", "melon", "push", "drop", "island", "whatever", "box", "bread"),
    "test": ("singer", "winter", "curtain", "cherry", "lift", "turn", "forest", "however", "cup", "cheese"),
    "demo": ("driver", "autumn", "blanket", "grape", "hold", "look", "desert", "although", "bag", "milk"),
}  # fmt: skip


# Punctuation makes espeak-ng say a word falling, rising or lively.
TONES = ("", "", ".", "!", "?", ",")


class SourceMissingError(Exception):
    """Something the data are made from is not on this machine; the message says what to do."""


def benchmark_folder() -> Path:
    """Where `mnist.npz` and `fsdd.npz` are: the environment variable AECF_BENCH_DATA, else `../shared/data` beside the
    repository.
    """
    named = os.environ.get("AECF_BENCH_DATA")
    return Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "data"


def require_espeak() -> None:
    """Raise SourceMissingError unless espeak-ng can be run."""
    if shutil.which("espeak-ng") is None:
        raise SourceMissingError("espeak-ng: no such program; install Debian's package espeak-ng")


@dataclass(frozen=True)
class Glyphs:
    """Handwritten digits of one corpus in one part.

    images: uint8 (n, h, w), 255 is full ink. labels: uint8 (n,). rows: int64 (n,), row numbers in the corpus.
    """

    corpus: str
    images: np.ndarray
    labels: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True)
class Words:
    """Spoken words of one corpus in one part, trimmed, 16 kHz mono, end to end.

    samples: int16 (total,); word i is `samples[offsets[i]:offsets[i + 1]]`. labels: int16 (n,), -1 for a word that is
    no digit.
    speakers: int32 (n,), numbers the voices within the corpus.
    """

    corpus: str
    samples: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    speakers: np.ndarray

    def word(self, index: int) -> np.ndarray:
        """Word `index` as float32 (n,) in [-1, 1]."""
        return self.samples[self.offsets[index] : self.offsets[index + 1]].astype(np.float32) / 32768.0


@dataclass(frozen=True)
class Voice:
    """An espeak-ng voice: an accent (`language`) and a variant of the speaker."""

    language: str
    variant: str


def sklearn_rows(part: str, label: np.ndarray) -> np.ndarray:
    """Rows of scikit-learn's digits in a part: int64, ascending. A seeded split within every digit."""
    rng = np.random.default_rng(SKLEARN_SEED)
    edges = np.cumsum([0.0, *SKLEARN_SHARE.values()])
    at = list(SKLEARN_SHARE).index(part)
    rows = []
    for digit in range(10):
        of_digit = rng.permutation(np.flatnonzero(label == digit))
        low, high = np.round(edges[at : at + 2] * len(of_digit)).astype(int)
        rows.extend(of_digit[low:high])
    return np.sort(np.array(rows))


def mnist(part: str, folder: Path) -> Glyphs:
    """MNIST's share of a part, 28x28."""
    with np.load(folder / "mnist.npz", allow_pickle=False) as archive:
        rows = image_rows(part)
        return Glyphs("mnist", archive["images"][rows], archive["labels"][rows], rows)


def sklearn_digits(part: str) -> Glyphs:
    """scikit-learn's share of a part, 8x8, its 17 grey levels spread over 0..255."""
    digits = load_digits()
    rows = sklearn_rows(part, digits.target)
    images = np.round(digits.images[rows] * (255.0 / 16.0)).astype(np.uint8)
    return Glyphs("sklearn", images, digits.target[rows].astype(np.uint8), rows)


def packed(corpus: str, words: list[np.ndarray], labels: list[int], speakers: list[int]) -> Words:
    """Words from a list of float32 arrays, each scaled to a peak of 0.9."""
    whole = [
        np.round(w * (0.9 * 32767.0 / max(float(np.abs(w).max(initial=0.0)), 1e-9))).astype(np.int16) for w in words
    ]
    offsets = np.concatenate([[0], np.cumsum([len(w) for w in whole])]).astype(np.int64)
    samples = np.concatenate(whole) if whole else np.zeros(0, np.int16)
    return Words(corpus, samples, offsets, np.array(labels, np.int16), np.array(speakers, np.int32))


def fsdd(part: str, folder: Path, at_most: int | None = None) -> Words:
    """FSDD's share of a part, resampled from 8 to 16 kHz. at_most: spread over the share, for quick runs."""
    with np.load(folder / "fsdd.npz", allow_pickle=False) as archive:
        samples, offsets = archive["samples"], archive["offsets"]
        rows = recording_rows(part, archive["label"], archive["speaker"], archive["take"])
        if at_most is not None and len(rows) > at_most:
            rows = rows[np.linspace(0, len(rows) - 1, at_most).astype(int)]
        labels, speakers = archive["label"][rows], archive["speaker"][rows]
    words = [
        trim(soxr.resample(samples[offsets[row] : offsets[row + 1]].astype(np.float32) / 32768.0, 8000, RATE_HZ))
        for row in rows
    ]
    return packed("fsdd", words, [int(d) for d in labels], [int(s) for s in speakers])


def voices(part: str) -> list[Voice]:
    """The espeak-ng voices of a part. The accent DEMO_ACCENT is heard in `demo` alone, where every second voice speaks
    it.
    """
    if part == "demo":
        return [Voice(accent, variant) for variant in VARIANTS[part] for accent in ACCENTS] + [
            Voice(DEMO_ACCENT, variant) for variant in VARIANTS[part] for _ in ACCENTS
        ]
    return [Voice(accent, variant) for variant in VARIANTS[part] for accent in ACCENTS]


def speak(voice: Voice, text: str, pitch: int, speed_wpm: int) -> np.ndarray:
    """`text` by espeak-ng: float32 (n,), mono, 16 kHz, trimmed. pitch: 0..99. SourceMissingError where the voice is
    unknown or mute.
    """
    done = subprocess.run(
        [
            "espeak-ng",
            "-v",
            f"{voice.language}+{voice.variant}",
            "-p",
            str(pitch),
            "-s",
            str(speed_wpm),
            "--stdout",
            text,
        ],
        capture_output=True,
        check=False,
    )
    sound = np.frombuffer(done.stdout[44 : len(done.stdout) // 2 * 2], dtype="<i2").astype(np.float32) / 32768.0
    word = trim(soxr.resample(sound, ESPEAK_RATE_HZ, RATE_HZ))
    if len(word) < RATE_HZ // 20:
        said = done.stderr.decode(errors="replace").strip() or "nothing on stderr"
        raise SourceMissingError(
            f"espeak-ng said nothing for {text!r} with {voice} ({said}); install espeak-ng 1.51 with its voice data"
        )
    return word


def espeak(
    part: str, cache: Path, seed: int, digit_takes: int, other_words: int, max_voices: int | None = None
) -> Words:
    """Digits by every voice of a part and `other_words` words that are none, at seeded pitch and speed; kept as one
    .npz in `cache`.

    digit_takes: how often each voice says each digit, every time at another pitch and speed. max_voices: a seeded
    choice of voices.
    """
    require_espeak()
    rng = np.random.default_rng([seed, 77, PARTS.index(part)])
    chosen = voices(part)
    if max_voices is not None:
        chosen = [chosen[i] for i in rng.permutation(len(chosen))[:max_voices]]
    jobs = [(v, digit) for v in range(len(chosen)) for digit in range(10) for _ in range(digit_takes)]
    jobs += [(int(rng.integers(len(chosen))), -1) for _ in range(other_words)]
    words_said = [LABELS[digit] if digit >= 0 else str(rng.choice(OTHER_WORDS[part])) for _, digit in jobs]
    order = [(v, digit, word + str(rng.choice(TONES))) for (v, digit), word in zip(jobs, words_said, strict=True)]
    pitch = rng.integers(15, 85, len(order))
    speed_wpm = rng.integers(110, 225, len(order))
    key = hashlib.sha256(repr((chosen, order, pitch.tolist(), speed_wpm.tolist())).encode()).hexdigest()[:16]
    file = cache / f"espeak_{part}_{key}.npz"
    if file.exists():
        with np.load(file, allow_pickle=False) as archive:
            return Words("espeak", **{name: archive[name] for name in ("samples", "offsets", "labels", "speakers")})
    with ThreadPoolExecutor(max_workers=2) as pool:
        spoken = list(
            pool.map(
                speak,
                [chosen[v] for v, _, _ in order],
                [text for _, _, text in order],
                pitch.tolist(),
                speed_wpm.tolist(),
            )
        )
    words = packed("espeak", spoken, [digit for _, digit, _ in order], [v for v, _, _ in order])
    cache.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}.npz")
    np.savez(partial, samples=words.samples, offsets=words.offsets, labels=words.labels, speakers=words.speakers)
    partial.replace(file)
    return words
