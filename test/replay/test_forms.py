"""Recordings as other machines make them: other dialects of sound, other distributions, split, compressed, cut off."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from aecf_ros.core.bundle import load_bundle
from aecf_ros.core.types import StreamState
from aecf_ros.replay.bag.errors import BagError
from aecf_ros.replay.bag.reader import open_bag
from aecf_ros.replay.bag.sqlite_recovery import _allow_reading
from aecf_ros.replay.faults.schedule import Fault
from aecf_ros.replay.scoring.driver import drive
from aecf_ros.replay.scoring.prediction_log import PublishedPrediction
from aecf_ros.runtime.backends import make_backend
from aecf_ros.runtime.pipeline import Pipeline
from test.replay.conftest import START_NS, TONES_HZ, Recording

RATE_HZ = 800
HEADER = "std_msgs/Header header\n"
OTHER_DIALECT = {
    "AudioData": "float32[] float32_data\nint32[] int32_data\nint16[] int16_data\nint8[] int8_data\nuint8[] uint8_data",
    "AudioInfo": "int32 format\nint32 channels\nint32 rate\nint32 chunk",
    "Audio": "audio_common_msgs/AudioData audio_data\naudio_common_msgs/AudioInfo info",
    "AudioStamped": HEADER + "audio_common_msgs/Audio audio",
}
FOXGLOVE = {
    "RawAudio": "builtin_interfaces/Time timestamp\nuint8[] data\nstring format\n"
    "uint32 sample_rate\nuint32 number_of_channels"
}
PORTAUDIO = {"float32": (1, "<f4"), "int32": (2, "<i4"), "int16": (8, "<i2"), "int8": (16, "i1"), "uint8": (32, "u1")}


def speaking(package: str, definitions: dict[str, str]) -> Recording:
    """An empty recording whose types of ``package`` are these."""
    recording = Recording()
    recording.store = get_typestore(Stores.ROS2_JAZZY)
    for name, definition in definitions.items():
        recording.store.register(get_types_from_msg(definition, f"{package}/msg/{name}"))
    return recording


def tone(at_s: float, label: str, noise: np.random.Generator) -> np.ndarray:
    """float64 (80,): 0.1 s in [-1, 1]."""
    return 0.9 * np.sin(2 * np.pi * TONES_HZ[label] * (at_s + np.arange(80) / RATE_HZ)) + noise.normal(0, 0.001, 80)


def dialect_chunk(recording: Recording, at_s: float, label: str, field: str) -> Any:
    code, dtype = PORTAUDIO[field]
    samples = tone(at_s, label, recording.noise)
    if np.dtype(dtype).kind != "f":
        full = np.iinfo(dtype)
        samples = np.clip(
            np.round(samples * ((full.max - full.min) // 2) + (128 if field == "uint8" else 0)), full.min, full.max
        )
    held = [samples.astype(dtype) if name == field else np.zeros(0, other) for name, (_, other) in PORTAUDIO.items()]
    data = recording.make("audio_common_msgs/msg/AudioData", *held)
    info = recording.make("audio_common_msgs/msg/AudioInfo", code, 1, RATE_HZ, 80)
    audio = recording.make("audio_common_msgs/msg/Audio", data, info)
    return recording.make("audio_common_msgs/msg/AudioStamped", recording.header(at_s), audio)


def foxglove_chunk(recording: Recording, at_s: float, label: str) -> Any:
    pcm = np.round(tone(at_s, label, recording.noise) * 32767).astype("<i2").view(np.uint8)
    return recording.make("foxglove_msgs/msg/RawAudio", recording.header(at_s).stamp, pcm, "pcm-s16", RATE_HZ, 1)


def spoken(kind: str, seconds: float = 4.0) -> Recording:
    """Blue is shown and sounds for that long, in one of the dialects."""
    recording = (
        speaking("foxglove_msgs", FOXGLOVE) if kind == "foxglove" else speaking("audio_common_msgs", OTHER_DIALECT)
    )
    for i in range(round(seconds * 10)):
        at_s = i * 0.1
        chunk = (
            foxglove_chunk(recording, at_s, "blue")
            if kind == "foxglove"
            else dialect_chunk(recording, at_s, "blue", kind)
        )
        recording.image(at_s, "blue").add(at_s + 0.1, "/audio", chunk)
    return recording


def answers(path: Path, bundle: Path, faults: tuple[Fault, ...] = ()) -> list[PublishedPrediction]:
    loaded = load_bundle(bundle)
    with open_bag(path) as bag:
        return list(
            drive(
                bag,
                bag.choose_topics(loaded.manifest),
                Pipeline(loaded.manifest, make_backend("onnxruntime", loaded, "cpu")),
                faults,
            )
        )


def without_definitions(path: Path) -> None:
    """As a recorder of Humble leaves a sqlite3 recording."""
    with closing(sqlite3.connect(next(path.glob("*.db3")))) as db:
        db.execute("DROP TABLE message_definitions")
        db.execute("UPDATE schema SET schema_version = 3")
        db.execute("ALTER TABLE topics DROP COLUMN type_description_hash")
        db.commit()


@pytest.mark.parametrize("form", ["mcap", "sqlite3", "sqlite3 of Humble"])
@pytest.mark.parametrize("kind", [*PORTAUDIO, "foxglove"])
def test_sound_of_the_other_dialect_and_of_foxglove_is_heard(
    kind: str, form: str, tmp_path: Path, tiny_bundle: Path
) -> None:
    storage = StoragePlugin.MCAP if form == "mcap" else StoragePlugin.SQLITE3
    path = spoken(kind).write(tmp_path / "bag", storage, 8 if "Humble" in form else 9)
    if "Humble" in form:
        without_definitions(path)
    last = answers(path, tiny_bundle)[-1].prediction.modalities[1]
    assert (last.name, last.state, last.used, last.label) == ("audio", StreamState.OK, True, "blue")


@pytest.mark.parametrize(
    "fault", ["drop", "freeze", "corrupt", "nan", "wrong_encoding", "wrong_size", "silence", "zero_stamp"]
)
@pytest.mark.parametrize("kind", ["int16", "float32", "foxglove"])
def test_faults_act_on_every_dialect(kind: str, fault: str, tmp_path: Path, tiny_bundle: Path) -> None:
    if fault == "nan" and kind == "foxglove":
        pytest.skip("RawAudio has no float format: nothing in it can be NaN")
    path = spoken(kind, 7.0).write(tmp_path / "bag")
    seen = answers(path, tiny_bundle, (Fault(stream="audio", kind=fault, start_s=4, end_s=6.5),))
    before, during = (
        {a.prediction.modalities[1].state for a in seen if from_s < a.at_s < to_s}
        for from_s, to_s in ((2, 4), (5.2, 6.4))
    )
    assert before == {StreamState.OK} and StreamState.OK not in during, during


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize("distribution", ["ROS2_HUMBLE", "ROS2_IRON", "ROS2_JAZZY", "ROS2_KILTED"])
def test_recordings_of_every_distribution_are_read(
    distribution: str, storage: StoragePlugin, tmp_path: Path, tiny_bundle: Path
) -> None:
    recording = Recording()
    types = {
        name: definition
        for name, definition in recording.store.fielddefs.items()
        if name.startswith("audio_common_msgs")
    }
    recording.store = get_typestore(getattr(Stores, distribution))
    recording.store.register(types)
    path = recording.info(0).scene(0, 3, "green").write(tmp_path / "bag", storage)
    assert [m.label for m in answers(path, tiny_bundle)[-1].prediction.modalities] == ["green", "green"]


def split(
    parts: int, path: Path, storage: StoragePlugin, packing: tuple[CompressionMode, CompressionFormat] | None
) -> Path:
    """A recording in several files with one metadata.yaml, as ``ros2 bag record --max-bag-duration`` leaves it."""
    path.mkdir()
    files, count, metadata = [], 0, {}
    for i in range(parts):
        recording = Recording().info(i).scene(i, i + 1, "red")
        writer = Writer(path.parent / f"{path.name}_{i}", version=9, storage_plugin=storage)
        if packing:
            writer.set_compression(*packing)
        with writer:
            made = {}
            for at_s, topic, message in sorted(recording.messages, key=lambda m: m[0]):
                made[topic] = made.get(topic) or writer.add_connection(
                    topic, message.__msgtype__, typestore=recording.store
                )
                writer.write(
                    made[topic],
                    START_NS + round(at_s * 1e9),
                    recording.store.serialize_cdr(message, message.__msgtype__),
                )
        folder = path.parent / f"{path.name}_{i}"
        metadata = yaml.safe_load((folder / "metadata.yaml").read_text())
        shutil.move(folder / metadata["rosbag2_bagfile_information"]["relative_file_paths"][0], path)
        files += metadata["rosbag2_bagfile_information"]["relative_file_paths"]
        count += metadata["rosbag2_bagfile_information"]["message_count"]
    whole = metadata["rosbag2_bagfile_information"]
    whole |= {
        "relative_file_paths": files,
        "message_count": count,
        "starting_time": {"nanoseconds_since_epoch": START_NS},
        "duration": {"nanoseconds": parts * 10**9},
        "files": [],
    }
    for topic in whole["topics_with_message_count"]:
        topic["message_count"] *= parts
    (path / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    return path


@pytest.mark.parametrize(
    ("storage", "packing"),
    [
        (StoragePlugin.MCAP, None),
        (StoragePlugin.SQLITE3, None),
        (StoragePlugin.MCAP, (CompressionMode.STORAGE, CompressionFormat.ZSTD)),
        (StoragePlugin.SQLITE3, (CompressionMode.FILE, CompressionFormat.ZSTD)),
        (StoragePlugin.SQLITE3, (CompressionMode.MESSAGE, CompressionFormat.ZSTD)),
    ],
)
def test_the_parts_of_a_split_recording_are_one(storage: StoragePlugin, packing: tuple | None, tmp_path: Path) -> None:
    with open_bag(split(3, tmp_path / "bag", storage, packing)) as bag:
        times = [r.log_ns for r in bag.messages()]
        assert times == sorted(times) and len(times) == 3 * 22 and bag.problems == []


@pytest.mark.parametrize("metadata", [True, False])
@pytest.mark.parametrize("share", [0.9, 0.5])
def test_what_is_whole_of_a_sqlite3_recording_that_was_cut_off_is_used_and_the_loss_is_said(
    new_recording: Callable, share: float, metadata: bool, tmp_path: Path
) -> None:
    path = new_recording().info(0).scene(0, 60, "red").write(tmp_path / "bag", StoragePlugin.SQLITE3)
    file = next(path.glob("*.db3"))
    with open_bag(path) as bag:
        whole = [r.log_ns for r in bag.messages()]
    file.write_bytes(file.read_bytes()[: round(share * file.stat().st_size)])
    if not metadata:
        (path / "metadata.yaml").unlink()
    with open_bag(path) as bag:
        kept = [(r.log_ns, bag.deserialize(r)) for r in bag.messages()]
        said = " ".join(bag.problems)
    assert [ns for ns, _ in kept] == whole[: len(kept)] and 0.6 * share * len(whole) < len(kept) < len(whole)
    assert file.name in said and f"cut off: {len(kept)} messages are whole" in said


def test_a_database_that_keeps_nothing_whole_is_refused(tmp_path: Path, new_recording: Callable) -> None:
    path = new_recording().info(0).scene(0, 5, "red").write(tmp_path / "bag", StoragePlugin.SQLITE3)
    file = next(path.glob("*.db3"))
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(BagError, match="cannot be read as rosbag2"), open_bag(path):
        pass


def test_a_log_that_the_recorder_did_not_move_is_named(tmp_path: Path, new_recording: Callable) -> None:
    path = new_recording().info(0).scene(0, 1, "red").write(tmp_path / "bag", StoragePlugin.SQLITE3)
    log = path / (next(path.glob("*.db3")).name + "-wal")
    log.write_bytes(b"x")
    with open_bag(path) as bag:
        assert len(bag.problems) == 1 and str(log) in bag.problems[0]


def add_to_schema(file: Path, statement: str) -> None:
    """Put a statement into the schema, where SQLite's own parser passes over it under ``writable_schema``."""
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA writable_schema=ON")
        db.execute(
            "INSERT INTO sqlite_master (type, name, tbl_name, rootpage, sql) VALUES ('table', 'x', 'x', 0, ?)",
            (statement,),
        )
        db.commit()


@pytest.mark.parametrize("cut", [False, True])
def test_no_statement_of_a_recording_is_executed(cut: bool, tmp_path: Path, new_recording: Callable) -> None:
    path = new_recording().info(0).scene(0, 60, "red").write(tmp_path / "bag", StoragePlugin.SQLITE3)
    file, victim = next(path.glob("*.db3")), tmp_path / "victim"
    victim.write_text("precious")
    for statement in (
        f"ATTACH DATABASE '{tmp_path / 'made'}' AS p",
        f"ATTACH DATABASE '{victim}' AS q",
        "CREATE TABLE p.payload AS SELECT 1",
        "DROP TABLE messages",
    ):
        add_to_schema(file, statement)
    if cut:
        file.write_bytes(file.read_bytes()[: round(0.9 * file.stat().st_size)])
    with open_bag(path) as bag:
        assert {r.topic for r in bag.messages()} >= {
            "/audio_info",
            "/audio",
            "/camera/image",
        } and "cut off" in " ".join(bag.problems)
    assert not (tmp_path / "made").exists() and victim.read_text() == "precious"


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM secrets",
        "SELECT load_extension('x')",
        "ATTACH DATABASE 'x' AS y",
        "DELETE FROM messages",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
        "SELECT secret FROM messages",
    ],
)
def test_recovery_reads_known_columns_alone(statement: str) -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript("CREATE TABLE secrets (x); CREATE TABLE messages (id, topic_id, timestamp, data, secret)")
        db.set_authorizer(_allow_reading)
        assert db.execute("SELECT id, data FROM messages ORDER BY rowid").fetchall() == []
        with pytest.raises(sqlite3.DatabaseError, match="not authorized|prohibited"):
            db.execute(statement)
