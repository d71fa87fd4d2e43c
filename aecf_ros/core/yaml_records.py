"""YAML files that people write, read into pydantic records; what is wrong in them is said in one line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from aecf_ros.core.suggestions import nearest

Record = TypeVar("Record")


def read_yaml(path: Path | str, refusal: type[ValueError], remedy: str = "correct it", example: str = "") -> Any:
    """What a YAML file holds; ``None`` where it is empty.

    Args:
        refusal: type of the error.
        remedy: end of the error of a file that is not YAML: what to do.
        example: what to name, for the error of a file that cannot be read.

    Raises:
        refusal: the file cannot be read, or is not YAML.
    """
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise refusal(f"{path}: cannot be read ({why}); name {example or 'a YAML file'}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # PyYAML lets bad dates and deep nesting through
        mark = getattr(error, "problem_mark", None)
        raise refusal(f"{path}: not YAML{f' (line {mark.line + 1})' if mark else ''}; {remedy}") from None


def read_mapping(
    path: Path | str, refusal: type[ValueError], remedy: str = "correct it", example: str = ""
) -> dict[str, Any]:
    """What a YAML file of keys and values holds; see :func:`read_yaml`.

    Raises:
        refusal: as :func:`read_yaml`, and where the file holds something else.
    """
    fields = read_yaml(path, refusal, remedy, example)
    if not isinstance(fields, dict):
        raise refusal(f"{path}: expected a mapping, got {type(fields).__name__}; {remedy}")
    return fields


def read_record(
    path: Path | str, record: type[Record], refusal: type[ValueError], remedy: str = "correct it", example: str = ""
) -> Record:
    """A YAML file as a pydantic record; see :func:`read_yaml`.

    Raises:
        refusal: as :func:`read_mapping`, and as :func:`validate_record`.
    """
    return validate_record(read_mapping(path, refusal, remedy, example), record, path, refusal, remedy)


def validate_record(
    fields: Any, record: type[Record], path: Path | str, refusal: type[ValueError], remedy: str = "correct it"
) -> Record:
    """The contents of the file ``path`` as a pydantic record, or as a union of records.

    Raises:
        refusal: a field is missing, unknown or invalid; ``path: line N: field: what; remedy``, without a
            remedy where the nearest valid name is suggested.
    """
    try:
        return TypeAdapter(record).validate_python(fields)
    except ValidationError as error:
        line = line_of(path, _most_telling(error)["loc"])
        problem = describe(error, record)
        ending = "" if problem.endswith("?") else f"; {remedy}"
        raise refusal(f"{path}: {f'line {line}: ' if line else ''}{problem}{ending}") from None


def describe(error: ValidationError, record: Any) -> str:
    """What is wrong, ``field.path: problem``, of the first field that is.

    Args:
        record: the record, or union of records, that was validated; its keys are compared with an unknown one.
    """
    first = _most_telling(error)
    steps, records = _field_path(first["loc"], record)
    where, context = ".".join(steps), first.get("ctx", {})
    if first["type"] == "extra_forbidden":
        known = sorted({key for kind in records for key in kind.model_fields})
        parent = "".join(f"{step}." for step in steps[:-1])
        near = nearest(steps[-1], known, cutoff=0.5)
        return f"{where}: no such key; " + (
            f"did you mean {parent}{near}?" if near else f"there are {', '.join(known)}"
        )
    if first["type"] == "missing":
        return f"{'.'.join(steps[:-1])}: has too few items" if steps[-1].isdecimal() else f"{where}: is missing"
    if first["type"] == "union_tag_not_found":
        return ".".join([*steps, context["discriminator"].strip("'")]) + ": is missing"
    if first["type"] in ("literal_error", "union_tag_invalid"):
        if first["type"] == "union_tag_invalid":
            where = ".".join([*steps, context["discriminator"].strip("'")])
        value = context.get("tag", first["input"])
        choices = re.findall(r"'([^']*)'", context.get("expected_tags") or context["expected"]) or [context["expected"]]
        near = nearest(str(value).lower(), choices, cutoff=0.5)
        return f"{where}: {value!r} is none of {', '.join(choices)}" + (f"; did you mean {near}?" if near else "")
    if first["type"] == "value_error":
        return ": ".join(filter(None, [where, str(context["error"])]))
    return f"{where}: {first['msg'][0].lower()}{first['msg'][1:]}, got {first['input']!r:.60}"


def line_of(path: Path | str, location: tuple[int | str, ...]) -> int | None:
    """The line, from 1, of the field at ``location`` in a YAML file, or of the nearest group around it that exists."""
    try:
        node = yaml.compose(Path(path).read_text(encoding="utf-8"), yaml.SafeLoader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None
    line = None
    for step in location:
        if isinstance(node, yaml.MappingNode):
            pair = next((pair for pair in node.value if pair[0].value == str(step)), None)
            if pair is not None:
                line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
    return line


def _most_telling(error: ValidationError) -> Any:
    """The first problem; an unknown key before others, because it explains why another key is missing."""
    return min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")


def _field_path(location: tuple[int | str, ...], record: Any) -> tuple[list[str], list[type[BaseModel]]]:
    """Keys and indices of a location, without pydantic's names of union members, and the records with its last key."""
    steps: list[str] = []
    parents = records = _records_in(record)
    for step in location:
        if fields := [kind.model_fields[step] for kind in records if step in kind.model_fields]:
            parents, records = records, [inner for field in fields for inner in _records_in(field.annotation)]
        elif tagged := [kind for kind in records if _has_tag(kind, str(step))]:
            records = tagged
            continue
        elif isinstance(step, str) and ("[" in step or step.removeprefix("constrained-") in ("float", "int", "str")):
            continue  # a member of a union of plain types
        else:
            parents = records
        steps.append(str(step))
    return steps, parents


def _has_tag(record: type[BaseModel], tag: str) -> bool:
    return any(tag in get_args(field.annotation) for field in record.model_fields.values())


def _records_in(annotation: Any) -> list[type[BaseModel]]:
    """The records that an annotation names, through lists, unions and ``Annotated``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [record for inner in get_args(annotation) for record in _records_in(inner)]
