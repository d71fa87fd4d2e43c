"""YAML files that people write: read, or refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def read_yaml(path: Path | str, refusal: type[ValueError], example: str) -> Any:
    """What a YAML file holds; None where it is empty.

    Args:
        refusal: raised where it cannot be read, or is not YAML.
        example: a file to name as one that can be read.
    """
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        raise refusal(f"{path}: cannot be read; name a YAML file, for example {example}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise refusal(f"{path}: not YAML{f' (line {mark.line + 1})' if mark else ''}; correct it") from None
