"""What was true when: labels, their changes and the settling after them."""

from pathlib import Path

import pytest

from aecf_ros.replay.scoring.ground_truth import (
    SETTLING_MARGIN_S,
    LabelError,
    ground_truth_from_labels,
    read_label_file,
)

LABELS = ["red", "green", "blue"]


def test_the_contract_adds_a_quarter_of_a_second_to_the_window() -> None:
    assert SETTLING_MARGIN_S == 0.25
    assert ground_truth_from_labels([], LABELS, 1.0).settling_s == 1.25


def test_a_label_settles_for_a_window_and_a_quarter_second() -> None:
    truth = ground_truth_from_labels([(2, "red"), (5, "blue")], LABELS, 0.5)
    assert [truth.at(t) for t in (0, 1.999)] == [(None, False)] * 2  # before the first label nothing is known
    assert [truth.at(t) for t in (2, 2.749)] == [(0, True)] * 2
    assert [truth.at(t) for t in (2.75, 4.999)] == [(0, False)] * 2
    assert truth.at(5) == (2, True)
    assert truth.at(1000) == (2, False)


def test_a_label_that_is_repeated_does_not_settle_again() -> None:
    truth = ground_truth_from_labels([(0, "red"), (1, "red"), (2, "red")], LABELS, 0.5)
    assert truth.changes_s == (0,) and truth.at(2.1) == (0, False)


def test_nothing_shown_is_none_and_has_its_settling_too() -> None:
    truth = ground_truth_from_labels([(0, "red"), (3, ""), (6, "red")], LABELS, 0.5)
    assert [truth.at(t) for t in (3.1, 4, 6.1, 7)] == [(None, True), (None, False), (0, True), (0, False)]


def test_a_name_that_is_no_label_means_nothing_is_there() -> None:
    assert ground_truth_from_labels([(0, "red"), (3, "mauve")], LABELS, 0.5).at(5) == (None, False)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    return path


def test_a_csv_with_and_without_a_header(tmp_path: Path) -> None:
    due = [(0.5, "red"), (2.0, ""), (3.0, "blue"), (4.5, "")]
    assert read_label_file(written(tmp_path, "start_s,end_s,label\n0.5,2,red\n3,4.5,blue\n"), LABELS) == due
    assert (
        read_label_file(written(tmp_path, "\ufeffstart_s,end_s,label\n0.5,2,red\n3,4.5,blue\n"), LABELS) == due
    )  # as spreadsheets write it
    assert read_label_file(written(tmp_path, "0.5,2,red\r\n\r\n3,4.5, blue \r\n"), LABELS) == due


def test_spans_that_touch_change_the_label_without_a_pause(tmp_path: Path) -> None:
    named = read_label_file(written(tmp_path, "0,2,red\n2,4,blue\n"), LABELS)
    assert named == [(0, "red"), (2, "blue"), (4, "")]
    assert ground_truth_from_labels(named, LABELS, 0.5).changes_s == (0, 2, 4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0,2\n", "line 1"),
        ("0,2,red\nsoon,3,red\n", "line 2"),
        ("0,2,mauve\n", "'mauve'"),
        ("2,1,red\n", "not empty"),
        ("0,3,red\n2,4,blue\n", "in order"),
        ("5,6,red\n2,4,blue\n", "line 2"),
        ("1,1,red\n", "line 1"),
    ],
)
def test_a_line_that_does_not_hold(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(LabelError, match=words):
        read_label_file(written(tmp_path, text), LABELS)


def test_a_csv_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="no such file"):
        read_label_file(tmp_path / "nowhere.csv", LABELS)


def test_a_csv_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(b"\xff\xfe0,1,red")
    with pytest.raises(LabelError, match="not text"):
        read_label_file(path, LABELS)


@pytest.mark.parametrize("line", ["nan,2,red", "0,inf,red", "0,nan,red", "-inf,1,red"])
def test_times_that_are_no_numbers(tmp_path: Path, line: str) -> None:
    with pytest.raises(LabelError, match="line 1"):
        read_label_file(written(tmp_path, line), LABELS)
