"""The import graph of a checkout, read off its source: files, rooms (folders), circles, and the ways between two files.

Reads imports only, those inside functions and under TYPE_CHECKING too; runs nothing of the project. As a command it
prints the counts by which a layout can be compared with another: `python tests/support/import_graph.py [CHECKOUT]`.
"""

import ast
import sys
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

PACKAGES = ("profiles", "calibrate", "vhserve")
Graph = dict[str, set[str]]
"""Modules, by dotted name, that each module imports."""


def read_graph(root: Path) -> Graph:
    """All modules below a checkout's packages and what they import of each other."""
    files = {_module(path.relative_to(root)): path for package in PACKAGES for path in (root / package).rglob("*.py")}
    return {module: _imported(module, path, files) for module, path in sorted(files.items())}


def _module(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _imported(module: str, path: Path, files: dict[str, Path]) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            submodules = names & files.keys()
            # `from package import module` imports the package too only if it takes a name of the package's own.
            found |= submodules if submodules == names else submodules | {node.module}
    return (found & files.keys()) - {module}


def room(module: str, graph: Graph) -> str:
    """The folder of a module, with dots; a module that stands directly in a top-level package is a room of its own."""
    is_package = any(other.startswith(f"{module}.") for other in graph)
    folder = module if is_package else module.rpartition(".")[0]
    return module if folder in PACKAGES else folder


def rooms(graph: Graph) -> Graph:
    """The rooms that each room imports from."""
    found: dict[str, set[str]] = defaultdict(set)
    for module, imported in graph.items():
        here = room(module, graph)
        found[here] |= {room(other, graph) for other in imported} - {here}
    return dict(found)


def circles(graph: Graph) -> list[list[str]]:
    """Groups of modules, or rooms, that import each other in a circle."""
    reach = {start: _reachable(start, graph) for start in graph}
    groups = {tuple(sorted({start, *(o for o in reach[start] if start in reach[o])})) for start in graph}
    return sorted(list(group) for group in groups if len(group) > 1)


def _reachable(start: str, graph: Graph) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        fresh = graph.get(waiting.pop(), set()) - seen
        seen |= fresh
        waiting += fresh
    return seen


def longest_way(start: str, end: str, graph: Graph) -> list[str]:
    """The longest chain of imports from one module to another; the graph must have no circles on the way."""

    @cache
    def longest(module: str) -> tuple[str, ...] | None:
        if module == end:
            return (end,)
        ways = [way for other in sorted(graph[module]) if (way := longest(other)) is not None]
        return (module, *max(ways, key=len)) if ways else None

    return list(longest(start) or ())


def inside(package: str, graph: Graph) -> int:
    """How many imports there are among the files of a package."""
    mine = {module for module in graph if module == package or module.startswith(f"{package}.")}
    return sum(len(graph[module] & mine) for module in mine)


def report(root: Path) -> str:
    """The counts, a line each."""
    graph = read_graph(root)
    files = Counter(str(path.parent.relative_to(root)) for name in PACKAGES for path in (root / name).rglob("*.py"))
    lines = ["files per folder: " + ", ".join(f"{folder} {count}" for folder, count in sorted(files.items()))]
    lines += [
        f"imports among the files of {package}: {inside(package, graph)}" for package in ("calibrate", "vhserve.engine")
    ]
    lines += [f"circles of files: {circles(graph)}", f"circles of rooms: {circles(rooms(graph))}"]
    # vLLM loads the model class in its own process, by the name that `architectures` has for it.
    parts = {module.rpartition(".")[2]: module for module in graph if module.startswith("vhserve.engine.")}
    way = longest_way("vhserve.commands.serve", parts["architectures"], graph)
    way += longest_way("vhserve.engine.models", parts["partial_backend"], graph)
    lines.append(f"longest way from vhserve serve to the attention backend: {len(way)} files: {' > '.join(way)}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(report(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2]))
