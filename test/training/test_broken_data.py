"""Broken data sets: each ends in one line that says what was found and what to do. What is only partly broken is
used, and the loss said.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from aecf_ros.commands.shared.corpus import open_corpus
from aecf_ros.training.config import DataConfig
from test.command_line import aecf, refusal
from test.replay.conftest import Recording
from test.training.conftest import write_dataset
from test.training.files import BOTH, rows_of_files, write_rows, write_table

COLORS = ("red", "green", "blue")


def drive(path: Path, seed: int, labels: tuple[str, ...] = COLORS, seconds: float = 2.0) -> Path:
    """A recording of a camera, a microphone and a label topic; every seed another noise."""
    recording = Recording()
    recording.noise = np.random.default_rng(seed)
    recording.info(0)
    for i, label in enumerate(labels):
        recording.scene(i * seconds, (i + 1) * seconds, label)
    return recording.write(path)


@pytest.fixture(scope="module")
def drives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five recordings that has nothing wrong. Do not write into it."""
    folder = tmp_path_factory.mktemp("drives")
    for i in range(5):
        drive(folder / f"drive{i}", i)
    return folder


def copied(drives: Path, folder: Path, count: int = 5) -> Path:
    for i in range(count):
        shutil.copytree(drives / f"drive{i}", folder / f"drive{i}")
    return folder


def refused(path: Path, *options: str) -> str:
    """The one line in which `aecf dataset inspect` ends."""
    line = refusal("dataset", "inspect", path, "--out", path.parent / "page", *options)
    assert not (path.parent / "page").exists()
    return line


def nothing_there(folder: Path) -> Path:
    return folder / "no_such"


def empty_folder(folder: Path) -> Path:
    folder.mkdir()
    return folder


def folder_of_something_else(folder: Path) -> Path:
    (empty_folder(folder) / "notes.txt").write_text("x")
    return folder


def several_tables(folder: Path) -> Path:
    write_table(folder)
    shutil.copy(folder / "table.csv", folder / "other.csv")
    return folder


def table_not_utf8(folder: Path) -> Path:
    table = write_table(folder)
    table.write_bytes(table.read_text().replace("low", "tür").encode("latin-1"))
    return folder


def table_without_rows(folder: Path) -> Path:
    return write_rows(empty_folder(folder) / "table.csv", "image,sound,label", [])


def table_without_labels(folder: Path) -> Path:
    return write_rows(folder / "table.csv", "image,sound,labels", rows_of_files(folder, 9))


def table_with_empty_labels(folder: Path) -> Path:
    return write_rows(folder / "table.csv", "image,sound,label", [[*row[:2], ""] for row in rows_of_files(folder, 9)])


def table_with_a_cell_too_many(folder: Path) -> Path:
    return write_rows(folder / "table.csv", "image,sound,label", [[*row, "x"] for row in rows_of_files(folder, 9)])


def table_with_a_column_twice(folder: Path) -> Path:
    return write_rows(folder / "table.csv", "image,label,label", rows_of_files(folder, 9))


def table_with_another_word_for_a_part(folder: Path) -> Path:
    return write_rows(
        folder / "table.csv",
        "image,sound,label,split",
        [[*row, "holdout" if i == 7 else "train"] for i, row in enumerate(rows_of_files(folder, 9))],
    )


def table_without_calibration(folder: Path) -> Path:
    return write_rows(
        folder / "table.csv",
        "image,sound,label,split",
        [[*row, "test" if i > 5 else "train"] for i, row in enumerate(rows_of_files(folder, 9))],
    )


def pictures_unreadable(folder: Path) -> Path:
    write_table(folder)
    for file in folder.glob("*.png"):
        file.write_bytes(b"\x89PNG\r\n")
    return folder


def pictures_elsewhere(folder: Path) -> Path:
    table = write_table(folder)
    for i in range(4):
        (folder / f"{i}.png").unlink()
    return table


def sounds_empty(folder: Path) -> Path:
    write_table(folder)
    for file in folder.glob("*.wav"):
        soundfile.write(file, np.zeros(0), 800)
    return folder


def one_class(folder: Path) -> Path:
    return write_rows(
        folder / "table.csv", "image,sound,label", [[*row[:2], "low"] for row in rows_of_files(folder, 9)]
    )


def two_rows(folder: Path) -> Path:
    return write_rows(folder / "table.csv", "image,sound,label", rows_of_files(folder, 2))


def parts(count: int) -> list[str]:
    return [["train", "val", "test"][i // 3 % 3] for i in range(count)]


def recording_in_two_parts(folder: Path) -> Path:
    return write_rows(
        folder / "table.csv",
        "image,sound,label,split,recording",
        [
            [*row, part, "monday" if i in (1, 5) else i]
            for i, (row, part) in enumerate(zip(rows_of_files(folder, 9), parts(9), strict=True))
        ],
    )


def file_in_two_parts(folder: Path) -> Path:
    rows = rows_of_files(folder, 9)
    rows[8][0] = rows[2][0]
    return write_rows(
        folder / "table.csv",
        "image,sound,label,split",
        [[*row, part] for row, part in zip(rows, parts(9), strict=True)],
    )


def content_in_two_parts(folder: Path) -> Path:
    table = write_rows(
        folder / "table.csv",
        "image,sound,label,split",
        [[*row, part] for row, part in zip(rows_of_files(folder, 9), parts(9), strict=True)],
    )
    shutil.copy(folder / "2.wav", folder / "8.wav")
    return table


def parquet_of_text(folder: Path) -> Path:
    (empty_folder(folder) / "table.parquet").write_text("image,label\n")
    return folder


TABLES: list[tuple[Callable[[Path], Path], str]] = [
    (nothing_there, r"no_such: no such file or folder; name a dataset folder"),
    (empty_folder, r"neither dataset\.yaml, nor recordings .* nor one table \(\.csv, \.parquet\); it holds nothing"),
    (folder_of_something_else, r"it holds notes\.txt"),
    (several_tables, r"several tables \(other\.csv, table\.csv\); name one"),
    (table_not_utf8, r"table\.csv: byte \d+ is not UTF-8; save the table as UTF-8"),
    (table_without_rows, r"table\.csv: no rows in it; write a header"),
    (table_without_labels, r"no column 'label' for the label: did you mean labels\? Name it with data\.columns\.label"),
    (table_with_empty_labels, r"no row has a label and a file; fill in the columns"),
    (table_with_a_cell_too_many, r"line 2: 4 cells under 3 columns; quote"),
    (table_with_a_column_twice, r"the column 'label' stands there twice"),
    (table_with_another_word_for_a_part, r"line 9: 'holdout' is no part; write fusion, calibration, test"),
    (table_without_calibration, r"the part 'calibration' is given nothing; .* give some of the data to it"),
    (pictures_unreadable, r"none of the first files of 'image' can be read as image"),
    (
        pictures_elsewhere,
        r"4 of 15 files of 'image' are not there, the first in line 2: 0\.png; paths count from the table's folder",
    ),
    (sounds_empty, r"none of the first files of 'sound' can be read as audio"),
    (one_class, r"only 'low' is labeled; two classes at least"),
    (two_rows, r"too few recordings to split: 2 with labeled moments leave none for the part 'calibration'"),
    (
        recording_in_two_parts,
        r"lines 3 \(fusion\) and 7 \(calibration\) are of the recording 'monday': in two parts that is leakage",
    ),
    (file_in_two_parts, r"lines 4 \(fusion\) and 10 \(test\) both have 2\.png: in two parts that is leakage"),
    (
        content_in_two_parts,
        r"lines 4 \(fusion\) and 10 \(test\) hold the same \(2\.wav and 8\.wav\): in two parts that is leakage",
    ),
    (parquet_of_text, r"table\.parquet: not Parquet \(.*\); write the table again"),
]


@pytest.mark.parametrize(("break_it", "said"), TABLES, ids=[break_it.__name__ for break_it, _ in TABLES])
def test_a_broken_table_ends_in_one_line(tmp_path: Path, break_it: Callable[[Path], Path], said: str) -> None:
    line = refused(break_it(tmp_path / "data"))
    assert re.search(said, line), line


def unlabeled(folder: Path, drives: Path) -> list[str]:
    for i in range(3):
        recording = Recording().info(0)
        recording.messages += [m for m in Recording().scene(0, 1 + i, "red").messages if m[1] != "/label"]
        recording.write(folder / f"drive{i}")
    return []


def misspelt(folder: Path, drives: Path) -> list[str]:
    copied(drives, folder)
    (folder / "drive3.csv").write_text("0,2,read\n2,4,green\n4,6,blue\n")
    return ["data.labels=[red,green,blue]"]


def csv_out_of_order(folder: Path, drives: Path) -> list[str]:
    copied(drives, folder)
    (folder / "drive3.csv").write_text("start_s,end_s,label\n2,4,green\n0,2,red\n")
    return []


def csv_in_unix_time(folder: Path, drives: Path) -> list[str]:
    copied(drives, folder)
    (folder / "drive3.csv").write_text("1700000000,1700000002,red\n")
    return []


def spans_too_short(folder: Path, drives: Path) -> list[str]:
    copied(drives, folder)
    return ["data.settle_s=5"]


def too_few(folder: Path, drives: Path) -> list[str]:
    copied(drives, folder, 2)
    return []


def copy_under_another_name(folder: Path, drives: Path) -> list[str]:
    copied(drives, folder)
    shutil.copytree(drives / "drive0", folder / "monday" / "run")
    return []


def no_microphone(folder: Path, drives: Path) -> list[str]:
    copied(drives, folder)
    return ["data.topics.audio=/microphone"]


def sound_undescribed(folder: Path, drives: Path) -> list[str]:
    for i in range(3):
        recording = Recording().scene(0, 2, "red").scene(2, 4 + i, "blue")
        recording.write(folder / f"drive{i}")
    return []


def sound_format_unknown(folder: Path, drives: Path) -> list[str]:
    copied(drives, folder)
    return ["data.audio_format=MP3"]


def wrong_type(folder: Path, drives: Path) -> list[str]:
    copied(drives, folder)
    return ["data.topics.camera=/label"]


def two_cameras(folder: Path, drives: Path) -> list[str]:
    copied(drives, folder, 2)
    recording = Recording().info(0).scene(0, 2, "red")
    recording.messages = [
        (at, "/left" if topic == "/camera/image" else topic, m) for at, topic, m in recording.messages
    ]
    recording.image(0.5, "red", "/right").write(folder / "drive7")
    return []


def never_learned(folder: Path, drives: Path) -> list[str]:
    copied(drives, folder, 3)
    drive(folder / "only_blue", 9, ("blue",))
    for i in range(3):
        (folder / f"drive{i}.csv").write_text("0,3,red\n3,6,green\n")
    return ["data.parts.only_blue=test"]


def no_such_recording(folder: Path, drives: Path) -> list[str]:
    copied(drives, folder)
    return ["data.parts.drive_1=test"]


def no_such_part(folder: Path, drives: Path) -> list[str]:
    copied(drives, folder)
    return ["data.parts.drive1=later"]


def nothing_left_to_train_on(folder: Path, drives: Path) -> list[str]:
    copied(drives, folder)
    return ["data.test_share=0.9"]


def not_a_recording(folder: Path, drives: Path) -> list[str]:
    (folder / "drive9.mcap").write_bytes(b"not a recording")
    return []


RECORDINGS: list[tuple[Callable[[Path, Path], list[str]], str]] = [
    (
        unlabeled,
        r"no labels: no topic of type std_msgs/msg/String .* write one, or name the topic with data\.topics\.label",
    ),
    (
        misspelt,
        r"the label 'read' is not in data\.labels: did you mean 'red'\? correct it, or name it in data\.nothing",
    ),
    (csv_out_of_order, r"drive3\.csv: line 3: spans must be in order"),
    (csv_in_unix_time, r"drive3\.csv: no span begins in the 6\.0 s of drive3; count seconds from its first message"),
    (spans_too_short, r"no labeled span lasts longer than the settling .* label longer, or lower data\.settle_s"),
    (
        too_few,
        r"too few recordings to split: 2 with labeled moments leave none for the part 'test'; "
        r"parts share no recording",
    ),
    (copy_under_another_name, r"monday/run holds the same as .*drive0: in two parts a copy is leakage"),
    (
        no_microphone,
        r"no recording has a topic for 'audio' \(audio\); name one with data\.topics\.audio=/\.\.\., "
        r".* holds /audio \(",
    ),
    (
        sound_undescribed,
        r"nothing says how to read the sound of 'audio': drive0 has /audio without an AudioInfo; "
        r"say it with data\.audio_format=S16LE",
    ),
    (sound_format_unknown, r"audio format 'MP3' is not known; use one of U8, S8, S16LE"),
    (wrong_type, r"/label is std_msgs/msg/String, and 'camera' takes sensor_msgs/msg/Image or"),
    (
        two_cameras,
        r"drive7: modality 'camera': several topics fit \(/left, /right\); name one with data\.topics\.camera",
    ),
    (
        never_learned,
        r"the part 'fusion', which is trained on, lacks 'blue'; record more of it, decide with data\.parts",
    ),
    (no_such_recording, r"data\.parts\.drive_1: no such recording with labeled moments; did you mean drive1\?"),
    (no_such_part, r"data\.parts\.drive1: 'later' is no part"),
    (nothing_left_to_train_on, r"data\.calibration_share and data\.test_share leave nothing to train on"),
    (not_a_recording, r"drive9\.mcap: cannot be read as rosbag2"),
]


@pytest.mark.parametrize(("break_it", "said"), RECORDINGS, ids=[break_it.__name__ for break_it, _ in RECORDINGS])
def test_broken_recordings_end_in_one_line(
    tmp_path: Path, drives: Path, tiny_bundle: Path, break_it: Callable[[Path, Path], list[str]], said: str
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    overrides = break_it(folder, drives)
    line = refused(
        folder,
        *overrides,
        "--encoder",
        f"camera={tiny_bundle / 'camera_encoder.onnx'}",
        "--encoder",
        f"audio={tiny_bundle / 'audio_encoder.onnx'}",
    )
    assert re.search(said, line), line


def test_a_broken_dataset_folder_ends_in_one_line(tmp_path: Path) -> None:
    folder = write_dataset(
        tmp_path / "data", {"camera": "image"}, {"encoders": 8, "fusion": 8, "calibration": 8, "test": 8}
    )
    shutil.copy(folder / "fusion" / "camera.npy", folder / "test" / "camera.npy")
    shutil.copy(folder / "fusion" / "camera_labels.npy", folder / "test" / "camera_labels.npy")
    assert re.search(r"test/camera\.npy holds the same as .*fusion/camera\.npy: .* leakage", refused(folder))
    (folder / "test" / "camera.npy").unlink()
    assert "test/camera.npy: missing; make the dataset again" in refused(folder)


def test_recordings_that_are_partly_broken_are_used_and_the_loss_is_said(tmp_path: Path, drives: Path) -> None:
    folder = copied(drives, tmp_path / "data")
    long = Recording().info(0).scene(0, 6, "red").scene(6, 12, "green")
    for i in range(240):  # several chunks of a megabyte, of which a cut leaves some
        long.add(i * 0.05, "/padding", long.make("std_msgs/msg/String", "x" * 30_000))
    whole = next(long.write(tmp_path / "whole").glob("*.mcap")).read_bytes()
    (folder / "cut.mcap").write_bytes(whole[: len(whole) * 7 // 10])
    (folder / "empty.mcap").write_bytes(b"")
    Recording().info(0).image(0, "red").image(1, "red").sound(1, "red").write(folder / "unlabeled")
    deaf = Recording().label(0, "blue")
    for i in range(30):
        deaf.image(i * 0.1, "blue")
    deaf.write(folder / "deaf")
    corpus = open_corpus(folder, BOTH, DataConfig())
    units = {u.recording: u for of in corpus.parts.values() for u in of}
    assert set(units) == {*(f"drive{i}" for i in range(5)), "cut.mcap", "deaf"} and units["cut.mcap"].duration_s > 5
    said = "\n".join(corpus.warnings)
    assert (
        len(corpus.warnings) == 4
        and re.search(r"empty\.mcap: cannot be read as rosbag2 .*; it is left out", said)
        and re.search(r"cut\.mcap: is cut off: \d+ messages are whole", said)
    )
    assert (
        "unlabeled: nothing in it is labeled; it is left out" in said
        and "deaf: has no topic for 'audio', which is missing at all its moments" in said
    )
    present = next(units["deaf"].batches(100)).present
    assert present[:, 0].all() and not present[:, 1].any()


def test_recordings_are_shown_without_encoders_and_with_what_is_lost(tmp_path: Path, drives: Path) -> None:
    folder = copied(drives, tmp_path / "data", 4)
    (folder / "a_broken.mcap").write_bytes(b"x")
    done = aecf("dataset", "inspect", folder, "--out", tmp_path / "page", "data.settle_s=1")
    assert done.exit_code == 0, done.output
    assert "camera (8x8 pixels), audio (1 s at 800 Hz)" in done.output
    assert re.search(r"warning: .*a_broken\.mcap: cannot be read as rosbag2 .*; it is left out", done.output)
    page = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert "a_broken.mcap: cannot be read" in page and all(f"<td>drive{i}</td>" in page for i in range(4))


def test_a_class_that_is_missing_or_rare_is_named(tmp_path: Path, drives: Path) -> None:
    folder = copied(drives, tmp_path / "data")
    drive(folder / "extra", 7)
    (folder / "extra.csv").write_text("0,1.0,yellow\n")
    corpus = open_corpus(folder, BOTH, DataConfig(stride_s=0.1))
    assert corpus.labels == ["blue", "green", "red", "yellow"] and "extra" in {
        u.recording for u in corpus.parts["fusion"]
    }
    assert corpus.warnings == [
        "the part 'calibration' lacks 'yellow': the confidence in it is not calibrated; record more of it",
        "the part 'test' lacks 'yellow': how well it is recognized is not measured; record more of it",
        "classes are imbalanced: 'blue' has 65 moments and 'yellow' 3; record more of the rare ones",
    ]
