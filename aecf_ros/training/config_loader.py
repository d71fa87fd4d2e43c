"""Loading of a training configuration: a YAML file and ``key=value`` overrides from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from aecf_ros.core.yaml_records import describe, read_yaml
from aecf_ros.training.config import ConfigError, TrainConfig


def load_config(path: Path | str | None = None, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a YAML file and apply ``key=value`` overrides with dotted keys, for example ``head.optimizer.epochs=5``.

    An override changes one key of a group and keeps the other keys of the file, or their defaults. An override of a
    whole group (``head.options={gate: additive}``) replaces the group, as a file does.

    Raises:
        ConfigError: the file cannot be read or is not a YAML mapping, an override has no ``=``, a key is unknown, or a
            value is out of bounds.
    """
    fields: dict[str, Any] = {}
    if path is not None:
        fields = read_yaml(path, ConfigError, example="config/av_digits.yaml") or {}
        if not isinstance(fields, dict):
            raise ConfigError(f"{path}: expected a mapping, got {type(fields).__name__}; correct it")
    for override in overrides:
        _apply(override, fields)
    try:
        return TrainConfig.model_validate(fields)
    except ValidationError as error:
        problem = describe(error, TrainConfig)
        remedy = "" if problem.endswith("?") else "; correct the configuration"
        raise ConfigError(f"{path}: {problem}{remedy}" if path is not None else problem + remedy) from None


def _apply(override: str, fields: dict[str, Any]) -> None:
    """Set the key of an override in ``fields``, in place."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"'{override}' is not key=value; write for example head.optimizer.epochs=5")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"'{override}': the value is not YAML; quote it") from None
    *groups, last = key.split(".")
    group, defaults = fields, TrainConfig().model_dump()
    for name in groups:
        default = defaults.get(name)
        if group.get(name) is None:
            group[name] = {} if default is None else default
        group, defaults = group[name], default if isinstance(default, dict) else {}
        if not isinstance(group, dict):
            raise ConfigError(f"'{override}': {name} holds a value, not a group of keys; correct the key")
    group[last] = value
