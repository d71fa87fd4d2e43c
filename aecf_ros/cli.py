"""`aecf` and its subcommands. Each is imported when it is asked for, so that none pays for another's libraries."""

from __future__ import annotations

import importlib
from difflib import get_close_matches

import click

from aecf_ros import __version__

_TRAINING = ("onnx", "onnxscript", "safetensors", "sklearn", "soundfile", "torch")
_COMMANDS = {
    "calibrate": (
        "aecf_ros.commands.calibrate:calibrate_command",
        "Fit calibration again to a recording of this robot.",
    ),
    "compare": (
        "aecf_ros.commands.compare:compare_command",
        "Compare two bundles on the same samples, with intervals.",
    ),
    "dataset": ("aecf_ros.commands.dataset:dataset_command", "Look at labeled data before training on it."),
    "demo": ("aecf_ros.commands.demo:demo_command", "Watch the fusion node keep predicting while its sensors fail."),
    "doctor": (
        "aecf_ros.commands.doctor:doctor_command",
        "Say what this machine has, what is wrong with it, and what to do.",
    ),
    "evaluate": (
        "aecf_ros.commands.evaluate:evaluate_command",
        "Replay recordings through the node's pipeline, with any sensor failing.",
    ),
    "export": (
        "aecf_ros.commands.export:export_command",
        "Write a bundle's head as a torch exported program.",
    ),
    "inspect": ("aecf_ros.commands.inspect:inspect_command", "Show what a bundle holds, and whether it verifies."),
    "quantize": ("aecf_ros.commands.quantize:quantize_command", "Write a bundle again in fp16 or int8, measured."),
    "replay": (
        "aecf_ros.commands.replay:replay_command",
        "Write a recording again with what the node would have published.",
    ),
    "train": ("aecf_ros.commands.train:train_command", "Turn labeled data into a model bundle."),
    "watch": ("aecf_ros.commands.watch:watch_command", "Watch a running fusion node live."),
    "wrap-encoder": (
        "aecf_ros.commands.wrap_encoder:wrap_command",
        "Put an ONNX encoder's preprocessing into its graph, and check it.",
    ),
}
"""Name -> where the command is, and what it does, for ``aecf --help``."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module, command = _COMMANDS[name][0].split(":")
        try:
            return getattr(importlib.import_module(module), command)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("aecf_ros"):
                raise
            raise click.ClickException(
                f"`aecf {name}` needs the package '{error.name}'; {_how_to_get(error.name)}"
            ) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in _COMMANDS and (near := get_close_matches(args[0], _COMMANDS, n=1)):
            ctx.fail(f"no such command '{args[0]}'; did you mean {near[0]}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, does) for name, (_, does) in _COMMANDS.items()])


def _how_to_get(package: str) -> str:
    if package == "rclpy":
        return "source the setup.bash of a ROS installation, or `make setup-demo` for the wheels"
    return (
        f"pip install {'torch onnx onnxscript safetensors scikit-learn soundfile' if package in _TRAINING else package}"
    )


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Sensor fusion that keeps predicting, with an honest confidence, when a camera or a microphone stops."""


if __name__ == "__main__":
    main()
