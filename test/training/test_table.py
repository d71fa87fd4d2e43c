"""Tables: what a row gives, what goes together, and what is only partly broken."""

import os
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile

from aecf_ros.modalities.audio.files import read_window
from aecf_ros.modalities.audio.resample import resample_window
from aecf_ros.modalities.audio.spec import AudioSpec
from aecf_ros.modalities.image.modality import IMAGE
from aecf_ros.modalities.image.spec import ImageSpec
from aecf_ros.modalities.messages import DecodeError
from aecf_ros.training.config import DataConfig
from aecf_ros.training.data.corpus import Corpus
from aecf_ros.training.data.duplicates import find_copies
from aecf_ros.training.data.table import table_corpus
from test.training.files import AUDIO, BOTH, CAMERA, rows_of_files, write_picture, write_rows, write_table


def part_of_lines(corpus: Corpus) -> dict[int, str]:
    return {line: part for part, units in corpus.parts.items() for unit in units for line in unit.lines}


def test_every_row_is_a_moment_of_one_part(tmp_path: Path) -> None:
    corpus = table_corpus(write_table(tmp_path), BOTH, DataConfig())
    assert corpus.labels == ["high", "low", "middle"] and corpus.paired and corpus.warnings == []
    parts = part_of_lines(corpus)
    assert sorted(parts) == list(range(2, 17))
    assert [sum(p == part for p in parts.values()) for part in ("fusion", "calibration", "test")] == [9, 3, 3]
    assert all(np.bincount(u.labels, minlength=3).min() >= 1 for units in corpus.parts.values() for u in units)


def test_a_unit_gives_its_files_at_the_encoders_sizes(tmp_path: Path) -> None:
    unit = table_corpus(write_table(tmp_path), BOTH, DataConfig()).parts["fusion"][0]
    batches = list(pickle.loads(pickle.dumps(unit)).batches(4))
    assert [len(b.present) for b in batches] == [4, 4, 1] and all(b.present.all() for b in batches)
    camera, audio = (np.concatenate([b.inputs[name] for b in batches]) for name in ("camera", "audio"))
    assert (camera.shape, camera.dtype, audio.shape, audio.dtype) == ((9, 8, 10, 3), np.uint8, (9, 400), np.int16)
    for row, line in enumerate(unit.lines):
        picture = cv2.imread(str(tmp_path / f"{line - 2}.png"))[..., ::-1]
        np.testing.assert_array_equal(camera[row], cv2.resize(picture, (10, 8), interpolation=cv2.INTER_AREA))
        np.testing.assert_array_equal(audio[row], soundfile.read(tmp_path / f"{line - 2}.wav", dtype="int16")[0])


def test_an_empty_cell_is_a_missing_modality_and_an_empty_label_no_moment(tmp_path: Path) -> None:
    rows = rows_of_files(tmp_path, 15)
    rows[0][0] = rows[4][1] = ""
    rows[8][2] = ""
    corpus = table_corpus(write_rows(tmp_path / "t.csv", "image,sound,label", rows), BOTH, DataConfig())
    parts = part_of_lines(corpus)
    assert 10 not in parts and len(parts) == 14 and "1 rows have no label and are left out" in corpus.warnings[0]
    present = {
        line: row
        for units in corpus.parts.values()
        for u in units
        for line, row in zip(u.lines, next(u.batches(99)).present.tolist(), strict=True)
    }
    assert (
        present[2] == [False, True]
        and present[6] == [True, False]
        and all(all(row) for line, row in present.items() if line not in (2, 6))
    )


def test_a_file_that_is_not_there_or_cannot_be_read_costs_only_itself_and_is_said(tmp_path: Path) -> None:
    table = write_table(tmp_path, 30)
    (tmp_path / "3.png").unlink()
    (tmp_path / "17.png").write_bytes((tmp_path / "17.png").read_bytes()[:100])
    soundfile.write(tmp_path / "20.wav", np.zeros(0), 800)
    corpus = table_corpus(table, BOTH, DataConfig())
    assert (
        len(corpus.warnings) == 1
        and "1 of 30 files of 'camera' are not there, the first in line 5: 3.png; it is missing in those rows"
        in corpus.warnings[0]
    )
    units = [u for units in corpus.parts.values() for u in units]
    missing = {
        (line, m)
        for u in units
        for b in [next(u.batches(99))]
        for line, row in zip(u.lines, b.present, strict=True)
        for m in np.flatnonzero(~row)
    }
    assert missing == {(5, 0), (19, 0), (22, 1)} and sum(len(u.labels) for u in units) == 30
    for u in units:
        list(u.batches(99))
    said = "\n".join(line for u in units for line in u.problems)
    assert (
        "1 files of 'camera'" in said
        and "line 19, 17.png: png of 100 bytes is truncated" in said
        and "line 22, 20.wav: sound of 0 samples" in said
    )


def test_rows_of_a_recording_stay_together_and_are_a_unit(tmp_path: Path) -> None:
    rows = [[*row, f"drive{i // 20}"] for i, row in enumerate(rows_of_files(tmp_path, 100))]
    corpus = table_corpus(write_rows(tmp_path / "t.csv", "image,sound,label,recording", rows), BOTH, DataConfig())
    units = {u.recording: part for part, of in corpus.parts.items() for u in of}
    assert len(units) == 5 and sorted(units.values()).count("fusion") == 3
    decided = table_corpus(tmp_path / "t.csv", BOTH, DataConfig(parts={"drive0": "test", "drive1": "val"}))
    assert {u.recording for u in decided.parts["test"]} >= {"drive0"} and {
        u.recording for u in decided.parts["calibration"]
    } >= {"drive1"}


def test_rows_that_share_a_file_or_its_content_stay_together_unless_they_show_nothing(tmp_path: Path) -> None:
    rows = rows_of_files(tmp_path, 30)
    rows[3][1] = rows[0][1]  # the same path
    (tmp_path / "6.png").write_bytes((tmp_path / "9.png").read_bytes())  # the same content
    for row in rows[12:]:
        row[2] = "empty" if row[2] == "high" else row[2]
        row[1] = rows[14][1] if row[2] == "empty" else row[1]
    table = write_rows(tmp_path / "t.csv", "image,sound,label", rows)
    empty = {i + 2 for i, row in enumerate(rows) if row[2] == "empty"}
    for seed in range(8):
        parts = part_of_lines(table_corpus(table, BOTH, DataConfig(nothing=["empty"], split_seed=seed)))
        assert parts[2] == parts[5] and parts[8] == parts[11]
        assert len({parts[line] for line in empty}) == 3


def test_the_split_column_decides_by_our_words_and_those_of_others(tmp_path: Path) -> None:
    words = ["train", "fusion", "val", "calibration", "test"]
    rows = [[*row, words[i // 3 % 5]] for i, row in enumerate(rows_of_files(tmp_path, 15))]
    parts = part_of_lines(
        table_corpus(write_rows(tmp_path / "t.csv", "image,sound,label,split", rows), BOTH, DataConfig())
    )
    due = {"train": "fusion", "val": "calibration"}
    assert parts == {i + 2: due.get(row[3], row[3]) for i, row in enumerate(rows)}


def test_columns_may_be_called_otherwise_and_parquet_reads_like_csv(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = rows_of_files(tmp_path, 15)
    csv = table_corpus(
        write_rows(tmp_path / "t.csv", "left,sound,category", rows),
        BOTH,
        DataConfig(columns={"camera": "left", "label": "category"}),
    )
    columns = dict(zip(["camera", "audio", "label"], zip(*rows, strict=True), strict=True))
    columns["audio"] = [None, *columns["audio"][1:]]
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    same = table_corpus(tmp_path / "t.parquet", BOTH, DataConfig())
    assert {line - 1: part for line, part in part_of_lines(csv).items()} == part_of_lines(
        same
    )  # rows count from 1 in Parquet
    assert sum(int((~next(u.batches(99)).present).sum()) for units in same.parts.values() for u in units) == 1


def test_the_digest_follows_the_files_and_the_encoders_and_not_where_they_lie(tmp_path: Path) -> None:
    def digests(folder: Path, modalities: tuple = BOTH) -> list[str]:
        return [
            u.digest
            for units in table_corpus(folder / "table.csv", modalities, DataConfig()).parts.values()
            for u in units
        ]

    write_table(tmp_path / "a")
    before = digests(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    assert digests(tmp_path / "b") == before and len(set(before)) == 3
    assert digests(tmp_path / "b", (CAMERA, AudioSpec(name="audio", kind="audio", rate_hz=800, window_s=0.4))) != before
    write_picture(tmp_path / "b" / "0.png", 999)
    os.utime(tmp_path / "b" / "0.png", ns=(1, 1))
    assert digests(tmp_path / "b") != before


def test_without_encoders_the_files_say_their_sizes(tmp_path: Path) -> None:
    corpus = table_corpus(write_table(tmp_path), None, DataConfig())
    assert list(corpus.modalities) == [
        ImageSpec(name="image", kind="image", height=16, width=20),
        AudioSpec(name="sound", kind="audio", rate_hz=800, window_s=0.5),
    ]


def test_of_a_longer_sound_the_loudest_window_is_taken(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-0.01, 0.01, 8000)
    samples[5150:5350] *= 50
    soundfile.write(tmp_path / "long.wav", samples, 800, "PCM_16")
    window = read_window(tmp_path / "long.wav", AUDIO)
    whole = soundfile.read(tmp_path / "long.wav", dtype="int16")[0]
    start = next(i for i in range(len(whole)) if (whole[i : i + 400] == window).all())
    assert start <= 5150 and start + 400 >= 5350


def test_a_shorter_sound_is_preceded_by_zeros_and_resampled_as_the_pipeline_does(tmp_path: Path) -> None:
    stereo = np.random.default_rng(0).uniform(-0.5, 0.5, (600, 2))
    soundfile.write(tmp_path / "short.flac", stereo, 2400, "PCM_16")
    window = read_window(tmp_path / "short.flac", AUDIO)
    mono = soundfile.read(tmp_path / "short.flac", dtype="float32")[0].mean(1)
    np.testing.assert_array_equal(window, np.round(resample_window(mono, 2400, 800, 400) * 32768).astype(np.int16))
    assert not window[:200].any() and np.abs(window[200:]).max() > 1000


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda path: path.write_bytes(b"no sound"), "not a sound file that libsndfile reads"),
        (lambda path: soundfile.write(path, np.zeros(0), 800), "sound of 0 samples"),
        (lambda path: soundfile.write(path, np.full(400, np.nan, np.float32), 800, "FLOAT"), "NaN"),
    ],
)
def test_sound_that_cannot_be_used_is_refused(tmp_path: Path, write, said: str) -> None:
    write(tmp_path / "a.wav")
    with pytest.raises(DecodeError, match=said):
        read_window(tmp_path / "a.wav", AUDIO)


def test_a_picture_of_another_format_is_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.bmp"), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(DecodeError, match="neither a JPEG nor a PNG"):
        IMAGE.read_file(tmp_path / "a.bmp", CAMERA)


def test_copies_are_found_by_content(tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(200_000)
    files = {name: tmp_path / name for name in ("a", "b", "c", "d")}
    files["a"].write_bytes(content)
    files["b"].write_bytes(content[:60_000] + b"x" + content[60_001:])  # differs where no sample is taken
    files["c"].write_bytes(content)
    files["d"].write_bytes(content[:-1])
    assert find_copies(files.values()) == {
        files["a"]: files["a"],
        files["b"]: files["b"],
        files["c"]: files["a"],
        files["d"]: files["d"],
    }
