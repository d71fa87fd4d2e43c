"""Recordings are read in every form, and refused in one line that says what to do."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import lz4.frame
import numpy as np
import pytest
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from aecf_ros.core.bundle import load_manifest
from aecf_ros.replay.bag.errors import BagError
from aecf_ros.replay.bag.reader import open_bag
from aecf_ros.replay.bag.topics import Reading

FORMS = [(StoragePlugin.MCAP, 9), (StoragePlugin.SQLITE3, 9), (StoragePlugin.SQLITE3, 8)]


def modalities(**kinds: str) -> SimpleNamespace:
    """As much of a manifest as the choice of topics looks at."""
    return SimpleNamespace(modalities=[SimpleNamespace(name=name, kind=kind) for name, kind in kinds.items()])


BOTH = modalities(camera="image", audio="audio")


def refusal(path: Path, manifest: object = BOTH) -> str:
    with pytest.raises(BagError) as caught, open_bag(path) as bag:
        bag.choose_topics(manifest)
    line = str(caught.value)
    assert "\n" not in line and str(path) in line
    return line


@pytest.mark.parametrize(("storage", "version"), FORMS)
@pytest.mark.parametrize("as_file", [False, True])
def test_a_recording_is_read_in_log_order(
    new_recording: Callable, tmp_path: Path, storage: StoragePlugin, version: int, as_file: bool
) -> None:
    path = (
        new_recording()
        .info(0)
        .sound(0.2, "red")
        .image(0.1, "green")
        .label(0.3, "red")
        .write(tmp_path / "bag", storage, version)
    )
    if as_file:
        path = next(p for p in path.iterdir() if p.suffix in (".mcap", ".db3"))
    with open_bag(path) as bag:
        recorded = list(bag.messages())
        assert [r.topic for r in recorded] == ["/audio_info", "/camera/image", "/audio", "/label"]
        assert [(r.log_ns - bag.start_ns) / 1e9 for r in recorded] == pytest.approx([0, 0.1, 0.2, 0.3])
        assert bag.duration_s == pytest.approx(0.3, abs=1e-6)
        image = bag.deserialize(recorded[1])
        assert (image.encoding, image.height, image.step) == ("rgb8", 8, 24)
        np.testing.assert_allclose(image.data[:3], [0, 255, 0], atol=15)  # green, with noise
        assert bag.deserialize(recorded[0]).sample_rate == 800
        assert bag.deserialize(recorded[3]).data == "red"
        assert [r.topic for r in bag.messages(["/label"])] == ["/label"]


def test_a_sqlite3_recording_of_humble_carries_no_definitions_and_is_read(
    new_recording: Callable, tmp_path: Path
) -> None:
    path = (
        new_recording().info(0).sound(0.1, "red").image(0.2, "green").write(tmp_path / "bag", StoragePlugin.SQLITE3, 8)
    )
    with closing(sqlite3.connect(next(path.glob("*.db3")))) as db:
        db.execute("DROP TABLE message_definitions")
        db.execute("UPDATE schema SET schema_version = 3")
        db.execute("ALTER TABLE topics DROP COLUMN type_description_hash")
        db.commit()
    with open_bag(path) as bag:
        info, sound, image = (bag.deserialize(r) for r in bag.messages())
        assert (info.sample_format, len(sound.audio.data), image.encoding) == ("S16LE", 160, "rgb8")
        assert sound.header.stamp.sec == 1_700_000_000


def test_a_recording_that_is_not_there(tmp_path: Path) -> None:
    assert "no such recording" in refusal(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("empty.mcap", b""),
        ("junk.mcap", b"junk" * 100),
        ("junk.db3", b"junk" * 100),
        ("notes.txt", b"hello"),
        ("bare", b""),
    ],
)
def test_a_file_that_is_no_recording(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    assert "cannot be read" in refusal(tmp_path / name)


def test_a_recording_that_was_cut_off(red_then_blue: Path, tmp_path: Path) -> None:
    data = next(red_then_blue.glob("*.mcap")).read_bytes()
    (tmp_path / "cut.mcap").write_bytes(data[: len(data) // 2])
    assert "cannot be read" in refusal(tmp_path / "cut.mcap")


@pytest.mark.parametrize("metadata", [None, "a: ["])
def test_a_directory_without_a_usable_metadata_file(tmp_path: Path, metadata: str | None) -> None:
    if metadata is not None:
        (tmp_path / "metadata.yaml").write_text(metadata)
    assert "cannot be read" in refusal(tmp_path)


def test_a_message_whose_bytes_are_not_of_its_type(new_recording: Callable, tmp_path: Path) -> None:
    path = new_recording().image(0, "red").write(tmp_path / "bag", StoragePlugin.SQLITE3)
    with closing(sqlite3.connect(next(path.glob("*.db3")))) as db:
        db.execute("UPDATE messages SET data = x'00010000ff'")
        db.commit()
    with (
        open_bag(path) as bag,
        pytest.raises(BagError, match="/camera/image: a message is not a sensor_msgs/msg/Image"),
    ):
        [bag.deserialize(r) for r in bag.messages()]


def test_an_error_of_the_caller_is_not_blamed_on_the_recording(red_then_blue: Path) -> None:
    with pytest.raises(FileNotFoundError), open_bag(red_then_blue):
        raise FileNotFoundError("labels.csv")


def chosen(recording: object, tmp_path: Path, manifest: object = BOTH) -> object:
    with open_bag(recording.write(tmp_path / "bag")) as bag:
        return bag.choose_topics(manifest)


def test_the_topics_of_the_tiny_recording(red_then_blue: Path, tiny_bundle: Path) -> None:
    with open_bag(red_then_blue) as bag:
        topics = bag.choose_topics(load_manifest(tiny_bundle))
    assert topics.streams == {"camera": "/camera/image", "audio": "/audio"}
    assert topics.infos == {"audio": "/audio_info"} and topics.label == "/label"


def test_the_only_topic_of_a_fitting_type_is_taken_whatever_its_name(new_recording: Callable, tmp_path: Path) -> None:
    topics = chosen(new_recording().jpeg(0, "red", "/front/eye/compressed").plain_sound(0.1, "red", "/mic"), tmp_path)
    assert topics.streams == {"camera": "/front/eye/compressed", "audio": "/mic"}
    assert topics.infos == {} and topics.label is None


def test_of_several_topics_the_one_that_carries_the_name_is_taken(new_recording: Callable, tmp_path: Path) -> None:
    recording = (
        new_recording()
        .image(0, "red", "/rear/image")
        .image(0.1, "red", "/camera/image")
        .sound(0.2, "red")
        .sound(0.3, "red", "/audio_raw")
    )
    assert chosen(recording, tmp_path).streams == {"camera": "/camera/image", "audio": "/audio"}


def test_two_cameras_and_two_microphones_go_to_their_own_modalities(new_recording: Callable, tmp_path: Path) -> None:
    recording = new_recording()
    for side in ("left", "right"):
        recording.image(0, "red", f"/{side}/image").sound(0.1, "red", f"/{side}_mic/audio").info(
            0.2, f"/{side}_mic/audio_info"
        )
    topics = chosen(recording, tmp_path, modalities(left="image", right="image", left_mic="audio", right_mic="audio"))
    assert topics.streams == {
        "left": "/left/image",
        "right": "/right/image",
        "left_mic": "/left_mic/audio",
        "right_mic": "/right_mic/audio",
    }
    assert topics.infos == {"left_mic": "/left_mic/audio_info", "right_mic": "/right_mic/audio_info"}


def test_the_info_of_another_microphone_with_a_similar_name_is_not_taken(
    new_recording: Callable, tmp_path: Path
) -> None:
    recording = (
        new_recording()
        .image(0, "red")
        .info(0, "/audio2_info", rate_hz=48_000)
        .sound(0.1, "red")
        .info(0.2, "/audio_info")
    )
    assert chosen(recording, tmp_path).infos == {"audio": "/audio_info"}


def test_two_infos_of_which_none_is_named_after_the_stream_are_refused(new_recording: Callable, tmp_path: Path) -> None:
    recording = new_recording().image(0, "red").sound(0.1, "red").info(0.2, "/front/info").info(0.2, "/rear/info")
    line = refusal(recording.write(tmp_path / "bag"))
    assert "/front/info" in line and "/rear/info" in line and "audio_info=" in line


def test_two_cameras_for_one_modality_without_a_name_that_decides_are_refused(
    new_recording: Callable, tmp_path: Path
) -> None:
    line = refusal(
        new_recording()
        .image(0, "red", "/left/image")
        .image(0, "red", "/right/image")
        .sound(0.1, "red")
        .write(tmp_path / "bag")
    )
    assert "'camera'" in line and "/left/image, /right/image" in line


def test_a_recording_without_a_camera_says_what_it_holds(new_recording: Callable, tmp_path: Path) -> None:
    line = refusal(new_recording().sound(0, "red").label(0, "red").write(tmp_path / "bag"))
    assert (
        "'camera'" in line
        and "sensor_msgs/msg/Image" in line
        and "/audio (audio_common_msgs/msg/AudioDataStamped)" in line
    )


def test_the_topic_named_label_is_preferred_to_others_that_contain_the_word(
    new_recording: Callable, tmp_path: Path
) -> None:
    recording = (
        new_recording()
        .image(0, "red")
        .sound(0, "red")
        .label(0, "x", "/labels_of_the_day")
        .label(0, "red", "/truth/label")
    )
    assert chosen(recording, tmp_path).label == "/truth/label"


@pytest.mark.parametrize("of", ["Int32", "UInt8", "Int64"])
def test_numbers_are_labels_too(new_recording: Callable, tmp_path: Path, of: str) -> None:
    recording = new_recording().image(0, "red").sound(0, "red")
    for at_s, value in enumerate((1, 0, 7, *((-1,) if of != "UInt8" else ()))):
        recording.add(at_s, "/label", recording.make(f"std_msgs/msg/{of}", value))
    with open_bag(recording.write(tmp_path / "bag")) as bag:
        assert bag.choose_topics(BOTH).label == "/label"
        said = list(bag.messages(["/label"]))
        assert [bag.label_text(one, ["red", "blue"]) for one in said][:4] == ["blue", "red", "7", ""][: len(said)]
        assert [bag.label_text(one, ["1", "0"]) for one in said][:2] == ["1", "0"]  # they are names there
        assert [bag.label_text(one) for one in said][:3] == ["1", "0", "7"]


def rows(path: Path) -> int:
    with open_bag(path) as bag:
        return sum(1 for _ in bag.messages())


@pytest.mark.parametrize(
    ("storage", "mode"),
    [
        (StoragePlugin.MCAP, CompressionMode.STORAGE),
        (StoragePlugin.SQLITE3, CompressionMode.MESSAGE),
        (StoragePlugin.SQLITE3, CompressionMode.FILE),
    ],
)
def test_a_compressed_recording_is_read(
    new_recording: Callable, tmp_path: Path, storage: StoragePlugin, mode: CompressionMode
) -> None:
    recording = new_recording().info(0).scene(0, 1, "red")
    writer = Writer(tmp_path / "packed", version=9, storage_plugin=storage)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connections = {}
        for at_s, topic, message in sorted(recording.messages, key=lambda m: m[0]):
            connection = connections.get(topic) or connections.setdefault(
                topic, writer.add_connection(topic, message.__msgtype__, typestore=recording.store)
            )
            writer.write(
                connection, round(at_s * 1e9) + 10**18, recording.store.serialize_cdr(message, message.__msgtype__)
            )
    assert rows(tmp_path / "packed") == len(recording.messages)


def test_an_lz4_chunk_is_read(new_recording: Callable, tmp_path: Path) -> None:
    path = new_recording().info(0).scene(0, 1, "red").write(tmp_path / "bag")
    file = next(path.glob("*.mcap"))
    count = rows(file)
    (tmp_path / "lz4.mcap").write_bytes(_with_chunks_as_lz4(file.read_bytes()))
    assert rows(tmp_path / "lz4.mcap") == count


def _records(data: bytes) -> list[tuple[int, bytes]]:
    at, found = 8, []
    while at + 9 <= len(data) - 8:
        size = int.from_bytes(data[at + 1 : at + 9], "little")
        found.append((data[at], data[at + 9 : at + 9 + size]))
        at += 9 + size
    return found


def _with_chunks_as_lz4(data: bytes) -> bytes:
    """The records of an uncompressed MCAP file before its index, its chunks compressed by lz4, without a summary."""
    out = data[:8]
    for kind, content in _records(data):
        if kind == 0x0F:
            break
        if kind == 0x06:
            assert content[28:32] == bytes(4)  # rosbags wrote it uncompressed
            packed = lz4.frame.compress(content[40:])
            content = content[:28] + (3).to_bytes(4, "little") + b"lz4" + len(packed).to_bytes(8, "little") + packed
        if kind not in (0x07,):
            out += bytes([kind]) + len(content).to_bytes(8, "little") + content
    return (
        out
        + b"\x0f"
        + (4).to_bytes(8, "little")
        + bytes(4)
        + b"\x02"
        + (20).to_bytes(8, "little")
        + bytes(20)
        + data[:8]
    )


def split(new_recording: Callable, path: Path, parts: int) -> Path:
    """A recording as a recorder that was killed leaves it: several files and no metadata."""
    path.mkdir()
    for i in range(parts):
        recording = new_recording().info(i).scene(i, i + 1, "red")
        next(recording.write(path.parent / f"{path.name}_{i}").glob("*.mcap")).rename(path / f"part_{i}.mcap")
    return path


def test_the_files_of_a_split_recording_without_metadata_are_one_recording(
    new_recording: Callable, tmp_path: Path
) -> None:
    path = split(new_recording, tmp_path / "split", 3)
    with open_bag(path) as bag:
        times = [r.log_ns for r in bag.messages()]
        assert times == sorted(times) and len(times) == 3 * 22 and bag.duration_s == pytest.approx(2.95)
        assert len(bag.problems) == 1 and "metadata.yaml" in bag.problems[0]


def test_what_is_whole_of_a_recording_that_was_cut_off_is_used_and_the_loss_is_said(
    new_recording: Callable, tmp_path: Path
) -> None:
    path = split(new_recording, tmp_path / "cut", 2)
    long = new_recording().info(2)
    for i in range(400):
        long.image(2 + i * 0.05, "red", topic="/camera/image").add(
            2 + i * 0.05, "/padding", long.make("std_msgs/msg/String", "x" * 10_000)
        )
    file = next(long.write(tmp_path / "long").glob("*.mcap"))
    data = file.read_bytes()
    (path / "part_2.mcap").write_bytes(data[: int(0.7 * len(data))])
    with open_bag(path) as bag:
        kept = sum(r.topic == "/camera/image" for r in bag.messages())
        said = " ".join(bag.problems)
    assert 20 < kept < 420 and "part_2.mcap" in said and "cut off" in said and "whole" in said


def test_a_topic_that_is_named_is_taken_and_none_leaves_a_modality_without(
    new_recording: Callable, tmp_path: Path
) -> None:
    recording = (
        new_recording()
        .image(0, "red", "/rear/image")
        .image(0.1, "red", "/camera/image")
        .sound(0.2, "red")
        .info(0)
        .label(0, "red", "/a/label_x")
    )
    with open_bag(recording.write(tmp_path / "bag")) as bag:
        topics = bag.choose_topics(BOTH, Reading({"camera": "/rear/image", "audio": "none", "label": "none"}))
        assert topics.streams == {"camera": "/rear/image"} and topics.infos == {} and topics.label is None
        assert bag.choose_topics(BOTH).line(bag.types) == (
            "camera from /camera/image (Image), audio from /audio (AudioDataStamped), described by "
            "/audio_info, labels from /a/label_x"
        )


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"camera": "/camera/imag"}, "did you mean /camera/image?"),
        ({"camera": "/audio"}, "takes sensor_msgs"),
        ({"lidar": "/x"}, "no such stream"),
        ({"label": "/audio"}, "takes std_msgs"),
    ],
)
def test_a_topic_that_does_not_fit_is_refused(new_recording: Callable, tmp_path: Path, named: dict, words: str) -> None:
    path = new_recording().image(0, "red").sound(0.2, "red").info(0).write(tmp_path / "bag")
    with open_bag(path) as bag, pytest.raises(BagError, match=words.replace("?", r"\?")):
        bag.choose_topics(BOTH, Reading(named))
