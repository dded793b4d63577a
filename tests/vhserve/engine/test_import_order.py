"""The order of the engine's parts, read off their import statements: a part imports only those before it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from vhserve import engine

ORDER = ("checks", "kv_cache", "layer_plan", "attention", "weights", "token_counters", "scheduler", "models")
ROOT = Path(engine.__file__).parent
PREFIX = "vhserve.engine."


def imports(path: Path) -> Iterator[str]:
    """Modules of the engine that a file imports anywhere, those for type checking included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith(PREFIX))
        elif isinstance(node, ast.ImportFrom) and node.module is not None and f"{node.module}.".startswith(PREFIX):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (
                name if (ROOT / f"{name.removeprefix(PREFIX).replace('.', '/')}.py").exists() else node.module
                for name in names
            )


def part(module: str) -> str:
    return module.removeprefix(PREFIX).split(".")[0]


@pytest.mark.parametrize("name", ORDER)
def test_a_part_imports_only_those_before_it(name: str) -> None:
    files = sorted((ROOT / name).glob("*.py")) or [ROOT / f"{name}.py"]
    found = {part(module) for file in files for module in imports(file)}
    assert found <= set(ORDER[: ORDER.index(name) + 1])


def test_the_order_is_stated_and_complete() -> None:
    assert {*ORDER, "plugin"} == set(engine.__all__)
    assert ", ".join(f"`{name}`" for name in ORDER) in " ".join((engine.__doc__ or "").split())
    assert {part(module) for module in imports(ROOT / "plugin.py")} == {"checks"}


def test_no_two_files_import_each_other() -> None:
    graph = {
        PREFIX + str(path.relative_to(ROOT).with_suffix("")).replace("/", "."): set(imports(path))
        for path in ROOT.rglob("*.py")
        if path.name != "__init__.py"
    }
    while leaves := {name for name, needed in graph.items() if not needed & set(graph)}:
        graph = {name: needed for name, needed in graph.items() if name not in leaves}
    assert not graph
