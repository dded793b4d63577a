"""What vhserve uses of vLLM, read off both sources: names, overridden methods, calls, methods that are replaced.

Imports neither. A release is whatever reads a file by its path (`vllm_releases`).
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

Function = ast.FunctionDef | ast.AsyncFunctionDef
ELSEWHERE = ast.Pass()
"""Stands for a name that vLLM takes from another library."""


class Files(Protocol):
    """A release's files."""

    def read(self, path: str) -> str | None: ...


class Release:
    """A release of vLLM, in which dotted names are looked up."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.trees: dict[str, ast.Module | None] = {}

    def module(self, name: str) -> ast.Module | None:
        """A module's source; None where there is none."""
        if name not in self.trees:
            path = name.replace(".", "/")
            text = self.files.read(f"{path}.py") or self.files.read(f"{path}/__init__.py")
            self.trees[name] = None if text is None else ast.parse(text)
        return self.trees[name]

    def find(self, module: str, name: str) -> tuple[str, ast.AST] | None:
        """Where a name of a module is defined, and how; None where it is not."""
        tree = self.module(module)
        if tree is None:
            return None
        for node in _statements(tree.body):
            if isinstance(node, Function | ast.ClassDef) and node.name == name and not _is_overload(node):
                return module, node
            if name in _assigned(node):
                return module, node
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return self._imported(module, node, alias.name)
            if isinstance(node, ast.Import) and name in {a.asname or a.name.partition(".")[0] for a in node.names}:
                return module, ELSEWHERE
        if self.module(f"{module}.{name}") is not None:
            return f"{module}.{name}", self.module(f"{module}.{name}") or tree
        return self._lazy(module, tree, name)

    def _imported(self, module: str, node: ast.ImportFrom, name: str) -> tuple[str, ast.AST] | None:
        source = node.module or ""
        if node.level:
            is_package = self.files.read(f"{module.replace('.', '/')}.py") is None
            parts = module.split(".")
            kept = parts[: len(parts) - node.level + is_package]
            source = ".".join([*kept, *filter(None, [source])])
        return self.find(source, name) if source.startswith("vllm") else (module, ELSEWHERE)

    def _lazy(self, module: str, tree: ast.Module, name: str) -> tuple[str, ast.AST] | None:
        """Names that a module's `__getattr__` finds by a table of `name: ".module:name"`."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    if isinstance(key, ast.Constant) and key.value == name and isinstance(value, ast.Constant):
                        source, _, own = str(value.value).partition(":")
                        return self.find(f"{module}{source}", own)
        return None

    def member(self, module: str, owner: ast.ClassDef, name: str) -> tuple[str, ast.AST] | None:
        """A class's method or attribute, its own or one that it inherits."""
        for where, one in self.lineage(module, owner):
            for node in _statements(one.body):
                if (isinstance(node, Function | ast.ClassDef) and node.name == name) or name in _assigned(node):
                    return where, node
        return None

    def lineage(self, module: str, owner: ast.ClassDef) -> Iterator[tuple[str, ast.ClassDef]]:
        """A class and those of vLLM's that it derives from, nearest first."""
        yield module, owner
        for base in owner.bases:
            named = base.value if isinstance(base, ast.Subscript) else base
            found = self.find(module, named.id) if isinstance(named, ast.Name) else None
            if found is not None and isinstance(found[1], ast.ClassDef):
                yield from self.lineage(found[0], found[1])


def _is_overload(node: ast.AST) -> bool:
    """Whether a definition is for type checkers alone, in front of the one that is called."""
    return isinstance(node, Function) and any(ast.unparse(one).endswith("overload") for one in node.decorator_list)


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """A block's statements, those under conditions too."""
    for node in body:
        yield node
        for part in ("body", "orelse", "finalbody"):
            if isinstance(node, ast.If | ast.Try | ast.With):
                yield from _statements(getattr(node, part, []))
        for handler in getattr(node, "handlers", []):
            yield from _statements(handler.body)


def _assigned(node: ast.AST) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {one.id for target in targets if target for one in ast.walk(target) if isinstance(one, ast.Name)}


@dataclass(frozen=True)
class Signature:
    """What a function may be called with, without `self`."""

    positional: tuple[str, ...]
    keywords: frozenset[str]
    required: frozenset[str]
    any_positional: bool
    any_keyword: bool

    @classmethod
    def of(cls, node: Function) -> "Signature":
        """Read off a function's definition; of a method without its first parameter, unless it is static."""
        args = node.args
        static = any(isinstance(one, ast.Name) and one.id == "staticmethod" for one in node.decorator_list)
        names = [one.arg for one in (*args.posonlyargs, *args.args)]
        is_method = bool(names) and names[0] in {"self", "cls"} and not static
        with_default = names[len(names) - len(args.defaults) :] if args.defaults else []
        only = {one.arg: default for one, default in zip(args.kwonlyargs, args.kw_defaults, strict=True)}
        positional = names[is_method:]
        required = set(positional) - set(with_default) | {name for name, default in only.items() if default is None}
        return cls(
            tuple(positional), frozenset(only), frozenset(required), args.vararg is not None, args.kwarg is not None
        )

    def why_not_called_by(self, call: ast.Call) -> str | None:
        """What is wrong with the arguments of a call; None where nothing is, or where they are not all written out."""
        given = {one.arg for one in call.keywords}
        starred = any(isinstance(one, ast.Starred) for one in call.args) or None in given
        unknown = given - {None, *self.positional, *self.keywords}
        if unknown and not self.any_keyword:
            return f"has no parameter {', '.join(sorted(map(str, unknown)))}"
        if starred:
            return None
        if len(call.args) > len(self.positional) and not self.any_positional:
            return f"takes {len(self.positional)} arguments by position"
        missing = self.required - given - set(self.positional[: len(call.args)])
        return f"needs {', '.join(sorted(missing))}" if missing else None

    def why_not_in_place_of(self, stock: "Signature") -> str | None:
        """What calls of `stock` this one would not take; None where it takes all."""
        if not self.any_positional:
            own = self.positional[: len(stock.positional)]
            if own != stock.positional or stock.any_positional:
                return f"takes {self.positional} where vLLM's takes {stock.positional}"
        elif self.positional != stock.positional[: len(self.positional)]:
            return f"takes {self.positional} first where vLLM's takes {stock.positional}"
        known = {*self.positional, *self.keywords}
        if not self.any_keyword and (unknown := ({*stock.positional, *stock.keywords} - known) or stock.any_keyword):
            return f"has no parameter {unknown}"
        if more := self.required - {*stock.positional, *stock.keywords}:
            return f"needs {', '.join(sorted(more))}, which vLLM's does not"
        return None


@dataclass
class Source:
    """One of vhserve's modules: what it imports of vLLM, and where."""

    path: Path
    name: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text(encoding="utf-8"))

    @cached_property
    def alternatives(self) -> list[list[tuple[str, str | None]]]:
        """Imports of vLLM's as (module, name); those of which one must do (`except ImportError`) stand together."""
        either: dict[ast.AST, int] = {}
        for number, node in enumerate(ast.walk(self.tree)):
            if isinstance(node, ast.Try) and any(
                "ImportError" in ast.unparse(one.type or node) for one in node.handlers
            ):
                either |= {part: number for block in (node.body, *[h.body for h in node.handlers]) for part in block}
        groups: dict[object, list[tuple[str, str | None]]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vllm":
                for alias in node.names:
                    key = (either[node], alias.name) if node in either else (node.lineno, alias.name)
                    groups.setdefault(key, []).append((node.module or "", alias.name))
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.split(".")[0] == "vllm":
                        groups.setdefault((node.lineno, alias.name), []).append((alias.name, None))
        return list(groups.values())

    @cached_property
    def bound(self) -> dict[str, list[tuple[str, str | None]]]:
        """What of vLLM's a name of this module stands for; with `except ImportError` it may be one of several."""
        found: dict[str, list[tuple[str, str | None]]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vllm":
                for alias in node.names:
                    found.setdefault(alias.asname or alias.name, []).append((node.module or "", alias.name))
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                (target,) = (
                    node.targets
                    if isinstance(node, ast.Assign) and len(node.targets) == 1
                    else [getattr(node, "target", None)]
                )
                if not isinstance(target, ast.Name):
                    continue
                if isinstance(node.value, ast.Name) and node.value.id in found:
                    found.setdefault(target.id, []).extend(found[node.value.id])
                elif (dotted := ast.unparse(node.value)).startswith("vllm.") and dotted.replace(".", "").isidentifier():
                    found.setdefault(target.id, []).append((dotted, None))
        return found

    @property
    def classes(self) -> dict[str, ast.ClassDef]:
        """Its classes, by name."""
        return {node.name: node for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef)}


def sources(root: Path) -> dict[str, Source]:
    """vhserve's modules, by dotted name."""
    found = {}
    for path in sorted((root / "vhserve").rglob("*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        found[name] = Source(path, name)
    return found
