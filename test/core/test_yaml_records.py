from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from aecf_ros.core.files import replacing, write_text
from aecf_ros.core.yaml_records import read_record, read_yaml


class RefusedError(ValueError):
    pass


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Patch(_Strict):
    frames: int = Field(gt=0)


class Camera(_Strict):
    kind: Literal["camera"]
    height: int
    color: Literal["rgb", "bgr"] = "rgb"
    scale: float | tuple[float, float] = 1.0


class Microphone(_Strict):
    kind: Literal["microphone"]
    window: Literal["hann", "window"] = "hann"
    patch: Patch | None = None


class Robot(_Strict):
    name: str
    sensors: list[Annotated[Camera | Microphone, Field(discriminator="kind")]]
    spans: dict[str, Patch] = {}

    @model_validator(mode="after")
    def _named(self) -> Robot:
        if self.name == "nameless":
            raise ValueError("a robot needs a name")
        return self


def read(tmp_path: Path, text: str) -> Robot:
    (tmp_path / "robot.yaml").write_text(text)
    return read_record(tmp_path / "robot.yaml", Robot, RefusedError, "see the manual")


def test_a_valid_file_becomes_a_record(tmp_path: Path) -> None:
    robot = read(tmp_path, "name: r2\nsensors:\n- {kind: camera, height: 4}\n- {kind: microphone, window: window}\n")
    assert robot.sensors == [Camera(kind="camera", height=4), Microphone(kind="microphone", window="window")]


@pytest.mark.parametrize(("text", "problem"), [
    ("nam: r2\nsensors: []", "line 1: nam: no such key; did you mean name?"),
    ("name: r2\nsensors: []\nwheels: 4", "line 3: wheels: no such key; there are name, sensors, spans"),
    ("name: r2\nsensors:\n- kind: camera\n  hight: 4",
     "line 4: sensors.0.hight: no such key; did you mean sensors.0.height?"),
    ("name: r2\nsensors:\n- kind: camera", "line 3: sensors.0.height: is missing"),
    ("name: r2\nsensors:\n- kind: camra",
     "line 3: sensors.0.kind: 'camra' is none of camera, microphone; did you mean camera?"),
    ("name: r2\nsensors:\n- height: 4", "line 3: sensors.0.kind: is missing"),
    ("name: r2\nsensors:\n- {kind: camera, height: 4, color: RGB8}",
     "sensors.0.color: 'RGB8' is none of rgb, bgr; did you mean rgb?"),
    ("name: r2\nsensors:\n- {kind: camera, height: tall}", "line 3: sensors.0.height: input should be a valid integer, "
     "unable to parse string as an integer, got 'tall'"),
    ("name: r2\nsensors:\n- {kind: camera, height: 4, scale: [a, 1]}",
     "line 3: sensors.0.scale: input should be a valid number"),
    ("name: r2\nsensors:\n- {kind: microphone, window: 7}", "sensors.0.window: 7 is none of hann, window"),
    ("name: r2\nsensors:\n- {kind: microphone, patch: {frame: 1}}", "did you mean sensors.0.patch.frames?"),
    (
        "name: r2\nsensors: []\nspans:\n  a: {frames: 0}",
        "line 4: spans.a.frames: input should be greater than 0, got 0",
    ),
    ("name: nameless\nsensors: []", "robot.yaml: a robot needs a name"),
    ("- r2", "robot.yaml: expected a mapping, got list"),
    ("", "robot.yaml: expected a mapping, got NoneType"),
    ("name: [", "robot.yaml: not YAML (line 1)"),
    ("name: 2026-13-45", "robot.yaml: not YAML"),
    ("name: " + "[" * 3000, "robot.yaml: not YAML"),
    ("name: !!python/name:os.system", "robot.yaml: not YAML (line 1)"),
])  # fmt: skip
def test_what_is_wrong_is_one_line_with_the_place_and_what_to_do(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(RefusedError) as refused:
        read(tmp_path, text)
    line = str(refused.value)
    assert (
        problem in line
        and line.startswith(str(tmp_path))
        and line.endswith(("; see the manual", "?"))
        and "\n" not in line
    )


def test_a_file_that_is_not_there_is_refused_with_an_example(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"absent\.yaml: cannot be read \(.*\); name config/robot\.yaml"):
        read_yaml(tmp_path / "absent.yaml", RefusedError, example="config/robot.yaml")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and [file.name for file in path.parent.iterdir()] == ["file.txt"]
