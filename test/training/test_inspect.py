"""`aecf dataset inspect`: what it counts, and that its page shows it."""

import base64
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from aecf_ros.commands.shared.corpus import open_corpus
from aecf_ros.training.config import DataConfig
from aecf_ros.training.inspection.summary import inspect_corpus
from aecf_ros.training.inspection.tables import class_table, missing_table, presence_table, unit_table
from test.command_line import aecf
from test.training.conftest import write_dataset
from test.training.files import BOTH, rows_of_files, write_rows, write_sound, write_table


def inspected(path: Path, out: Path, *options: str) -> tuple[str, str]:
    """What the command says, and the page it writes."""
    done = aecf("dataset", "inspect", path, "--out", out, *options)
    assert done.exit_code == 0, done.output
    return done.output, (out / "index.html").read_text(encoding="utf-8")


def test_counts_are_those_of_the_table(tmp_path: Path) -> None:
    rows = rows_of_files(tmp_path, 30)
    for i in (0, 3, 6):
        rows[i][1] = ""  # three of the ten of 'low' have no sound
    for i in (2, 5):
        rows[i][2] = "empty"
    found = inspect_corpus(
        open_corpus(write_rows(tmp_path / "t.csv", "image,sound,label", rows), BOTH, DataConfig(nothing=["empty"]))
    )
    _, header, cells = class_table(found)
    assert header == ["class", "fusion", "calibration", "test", "all", "share"]
    assert [(row[0], row[-2], row[-1]) for row in cells[:-1]] == [
        ("high", "8", "26.7%"),
        ("low", "10", "33.3%"),
        ("middle", "10", "33.3%"),
        ("(nothing)", "2", "6.7%"),
        ("all", "30", ""),
    ]
    assert all(int(row[1]) + int(row[2]) + int(row[3]) == int(row[4]) for row in cells[:-1])
    assert missing_table(found)[2] == [
        ["high", "0 (0.0%)", "0 (0.0%)"],
        ["low", "0 (0.0%)", "3 (30.0%)"],
        ["middle", "0 (0.0%)", "0 (0.0%)"],
        ["(nothing)", "0 (0.0%)", "0 (0.0%)"],
    ]
    together = {row[0]: sum(int(cell.split()[0]) for cell in row[1:]) for row in presence_table(found)[2]}
    assert together == {"camera+audio": 27, "camera": 3}
    _, header, cells = unit_table(found)
    assert (
        header == ["name", "part", "moments", "no camera", "no audio", "classes"]
        and sum(int(row[2]) for row in cells) == 30
    )
    assert sum(round(int(row[2]) * float(row[4].rstrip("%")) / 100) for row in cells) == 3 and {
        row[3] for row in cells
    } == {"0%"}


def test_examples_are_samples_of_their_class(tmp_path: Path) -> None:
    found = inspect_corpus(open_corpus(write_table(tmp_path, 30), BOTH, DataConfig()))
    units = {u.name: u for of in found.corpus.parts.values() for u in of}
    for label, examples in found.examples.items():
        assert [sum(e.modality == name for e in examples) for name in ("camera", "audio")] == [6, 6]
        for e in examples:
            inputs = next(units[e.unit].batches(99)).inputs[e.modality]
            rows = [i for i, sample in enumerate(inputs) if (sample == e.sample).all()]
            assert rows and units[e.unit].labels[rows[0]] == label


def test_the_page_is_self_contained_and_shows_pictures_and_waveforms(tmp_path: Path) -> None:
    said, page = inspected(write_table(tmp_path / "data", 30), tmp_path / "page")
    assert "30 moments, 3 classes; image (16x20 pixels), sound (0.5 s at 800 Hz)" in said and "wrote" in said
    assert not re.findall(r"(?:src|href)=['\"]?(?!['\"]?data:)", page)
    pictures = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", page)
    assert len(pictures) == 18 and page.count("<polygon") == 18
    shown = cv2.imdecode(np.frombuffer(base64.b64decode(pictures[0]), np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape == (154, 192, 3) and shown.std() > 30
    xs, ys = np.array(
        [list(map(float, point.split(","))) for point in re.search(r"points='([^']+)'", page)[1].split()]
    ).T
    assert (
        xs.min() == 0 and xs.max() == 180 and 2 <= ys.min() < 30 and 66 < ys.max() <= 94
    )  # noise to half of full scale, around the middle at 48


def test_the_lengths_of_sound_files_are_said_beside_the_window(tmp_path: Path, tiny_bundle: Path) -> None:
    rows = rows_of_files(tmp_path / "data", 15)
    write_sound(tmp_path / "data" / "4.wav", 99, seconds=2.0)
    said, page = inspected(
        write_rows(tmp_path / "data" / "t.csv", "camera,audio,label", rows),
        tmp_path / "page",
        *(
            option
            for name in ("camera", "audio")
            for option in ("--encoder", f"{name}={tiny_bundle / f'{name}_encoder.onnx'}")
        ),
    )
    line = "files of 'audio' last 0.5 to 2 s, 0.5 s in the median; of a longer one the loudest 0.5 s are taken"
    assert line in said and line.replace("'", "&#39;") in page


def test_names_from_the_data_cannot_become_markup(tmp_path: Path) -> None:
    rows = [[*row[:2], f"<b>{row[2]}"] for row in rows_of_files(tmp_path / "data", 15)]
    _, page = inspected(write_rows(tmp_path / "data" / "[red]<i>.csv", "image,sound,label", rows), tmp_path / "page")
    assert "<b>" not in page and "<i>" not in page and "&lt;b&gt;low" in page


def test_a_dataset_folder_is_shown_modality_by_modality(tmp_path: Path) -> None:
    folder = write_dataset(
        tmp_path / "data",
        {"camera": "image", "audio": "audio"},
        {"encoders": 16, "fusion": 12, "calibration": 8, "test": 8},
    )
    said, page = inspected(folder, tmp_path / "page")
    assert "88 samples, paired by label" in said and "(nothing)" in said
    found = inspect_corpus(open_corpus(folder))
    assert presence_table(found)[2] == [["camera", "16", "12", "8", "8"], ["audio", "16", "12", "8", "8"]]
    assert missing_table(found)[2] == [] and "Balance" in page


def test_encoders_decide_the_sizes(tmp_path: Path, tiny_bundle: Path) -> None:
    rows = rows_of_files(tmp_path / "data", 15)
    table = write_rows(tmp_path / "data" / "t.csv", "camera,audio,label", rows)
    said, _ = inspected(
        table,
        tmp_path / "page",
        "--encoder",
        f"camera={tiny_bundle / 'camera_encoder.onnx'}",
        "--encoder",
        f"audio={tiny_bundle / 'audio_encoder.onnx'}",
        "data.stride_s=0.25",
    )
    assert "camera (8x8 pixels), audio (0.5 s at 800 Hz)" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--encoder", "camera"], "'camera' is not NAME=PATH"),
        (["data.stride=1"], "data.stride"),
    ],
)
def test_wrong_usage_is_said(tmp_path: Path, options: list[str], said: str) -> None:
    done = aecf("dataset", "inspect", write_table(tmp_path), "--out", tmp_path / "page", *options)
    assert done.exit_code == 2 and said in done.output
