"""How a recording is read, asked in the same words by every command that reads one."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from aecf_ros.commands.shared.terminal import in_one_line
from aecf_ros.replay.bag.errors import BagError
from aecf_ros.replay.bag.topics import AudioFormat, Reading


def _topic_names(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """``camera=/x`` pairs."""
    named = {}
    for value in values:
        name, equals, topic = value.partition("=")
        if not (name and equals and topic):
            raise click.BadParameter(f"'{value}' is not STREAM=TOPIC, such as camera=/front/image; none is no topic")
        named[name] = topic
    return named


def recording_options(command: Callable) -> Callable:
    """Options of a command, which gets them as the keyword argument ``reading``, a :class:`Reading`."""

    @wraps(command)
    def with_reading(
        *, topics: dict[str, str], audio_format: str | None, audio_rate: int, audio_channels: int, **others: Any
    ) -> Any:
        try:
            reading = Reading(
                topics, AudioFormat(audio_format, audio_rate, audio_channels) if audio_format is not None else None
            )
        except BagError as error:
            raise in_one_line(error) from None
        return command(reading=reading, **others)

    options = (
        click.option(
            "--topic",
            "topics",
            multiple=True,
            metavar="STREAM=TOPIC",
            callback=_topic_names,
            help="Topic of a stream (camera=/x, audio_info=/y, label=/z, audio=none); found by type and name.",
        ),
        click.option(
            "--audio-format", default=None, metavar="S16LE", help="Sample format of sound that no AudioInfo describes."
        ),
        click.option(
            "--audio-rate",
            type=click.IntRange(1, 384_000),
            default=16000,
            show_default=True,
            help="Its sample rate in Hz.",
        ),
        click.option(
            "--audio-channels", type=click.IntRange(1, 64), default=1, show_default=True, help="Its channels."
        ),
    )
    for option in reversed(options):
        with_reading = option(with_reading)
    return with_reading
