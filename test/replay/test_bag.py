"""Recordings are read in every form, and refused in one line that says what to do."""
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin

from aecf_ros.core.bundle import load_manifest
from aecf_ros.replay.bag import BagError, open_bag

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
def test_a_recording_is_read_in_log_order(new_recording: Callable, tmp_path: Path, storage: StoragePlugin, version: int, as_file: bool) -> None:
    path = new_recording().info(0).sound(0.2, "red").image(0.1, "green").label(0.3, "red").write(tmp_path / "bag", storage, version)
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


def test_a_sqlite3_recording_of_humble_carries_no_definitions_and_is_read(new_recording: Callable, tmp_path: Path) -> None:
    path = new_recording().info(0).sound(0.1, "red").image(0.2, "green").write(tmp_path / "bag", StoragePlugin.SQLITE3, 8)
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


@pytest.mark.parametrize(("name", "data"), [("empty.mcap", b""), ("junk.mcap", b"junk" * 100), ("junk.db3", b"junk" * 100), ("notes.txt", b"hello"), ("bare", b"")])
def test_a_file_that_is_no_recording(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    assert "cannot be read" in refusal(tmp_path / name)


def test_a_recording_that_was_cut_off(red_then_blue: Path, tmp_path: Path) -> None:
    data = next(red_then_blue.glob("*.mcap")).read_bytes()
    (tmp_path / "cut.mcap").write_bytes(data[:len(data) // 2])
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
    with open_bag(path) as bag, pytest.raises(BagError, match="/camera/image: a message is not a sensor_msgs/msg/Image"):
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
    recording = new_recording().image(0, "red", "/rear/image").image(0.1, "red", "/camera/image").sound(0.2, "red").sound(0.3, "red", "/audio_raw")
    assert chosen(recording, tmp_path).streams == {"camera": "/camera/image", "audio": "/audio"}


def test_two_cameras_and_two_microphones_go_to_their_own_modalities(new_recording: Callable, tmp_path: Path) -> None:
    recording = new_recording()
    for side in ("left", "right"):
        recording.image(0, "red", f"/{side}/image").sound(0.1, "red", f"/{side}_mic/audio").info(0.2, f"/{side}_mic/audio_info")
    topics = chosen(recording, tmp_path, modalities(left="image", right="image", left_mic="audio", right_mic="audio"))
    assert topics.streams == {"left": "/left/image", "right": "/right/image", "left_mic": "/left_mic/audio", "right_mic": "/right_mic/audio"}
    assert topics.infos == {"left_mic": "/left_mic/audio_info", "right_mic": "/right_mic/audio_info"}


def test_the_info_of_another_microphone_with_a_similar_name_is_not_taken(new_recording: Callable, tmp_path: Path) -> None:
    recording = new_recording().image(0, "red").info(0, "/audio2_info", rate_hz=48_000).sound(0.1, "red").info(0.2, "/audio_info")
    assert chosen(recording, tmp_path).infos == {"audio": "/audio_info"}


def test_two_infos_of_which_none_is_named_after_the_stream_are_refused(new_recording: Callable, tmp_path: Path) -> None:
    recording = new_recording().image(0, "red").sound(0.1, "red").info(0.2, "/front/info").info(0.2, "/rear/info")
    line = refusal(recording.write(tmp_path / "bag"))
    assert "/front/info" in line and "/rear/info" in line and "/audio_info" in line


def test_two_cameras_for_one_modality_without_a_name_that_decides_are_refused(new_recording: Callable, tmp_path: Path) -> None:
    line = refusal(new_recording().image(0, "red", "/left/image").image(0, "red", "/right/image").sound(0.1, "red").write(tmp_path / "bag"))
    assert "'camera'" in line and "/left/image, /right/image" in line


def test_a_recording_without_a_camera_says_what_it_holds(new_recording: Callable, tmp_path: Path) -> None:
    line = refusal(new_recording().sound(0, "red").label(0, "red").write(tmp_path / "bag"))
    assert "'camera'" in line and "sensor_msgs/msg/Image" in line and "/audio (audio_common_msgs/msg/AudioDataStamped)" in line


def test_the_topic_named_label_is_preferred_to_others_that_contain_the_word(new_recording: Callable, tmp_path: Path) -> None:
    recording = new_recording().image(0, "red").sound(0, "red").label(0, "x", "/labels_of_the_day").label(0, "red", "/truth/label")
    assert chosen(recording, tmp_path).label == "/truth/label"
