"""Import every module of aecf_ros with the Python that runs this: `python dev/import_all.py [--stub NAME,...]`.

Packages named after `--stub` that are not installed are replaced by empty stand-ins, so that the modules' own code is
executed without torch or ROS. Exit code 1 if a module cannot be imported.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


class _Anything(type):
    """A class of which every attribute, call, subscript and union is that class again."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls

    def __getitem__(cls, key: object) -> Any:
        return cls

    def __or__(cls, other: object) -> Any:
        return cls

    __ror__ = __or__

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        # As a decorator it gives back what it decorates.
        return args[0] if len(args) == 1 and not kwargs and callable(args[0]) else cls


class _Stub(types.ModuleType):
    """A module that has every name."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name, (), {})


class _StubFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the stubbed packages and all their submodules."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = {name for name in names if name and importlib.util.find_spec(name) is None}

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> Any:
        if fullname.split(".")[0] not in self._names:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Stub(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """A stub has nothing to execute."""


def main(arguments: Sequence[str]) -> int:
    """Import every module; print those that fail."""
    if arguments[:1] == ["--stub"]:
        sys.meta_path.append(_StubFinder(arguments[1].split(",")))
    sys.path.insert(0, str(ROOT))
    failures = 0
    files = sorted((ROOT / "aecf_ros").rglob("*.py"))
    for file in files:
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        try:
            importlib.import_module(name)
        except Exception as error:
            failures += 1
            print(f"{name}: {type(error).__name__}: {error}")
    print(
        f"Python {sys.version_info[0]}.{sys.version_info[1]}: {len(files) - failures} of {len(files)} modules imported"
    )
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
