"""A configuration as a person gives it: a YAML file, and ``key=value`` words that change single keys of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from aecf_ros.training.run.config import ConfigError, TrainConfig, UnknownKey
from aecf_ros.training.run.yaml import read_yaml


def load_config(path: Path | str | None = None, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a YAML file and apply ``key=value`` overrides with dotted keys, for example ``head.optimizer.epochs=5``.

    An override changes one key of a group and leaves the group's others as the file has them, or as they are by default. One that
    gives a whole group (``head.options={gate: additive}``) replaces it, as a file does.

    Raises:
        ConfigError: no such file, not a YAML mapping, an override without ``=``, an unknown key or a value out of
            bounds.
    """
    fields: dict[str, Any] = {}
    if path is not None:
        fields = read_yaml(path, ConfigError, "config/av_digits.yaml") or {}
        if not isinstance(fields, dict):
            raise ConfigError(f"{path}: holds {type(fields).__name__} where a mapping is due; correct it")
    for override in overrides:
        _override(fields, override)
    source = f"{path}: " if path is not None else ""
    try:
        return TrainConfig.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        steps = [str(step) for step in first["loc"]]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, UnknownKey):
            raise ConfigError(source + _unknown(".".join(steps), cause.key, cause.known)) from None
        said = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{source}{'.'.join(steps) or 'configuration'}: {said}; correct the value") from None


def refuse_unknown(group: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Refuse keys that a group has no use for.

    Args:
        group: dotted, for example ``head.options``.

    Raises:
        ConfigError: a key is none of ``known``; the line names the nearest, or all of them where none is near.
    """
    for key in given:
        if key not in known:
            raise ConfigError(_unknown(group, key, known))


def _unknown(group: str, key: str, known: Sequence[str]) -> str:
    at, near = f"{group}." if group else "", get_close_matches(key, known, n=1)
    return f"{at}{key}: no such key; " + (f"did you mean {at}{near[0]}?" if near else f"there are {', '.join(known)}")


def _override(fields: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"'{override}' is not key=value; write for example head.optimizer.epochs=5")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"'{override}': the value is not YAML; quote it") from None
    *path, last = key.split(".")
    at, default = fields, TrainConfig().model_dump()
    for step in path:
        default = default.get(step)
        if at.get(step) is None:
            at[step] = {} if default is None else default
        at, default = at[step], default if isinstance(default, dict) else {}
        if not isinstance(at, dict):
            raise ConfigError(f"'{override}': {step} holds a value, not a group of keys; correct the key")
    at[last] = value
