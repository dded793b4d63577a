"""The modules of `vhserve.server`: their public list, that importing the packages is cheap, and no circles."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import vhserve

ROOT = Path(vhserve.__file__).parent / "server"
PREFIX = "vhserve.server"


@pytest.mark.parametrize("package", ["vhserve.server", "vhserve.server.monitoring"])
def test_the_public_names_are_the_modules(package: str) -> None:
    module = importlib.import_module(package)
    folder = Path(module.__file__ or "").parent
    found = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    assert set(module.__all__) == {name for name in found if not name.startswith("_")}
    assert module.__all__ == sorted(module.__all__)


def test_importing_the_packages_and_settings_brings_in_no_model_library() -> None:
    code = (
        "import sys; import vhserve.server.monitoring, vhserve.server.settings, vhserve.server.middleware\n"
        "print([name for name in ('torch', 'transformers', 'vllm', 'openai') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


def imports(file: Path) -> set[str]:
    """Modules of the package that a file imports, inside functions and under `TYPE_CHECKING` included."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_no_two_modules_import_each_other() -> None:
    files = {
        ".".join((PREFIX, *path.relative_to(ROOT).with_suffix("").parts)): path
        for path in ROOT.rglob("*.py")
        if path.name != "__init__.py"
    }
    graph = {name: imports(path) & set(files) for name, path in files.items()}
    while leaves := {name for name, needed in graph.items() if not needed & set(graph)}:
        graph = {name: needed for name, needed in graph.items() if name not in leaves}
    assert not graph
