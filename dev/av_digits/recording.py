"""A recording in time: which digit when, and the camera and microphone streams of it, produced piece by piece.

Everything is a generator over seconds from the start of the recording, so an hour costs no more memory than a minute.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from . import scenes, speech
from .sources import LABELS, RATE_HZ

CHUNK_S = 0.1
SHOWN_S = (1.85, 2.2)
EMPTY_S = 2.0
SPEECH_RMS = 0.05


@dataclass(frozen=True)
class Span:
    """From start_s to stop_s `digit` is shown and said; -1 is an empty card and no word."""

    start_s: float
    stop_s: float
    digit: int

    @property
    def label(self) -> str:
        """The digit's name, empty for none."""
        return LABELS[self.digit] if self.digit >= 0 else ""


def schedule(seconds: float, seed: int, empty_every_s: float = 50.0) -> list[Span]:
    """Spans that cover [0, seconds): shuffled rounds of all ten digits, none twice in a row, and an empty span every
    `empty_every_s`.
    """
    rng = np.random.default_rng([seed, 0])
    spans: list[Span] = []
    now, deck, last = 0.0, [], -1
    empty_at = 0.5 * empty_every_s
    while now < seconds:
        if now >= empty_at:
            digit, lasts = -1, EMPTY_S
            empty_at += empty_every_s
        else:
            if not deck:
                deck = rng.permutation(10).tolist()
                if deck[-1] == last:
                    deck.reverse()
            digit = last = deck.pop()
            lasts = float(rng.uniform(*SHOWN_S))
        stop = round(now + lasts, 3)
        if seconds - stop < SHOWN_S[0]:
            stop = seconds if seconds - now <= 1.5 * SHOWN_S[1] else round(0.5 * (now + seconds), 3)
        spans.append(Span(now, stop, digit))
        now = stop
    return spans


def word_times(lasts_s: float, word_s: float, rng: np.random.Generator) -> np.ndarray:
    """When a word of word_s starts within a span of lasts_s: the first within 0.1 s, the last ends before the span
    does.
    """
    first = rng.uniform(0.01, 0.09)
    spare = lasts_s - first - word_s - rng.uniform(0.02, 0.1)
    closest = max(0.62, word_s + 0.06)
    most = int(spare // closest)
    fewest = min(int(np.ceil(spare / 1.0)), most)
    if most < 1:
        return np.array([first])
    gaps = int(rng.integers(fewest, most + 1))
    return first + min(spare / gaps, 1.0) * np.arange(gaps + 1)


def sound_chunks(
    spans: list[Span], say: Callable[[int, np.random.Generator], np.ndarray], seed: int, snr_db: float
) -> Iterator[np.ndarray]:
    """int16 (RATE_HZ * CHUNK_S,) each, without a gap, until the last span ends.

    say: (digit, rng) -> float32 word at RATE_HZ. One room for the whole recording; a word never sounds beyond its span.
    """
    rng = np.random.default_rng([seed, 1])
    acoustics = speech.make_acoustics(rng, telephone=0.0)
    # The noise is periodic by construction, so that it loops without a seam.
    loop = 30 * RATE_HZ
    bed = (
        speech.colored_noise(rng, loop, 1.0)
        + 0.3 * speech.colored_noise(rng, loop, 0.0)
        + 0.25 * speech.hum(rng, loop, 100.0)
    )
    bed *= np.float32(SPEECH_RMS * 10.0 ** (-snr_db / 20.0) / speech.rms(bed))
    size = round(RATE_HZ * CHUNK_S)
    rest, done = np.zeros(0, np.float32), 0
    for span in spans:
        begin, end = round(span.start_s * RATE_HZ), round(span.stop_s * RATE_HZ)
        sound = np.zeros(end - begin, np.float32)
        if span.digit >= 0:
            _add_words(sound, say(span.digit, rng), acoustics, rng)
        sound += bed.take(np.arange(begin, end), mode="wrap")
        rest = np.concatenate([rest, sound])
        while len(rest) >= size:
            yield np.clip(np.round(rest[:size] * 32767.0), -32768, 32767).astype(np.int16)
            rest, done = rest[size:], done + 1


def _add_words(sound: np.ndarray, word: np.ndarray, acoustics: speech.Acoustics, rng: np.random.Generator) -> None:
    """Add the repeated word to `sound`, in place; what reverberates past its end is faded out."""
    heard = speech.in_room(word, acoustics)
    heard *= np.float32(SPEECH_RMS * np.exp(rng.normal(0.0, 0.2)) / max(speech.rms(heard[: len(word)]), 1e-6))
    speech_only = np.zeros_like(sound)
    for at_s in word_times(len(sound) / RATE_HZ, len(word) / RATE_HZ, rng):
        at = round(at_s * RATE_HZ)
        stop = min(at + len(heard), len(sound))
        speech_only[at:stop] += np.float32(np.exp(rng.normal(0.0, 0.08))) * heard[: stop - at]
    fade = RATE_HZ // 100
    speech_only[-fade:] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)
    sound += speech_only


def camera_times(seconds: float, rate_hz: float, seed: int) -> Iterator[float]:
    """Stamps of the frames, s: a camera's period with jitter (3 ms standard deviation, now and then 15 ms), strictly
    rising.
    """
    rng = np.random.default_rng([seed, 2])
    last, index = -1.0, 0
    while (nominal := (index + 0.25) / rate_hz) < seconds:
        jitter = rng.normal(0.0, 0.003) + (rng.choice([-0.015, 0.015]) if rng.random() < 0.02 else 0.0)
        stamp = max(nominal + np.clip(jitter, -0.25 / rate_hz, 0.25 / rate_hz), last + 0.2 / rate_hz)
        yield float(stamp)
        last, index = stamp, index + 1


def frames(
    spans: list[Span],
    times: Iterator[float],
    draw: Callable[[int, np.random.Generator], np.ndarray],
    seed: int,
    size: tuple[int, int],
    variety: float,
) -> Iterator[tuple[float, np.ndarray]]:
    """(stamp_s, uint8 (height, width, 3) RGB) at each of `times`: one room, a card for each span, drifting slowly.

    draw: (digit, rng) -> uint8 (n, n), a handwritten digit.
    """
    width, height = size
    rng = np.random.default_rng([seed, 3])
    room = scenes.make_room(rng, width, height, variety)
    room = replace(room, blur=min(room.blur, 0.004), motion=(0.0, 0.0), noise=min(room.noise, 3.0))
    aspect = width / height
    at, span = -1, None
    for stamp in times:
        while span is None or (stamp >= span.stop_s and at + 1 < len(spans)):
            at += 1
            span = spans[at]
            glyph = scenes.glyph_ink(draw(span.digit, rng), rng, variety) if span.digit >= 0 else None
            card = scenes.make_card(glyph, rng, variety)
            pose = scenes.make_pose(card, rng, aspect, variety)
            sway, phase = rng.uniform(0.15, 0.6, 4), rng.uniform(0.0, 2 * np.pi, 4)
        swing = np.sin(2 * np.pi * sway * stamp + phase) * np.array([0.012, 0.012, 0.01, 0.02])
        moved = replace(
            pose,
            x=pose.x + swing[0],
            y=pose.y + swing[1],
            height=pose.height * (1 + swing[2]),
            angle=pose.angle + swing[3],
        )
        yield stamp, scenes.render(room, card, moved, rng)
