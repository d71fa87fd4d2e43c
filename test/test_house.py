"""Limits that keep the code easy to live in: short functions, small folders, plain names, imports in one direction."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "aecf_ros"
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}
MAX_FUNCTION_LINES = 60
MAX_MODULES_IN_A_FOLDER = 14
EMPTY_NAMES = {"of", "found"}
"""Names that say nothing of what they hold."""


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def imported_modules(path: Path) -> set[str]:
    """Modules of the package that a module imports when it is itself imported."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name if name in MODULES else f"{name}.__init__" for name in names} & set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_no_function_is_long(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text())
    long = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions(tree)}
    assert {name: lines for name, lines in long.items() if lines > MAX_FUNCTION_LINES} == {}


def test_no_folder_is_crowded() -> None:
    counts = {folder: len(list(folder.glob("*.py"))) for folder in [PACKAGE, *PACKAGE.rglob("*/")] if folder.is_dir()}
    assert {str(folder): count for folder, count in counts.items() if count > MAX_MODULES_IN_A_FOLDER} == {}


@pytest.mark.parametrize("module", MODULES)
def test_no_variable_has_an_empty_name(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text())
    fields = {
        id(node.target)
        for body in ast.walk(tree)
        if isinstance(body, ast.ClassDef)
        for node in body.body
        if isinstance(node, ast.AnnAssign)
    }
    names = (node for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in fields)
    bound = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    bound |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    assert bound & EMPTY_NAMES == set()


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {name: imported_modules(path) - {name} for name, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_imports_between_rooms_go_one_way() -> None:
    def room(module: str) -> str:
        return ".".join(module.split(".")[:-1][:2])

    graph: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        graph.setdefault(room(name), set()).update({room(other) for other in imported_modules(path)} - {room(name)})
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
