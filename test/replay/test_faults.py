"""Faults files: what is taken, and how near misses are named."""

from pathlib import Path

import pytest

from aecf_ros.replay.faults.schedule import Fault, FaultError, load_faults

STREAMS = ["camera", "audio"]
GOOD = "{stream: camera, kind: drop, start_s: 1, end_s: 2.5}"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "faults.yaml"
    path.write_text(text)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(FaultError) as caught:
        load_faults(path, STREAMS)
    line = str(caught.value)
    assert "\n" not in line and str(path) in line
    return line


def test_a_schedule_is_read_in_its_order(tmp_path: Path) -> None:
    path = written(tmp_path, f"# a comment\n- {GOOD}\n- {{stream: audio, kind: drop, start_s: 0, end_s: 9}}\n")
    assert load_faults(path, STREAMS) == (
        Fault(stream="camera", kind="drop", start_s=1, end_s=2.5),
        Fault(stream="audio", kind="drop", start_s=0, end_s=9),
    )


@pytest.mark.parametrize("text", ["", "# nothing fails\n", "[]"])
def test_an_empty_file_has_no_faults(tmp_path: Path, text: str) -> None:
    assert load_faults(written(tmp_path, text), STREAMS) == ()


def test_the_end_of_a_fault_is_not_part_of_it(tmp_path: Path) -> None:
    (fault,) = load_faults(written(tmp_path, f"- {GOOD}"), STREAMS)
    assert [fault.covers("camera", t) for t in (0.999, 1, 2.499, 2.5)] == [False, True, True, False]
    assert not fault.covers("audio", 1.5)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "nowhere.yaml")


def test_a_directory(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path)


@pytest.mark.parametrize("text", ["- [", "a: b: c", "- {start_s: 2026-13-45}"])
def test_a_file_that_is_not_yaml(tmp_path: Path, text: str) -> None:
    assert "not YAML" in refusal(written(tmp_path, text))


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "faults.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    assert "not YAML" in refusal(path)


@pytest.mark.parametrize(("text", "kind"), [("stream: camera", "dict"), ("drop", "str"), ("7", "int")])
def test_a_file_that_is_not_a_list(tmp_path: Path, text: str, kind: str) -> None:
    assert f"holds {kind}" in refusal(written(tmp_path, text))


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("{stream: camera, kind: dorp, start_s: 1, end_s: 2}", ["entry 2", "'dorp'", "did you mean 'drop'?"]),
        ("{stream: camera, kind: meteorite, start_s: 1, end_s: 2}", ["entry 2", "'meteorite'", "use one of"]),
        ("{stream: camra, kind: drop, start_s: 1, end_s: 2}", ["entry 2", "'camra'", "did you mean 'camera'?"]),
        ("{stream: lidar, kind: drop, start_s: 1, end_s: 2}", ["entry 2", "'lidar'", "use one of camera, audio"]),
        ("{stream: camera, kind: drop, start_s: 2, end_s: 1}", ["entry 2", "2.0 to 1.0 s"]),
        ("{stream: camera, kind: drop, start_s: 1, end_s: 1}", ["entry 2", "empty"]),
        ("{stream: camera, kind: drop, start_s: -1, end_s: 1}", ["entry 2", "negative"]),
        ("{stream: camera, kind: drop, start_s: .nan, end_s: 1}", ["entry 2", "finite"]),
        ("{stream: camera, kind: drop, start_s: 0, end_s: .inf}", ["entry 2", "end_s", "finite"]),
        ("{stream: camera, kind: drop, start_s: soon, end_s: 1}", ["entry 2", "start_s"]),
        ("{stream: camera, kind: drop, start_s: 1}", ["entry 2", "end_s", "required"]),
        ("{stream: camera, kind: drop, start_s: 1, end_s: 2, untill: 3}", ["entry 2", "untill"]),
        ("just words", ["entry 2"]),
    ],
)
def test_an_entry_that_does_not_hold_is_named_by_number(tmp_path: Path, entry: str, words: list[str]) -> None:
    line = refusal(written(tmp_path, f"- {GOOD}\n- {entry}\n"))
    assert all(word in line for word in words), line


def test_the_schedule_of_the_demo_is_one() -> None:
    faults = load_faults(Path(__file__).resolve().parents[2] / "config" / "demo_faults.yaml", STREAMS)
    assert {f.stream for f in faults} == {"camera", "audio"}
