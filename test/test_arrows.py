"""The rooms import only what the contract allows them: recorded while importing, and read from the source for what
is imported later.

``fusion`` and ``runtime`` never meet; ``core`` knows nobody; torch stays in ``fusion`` and ``training``, rclpy in
``nodes``.
"""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "aecf_ros"
YAML_RECORDS = {"pydantic", "yaml"}
ALLOWED = {
    "core": {"core", "numpy"},
    "modalities": {"core", "health", "modalities", "numpy", "cv2", "soxr", "pydantic"},
    "health": {"core", "health", "numpy"},
    "runtime": {"core", "modalities", "health", "runtime", "numpy", "onnxruntime"},
    "fusion": {"fusion", "torch"},
    "training": {
        "core",
        "modalities",
        "health",
        "fusion",
        "training",
        "numpy",
        "torch",
        "onnx",
        "onnxruntime",
        "safetensors",
        "rich",
        "matplotlib",
        "jinja2",
    }
    | YAML_RECORDS,
    "replay": {"core", "modalities", "health", "runtime", "replay", "numpy", "rosbags", "matplotlib", "rich"}
    | YAML_RECORDS,
}
"""Room -> rooms and third-party packages that any of its modules may import."""

ALLOWED_IN_MODULE = {
    "core.bundle": YAML_RECORDS,
    "core.yaml_records": YAML_RECORDS,
    "core.ray_cluster": {"ray"},
    "runtime.torch_backend": {"torch"},
    "modalities.corruptions": {"torch"},
    "modalities.image.corruptions": {"torch"},
    "modalities.audio.corruptions": {"torch"},
    "modalities.vector.corruptions": {"torch"},
    "modalities.audio.files": {"soundfile"},
    "replay.report.overlay": {"cv2"},
    "replay.bag.writer": {"cv2"},
    "training.data.archives": {"soxr"},
    "training.data.protocols": {"soxr"},
    "training.data.table_probe": {"soundfile"},
    "training.data.table_rows": {"pyarrow"},
    "training.run.tune": {"optuna"},
    "training.inspection.page": {"cv2"},
}
"""Further packages that one module of a room may import."""

NEVER_LOADED = {
    "core": {"torch", "onnxruntime", "rclpy", "rosbags", "matplotlib"},
    "health": {"torch", "onnxruntime", "rclpy", "rosbags", "matplotlib"},
    "runtime": {"torch", "rclpy", "rosbags", "matplotlib"},
    "fusion": {"onnxruntime", "onnx", "rclpy", "cv2", "rosbags", "pydantic", "yaml"},
    "training": {"rclpy", "rosbags"},
    "replay": {"torch", "rclpy"},
}
"""Room -> packages that must not even come along with what it imports."""

RECORDER = """
import builtins, importlib, json, pkgutil, sys
room = sys.argv[1]
real, direct = builtins.__import__, set()
def record(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__", "")
    if importer == room or importer.startswith(room + "."):
        direct.add((importer, name if level == 0 else "." * level + name))
    return real(name, globals, locals, fromlist, level)
builtins.__import__ = record
package = importlib.import_module(room)
for module in pkgutil.walk_packages(package.__path__, room + "."):
    importlib.import_module(module.name)
print(json.dumps({"direct": sorted(direct), "loaded": sorted(sys.modules)}))
"""


def target(name: str) -> str | None:
    """What an import counts as: a room, a third-party package, or ``None`` for the standard library and the package
    itself.
    """
    parts = name.split(".")
    if parts[0] == PACKAGE:
        return parts[1] if len(parts) > 1 else None
    return None if parts[0] in sys.stdlib_module_names else parts[0]


def imports_in_source(file: Path) -> set[str]:
    """Every module that a file imports, at its top or within a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            # `from aecf_ros import core` names its room in what it imports.
            found |= (
                {f"{module}.{alias.name}" for alias in node.names} if module == PACKAGE else {"." * node.level + module}
            )
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "attr", "") == "import_module"
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            found.add(node.args[0].value)
    return found


def violations(room: str, importer: str, names: set[str]) -> list[str]:
    """The imports of a module (``room.module``) that its room may not have."""
    allowed = ALLOWED[room] | ALLOWED_IN_MODULE.get(importer, set())
    return [
        f"{importer} imports {name}"
        for name in sorted(names)
        if name.startswith(".") or (target(name) is not None and target(name) not in allowed)
    ]


def violations_in_source(root: Path, room: str) -> list[str]:
    folder = root / PACKAGE / room
    found = []
    for file in sorted(folder.rglob("*.py")):
        importer = ".".join([room, *file.relative_to(folder).with_suffix("").parts]).removesuffix(".__init__")
        found += violations(room, importer, imports_in_source(file))
    return found


def violations_while_importing(root: Path, room: str) -> list[str]:
    """Import every module of a room in a fresh interpreter: what they import themselves, and what comes along."""
    done = subprocess.run(
        [sys.executable, "-c", RECORDER, f"{PACKAGE}.{room}"],
        cwd=root,
        env={"PYTHONPATH": str(root), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    recorded = json.loads(done.stdout)
    by_importer: dict[str, set[str]] = {}
    for importer, name in recorded["direct"]:
        by_importer.setdefault(importer.removeprefix(f"{PACKAGE}."), set()).add(name)
    found = [line for importer, names in by_importer.items() for line in violations(room, importer, names)]
    loaded = {name.split(".")[0] for name in recorded["loaded"]}
    rooms = {name.split(".")[1] for name in recorded["loaded"] if name.startswith(f"{PACKAGE}.")}
    found += [f"{room} loads {name}" for name in sorted(loaded & NEVER_LOADED[room])]
    return found + [f"{room} loads {PACKAGE}.{name}" for name in sorted(rooms - ALLOWED[room])]


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    assert violations_in_source(ROOT, room) == []


@pytest.mark.parametrize("room", ["core", "health", "runtime", "replay"])
def test_importing_a_room_loads_only_what_it_may(room: str) -> None:
    assert violations_while_importing(ROOT, room) == []


@pytest.mark.parametrize("room", ["fusion", "training"])
def test_importing_a_room_of_training_loads_only_what_it_may(room: str) -> None:
    pytest.importorskip("torch", reason="torch is not installed: only training needs it")
    assert violations_while_importing(ROOT, room) == []


def test_every_room_is_watched() -> None:
    rooms = {p.name for p in (ROOT / PACKAGE).iterdir() if (p / "__init__.py").is_file()}
    assert rooms == {*ALLOWED, "nodes", "commands"}


def test_only_nodes_import_rclpy() -> None:
    outside = [
        p
        for p in (ROOT / PACKAGE).rglob("*.py")
        if "nodes" not in p.parts and any(n.split(".")[0] == "rclpy" for n in imports_in_source(p))
    ]
    assert outside == []


def test_nodes_do_not_train() -> None:
    for file in (ROOT / PACKAGE / "nodes").rglob("*.py"):
        targets = {target(name) for name in imports_in_source(file)}
        assert not targets & {"training", "fusion", "torch", "onnx"}, file


def test_the_command_line_imports_what_it_runs_only_when_it_runs() -> None:
    tree = ast.parse((ROOT / PACKAGE / "cli.py").read_text(encoding="utf-8"))
    at_the_top = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names} | {
        node.module for node in tree.body if isinstance(node, ast.ImportFrom)
    }
    assert {target(name) for name in at_the_top} - {None} == {"click"}


@pytest.mark.parametrize(
    ("room", "module", "line", "found"),
    [
        ("core", "metrics/classification", "import torch", "core.metrics.classification imports torch"),
        (
            "health",
            "monitor",
            "def f():\n    from aecf_ros.runtime import pipeline",
            "health.monitor imports aecf_ros.runtime",
        ),
        ("core", "drift", "import cv2", "core.drift imports cv2"),
        ("core", "types", "from aecf_ros import replay", "core.types imports aecf_ros.replay"),
        ("core", "types", "from . import decode", "core.types imports ."),
        (
            "fusion",
            "layer",
            "from aecf_ros.runtime.pipeline import Pipeline",
            "fusion.layer imports aecf_ros.runtime.pipeline",
        ),
        (
            "runtime",
            "backends",
            "def f():\n    import aecf_ros.fusion.layer",
            "runtime.backends imports aecf_ros.fusion.layer",
        ),
        (
            "replay",
            "scoring/score",
            "import importlib\nimportlib.import_module('rclpy')",
            "replay.scoring.score imports rclpy",
        ),
    ],
)
def test_a_forbidden_arrow_is_found_in_the_source(
    tmp_path: Path, room: str, module: str, line: str, found: str
) -> None:
    shutil.copytree(ROOT / PACKAGE, tmp_path / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / PACKAGE / room / f"{module}.py").open("a") as f:
        f.write(f"\n{line}\n")
    assert violations_in_source(tmp_path, room) == [found]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("import yaml", ["core.drift imports yaml"]),
        ("from aecf_ros.runtime import trace", ["core.drift imports aecf_ros.runtime", "core loads aecf_ros.runtime"]),
        ("import onnxruntime", ["core.drift imports onnxruntime", "core loads onnxruntime"]),
    ],
)
def test_a_forbidden_arrow_is_found_while_importing(tmp_path: Path, line: str, found: list[str]) -> None:
    shutil.copytree(ROOT / PACKAGE, tmp_path / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / PACKAGE / "core" / "drift.py").open("a") as f:
        f.write(f"\n{line}\n")
    assert violations_while_importing(tmp_path, "core") == found
