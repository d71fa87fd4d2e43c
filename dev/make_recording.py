"""Make a recording of digits shown to a camera and said to a microphone: one MCAP file, as `ros2 bag record` would
write it.

Everything in it, handwriting and voices, is held out: no part of the training data has seen or heard it. An hour
streams in flat memory:

    python dev/make_recording.py --seconds 3600 --seed 7 --out out/long.mcap
"""

import heapq
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from av_digits import recording, scenes, sources
from av_digits.recording import CHUNK_S
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

START_NS = 1_768_471_200 * 10**9  # 2026-01-15 10:00:00 UTC
INTERFACES = Path(__file__).resolve().parent / "interfaces"
LONGEST_WORD_S = 0.68

Entry = tuple[int, int, str, Any]  # log time in ns, order of topics within one instant, topic, message

TOPICS = {
    "/camera/image": "sensor_msgs/msg/CompressedImage",
    "/audio": "audio_common_msgs/msg/AudioDataStamped",
    "/audio_info": "audio_common_msgs/msg/AudioInfo",
    "/label": "std_msgs/msg/String",
}
LATCHED = ("/audio_info", "/label")


def typestore() -> Typestore:
    """ROS 2 Jazzy's message types and those of dev/interfaces/audio_common_msgs."""
    store = get_typestore(Stores.ROS2_JAZZY)
    for file in sorted((INTERFACES / "audio_common_msgs" / "msg").glob("*.msg")):
        store.register(get_types_from_msg(file.read_text(encoding="utf-8"), f"audio_common_msgs/msg/{file.stem}"))
    return store


def qos(latched: bool) -> Qos:
    """Reliable; a latched topic keeps its last message for late subscribers."""
    forever = QosTime(9223372036, 854775807)
    durability = QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE
    return Qos(
        QosHistory.KEEP_LAST,
        1 if latched else 10,
        QosReliability.RELIABLE,
        durability,
        forever,
        forever,
        QosLiveliness.AUTOMATIC,
        forever,
        False,
    )


def digit_drawer(source: str) -> Callable[[int, np.random.Generator], np.ndarray]:
    """(digit, rng) -> uint8 (n, n) from `sklearn-demo` or `mnist-test`."""
    glyphs = (
        sources.sklearn_digits("demo")
        if source == "sklearn-demo"
        else sources.mnist("test", sources.benchmark_folder())
    )
    of = [np.flatnonzero(glyphs.labels == digit) for digit in range(10)]
    return lambda digit, rng: glyphs.images[rng.choice(of[digit])]


def word_sayer(source: str) -> Callable[[int, np.random.Generator], np.ndarray]:
    """(digit, rng) -> float32 word at 16 kHz from `espeak-demo` or `fsdd-test`, at most LONGEST_WORD_S long."""
    longest = round(LONGEST_WORD_S * sources.RATE_HZ)
    if source == "fsdd-test":
        words = sources.fsdd("test", sources.benchmark_folder())
        short = np.diff(words.offsets) <= longest
        of = [np.flatnonzero((words.labels == digit) & short) for digit in range(10)]
        return lambda digit, rng: words.word(int(rng.choice(of[digit])))
    sources.require_espeak()
    voices = sources.voices("demo")

    def say(digit: int, rng: np.random.Generator) -> np.ndarray:
        voice, pitch, speed_wpm = (
            voices[rng.integers(len(voices))],
            int(rng.integers(25, 75)),
            int(rng.integers(140, 190)),
        )
        while len(word := sources.speak(voice, sources.LABELS[digit], pitch, speed_wpm)) > longest:
            speed_wpm += 20
        return word

    return say


class Messages:
    """The streams of one recording as (log time, order, topic, message), each in the order of log time."""

    def __init__(self, store: Typestore, seed: int) -> None:
        self._types = store.types
        self._seed = seed

    def _new(self, msgtype: str, *fields: Any) -> Any:
        return self._types[msgtype](*fields)

    def _header(self, stamp_ns: int, frame_id: str) -> Any:
        stamp = self._new("builtin_interfaces/msg/Time", stamp_ns // 10**9, stamp_ns % 10**9)
        return self._new("std_msgs/msg/Header", stamp, frame_id)

    def labels(self, spans: list[recording.Span]) -> Iterator[Entry]:
        """The label at the instant of each change and at every full second."""
        for span in spans:
            ticks = {span.start_s} | {float(s) for s in range(int(np.ceil(span.start_s)), int(np.ceil(span.stop_s)))}
            for tick_s in sorted(ticks):
                yield START_NS + round(tick_s * 1e9), 0, "/label", self._new("std_msgs/msg/String", span.label)

    def audio_info(self) -> Iterator[Entry]:
        """What the audio is, once, at the start."""
        rate_hz = sources.RATE_HZ
        yield (
            START_NS,
            1,
            "/audio_info",
            self._new("audio_common_msgs/msg/AudioInfo", 1, rate_hz, "S16LE", 16 * rate_hz, "wave"),
        )

    def audio(self, chunks: Iterator[np.ndarray]) -> Iterator[Entry]:
        """Chunks, stamped with their first sample, logged a few ms after their last."""
        rng = np.random.default_rng([self._seed, 4])
        for index, chunk in enumerate(chunks):
            stamp_ns = START_NS + round((index * CHUNK_S + abs(rng.normal(0.0, 0.0003))) * 1e9)
            log_ns = START_NS + round(((index + 1) * CHUNK_S + rng.uniform(0.002, 0.008)) * 1e9)
            data = self._new("audio_common_msgs/msg/AudioData", np.frombuffer(chunk.astype("<i2").tobytes(), np.uint8))
            yield (
                log_ns,
                2,
                "/audio",
                self._new("audio_common_msgs/msg/AudioDataStamped", self._header(stamp_ns, "microphone"), data),
            )

    def camera(self, frames: Iterator[tuple[float, np.ndarray]], quality: int) -> Iterator[Entry]:
        """JPEG frames, logged 5 to 15 ms after their stamp."""
        rng = np.random.default_rng([self._seed, 5])
        last_ns = START_NS
        for stamp_s, picture in frames:
            stamp_ns = START_NS + round(stamp_s * 1e9)
            last_ns = max(stamp_ns + round(rng.uniform(0.005, 0.015) * 1e9), last_ns + 100_000)
            data = np.frombuffer(scenes.to_jpeg(picture, quality), np.uint8)
            yield (
                last_ns,
                3,
                "/camera/image",
                self._new("sensor_msgs/msg/CompressedImage", self._header(stamp_ns, "camera"), "jpeg", data),
            )


def write_mcap(out: Path, entries: Iterator[Entry], store: Typestore) -> int:
    """Write the entries, in order, to the single file `out` (zstd chunks, definitions embedded); returns how many."""
    folder = out.with_name(f".{out.stem}.partial")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    bag = folder / out.stem
    # Version 8 writes QoS profiles as numbers, which Humble reads too.
    writer = Writer(bag, version=8, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    count = 0
    with writer:
        connections = {
            topic: writer.add_connection(topic, msgtype, typestore=store, offered_qos_profiles=[qos(topic in LATCHED)])
            for topic, msgtype in TOPICS.items()
        }
        for log_ns, _, topic, message in entries:
            writer.write(connections[topic], log_ns, store.serialize_cdr(message, TOPICS[topic]))
            count += 1
    (bag / f"{out.stem}.mcap").replace(out)
    shutil.rmtree(folder)
    return count


def _size(_: click.Context, __: click.Parameter, value: str) -> tuple[int, int]:
    width, _, height = value.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) >= 64 and int(height) >= 48):
        raise click.BadParameter(f"{value!r} is not WIDTHxHEIGHT of at least 64x48; for example 320x240")
    return int(width), int(height)


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The .mcap file to write.")
@click.option("--seconds", default=100.0, show_default=True, type=click.FloatRange(min=2.0))
@click.option("--seed", default=0, show_default=True)
@click.option("--digits", type=click.Choice(["sklearn-demo", "mnist-test"]), default="sklearn-demo", show_default=True)
@click.option("--voices", type=click.Choice(["espeak-demo", "fsdd-test"]), default="espeak-demo", show_default=True)
@click.option(
    "--rate-hz", default=15.0, show_default=True, type=click.FloatRange(min=1.0, max=120.0), help="Frames per second."
)
@click.option("--size", default="320x240", show_default=True, callback=_size, help="Frame size, WIDTHxHEIGHT.")
@click.option("--snr-db", default=18.0, show_default=True, help="Speech over room noise.")
@click.option(
    "--variety",
    default=0.5,
    show_default=True,
    type=click.FloatRange(0.0, 1.0),
    help="How unruly scene and card are; training is at 1.",
)
@click.option("--jpeg-quality", default=45, show_default=True, type=click.IntRange(5, 100))
def main(
    out: Path,
    seconds: float,
    seed: int,
    digits: str,
    voices: str,
    rate_hz: float,
    size: tuple[int, int],
    snr_db: float,
    variety: float,
    jpeg_quality: int,
) -> None:
    """Write a recording to OUT."""
    if out.suffix != ".mcap":
        raise click.ClickException(f"{out}: not an .mcap file; end its name in .mcap")
    cv2.setNumThreads(1)
    try:
        draw, say = digit_drawer(digits), word_sayer(voices)
    except (sources.SourceMissingError, FileNotFoundError) as error:
        raise click.ClickException(str(error)) from None
    store = typestore()
    messages = Messages(store, seed)
    spans = recording.schedule(seconds, seed)
    pictures = recording.frames(spans, recording.camera_times(seconds, rate_hz, seed), draw, seed, size, variety)
    entries = heapq.merge(
        messages.labels(spans),
        messages.audio_info(),
        messages.audio(recording.sound_chunks(spans, say, seed, snr_db)),
        messages.camera(pictures, jpeg_quality),
        key=lambda entry: entry[:2],
    )
    with click.progressbar(length=round(seconds * rate_hz), label=out.name) as bar:
        count = write_mcap(out, (_ticking(entry, bar) for entry in entries), store)
    shown = sum(span.digit >= 0 for span in spans)
    click.echo(f"{out}: {seconds:g} s, {shown} digits, {count} messages, {out.stat().st_size / 1e6:.2f} MB")


def _ticking(entry: Entry, bar: Any) -> Entry:
    if entry[2] == "/camera/image":
        bar.update(1)
    return entry


if __name__ == "__main__":
    main()
