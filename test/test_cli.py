"""`aecf`: every command is where the table says, and what cannot be had is said in one line."""

import io

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

from aecf_ros.cli import _COMMANDS, main
from aecf_ros.commands.shared.terminal import say_warnings


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_command_is_where_the_table_says_and_explains_itself(name: str) -> None:
    pytest.importorskip("torch", reason="torch is not installed: only training needs it")
    pytest.importorskip("rclpy", reason="rclpy is not installed: demo and watch need it")
    command = main.get_command(click.Context(main), name)
    assert command is not None and command.name == name and command.help
    assert CliRunner().invoke(main, [name, "-h"]).exit_code == 0


def test_help_lists_every_command_and_imports_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.import_module", lambda module: pytest.fail(f"imported {module}"))
    said = CliRunner().invoke(main, ["-h"], catch_exceptions=False).output
    assert all(f"  {name} " in said for name in _COMMANDS)


def test_a_misspelled_command_is_refused_with_the_nearest() -> None:
    done = CliRunner().invoke(main, ["evalute"])
    assert done.exit_code == 2 and "no such command 'evalute'; did you mean evaluate?" in done.output
    assert "No such command 'x'" in CliRunner().invoke(main, ["x"]).output


@pytest.mark.parametrize(
    ("package", "module", "command", "words"),
    [
        ("rclpy", "aecf_ros.commands.watch", "watch", "source the setup.bash of a ROS installation"),
        (
            "torch",
            "aecf_ros.commands.train",
            "train",
            "pip install torch onnx onnxscript safetensors scikit-learn soundfile",
        ),
        ("rosbags", "aecf_ros.commands.replay", "replay", "pip install rosbags"),
    ],
)
def test_a_package_that_is_not_there_is_named_with_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, package: str, module: str, command: str, words: str
) -> None:
    def absent(name: str) -> None:
        assert name == module
        raise ModuleNotFoundError(name=package)

    monkeypatch.setattr("importlib.import_module", absent)
    done = CliRunner().invoke(main, [command])
    assert done.exit_code == 1 and f"`aecf {command}` needs the package '{package}'; {words}" in done.output


def test_a_warning_may_hold_brackets() -> None:
    console = Console(file=io.StringIO(), width=20)
    say_warnings(console, ["day[red]1.mcap: cannot be read at all", "second"])
    assert console.file.getvalue() == "warning: day[red]1.mcap: cannot be read at all\nwarning: second\n"
