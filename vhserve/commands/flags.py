"""What the fields of a command's model are called on the command line, and what a user meant who misspelt one.

Knows how pydantic-settings makes flags of fields. Does not know the commands.
"""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo
from pydantic_settings import CliDualFlag, CliPositionalArg, CliSubCommand, CliUnknownArgs

from profiles.suggestions import did_you_mean

_KINDS: Any = (CliPositionalArg, CliSubCommand, CliDualFlag)
_POSITIONAL, _COMMAND, _DUAL = (get_args(kind[bool])[-1] for kind in _KINDS)
_UNKNOWN = get_args(CliUnknownArgs)[2]
"""How pydantic-settings marks fields, behind a field's type."""


def command(model: type[BaseModel], alias: str | None = None) -> Any:
    """A command's field: its line in the list of commands is the first of its help page."""
    return Field(alias=alias, description=(model.__doc__ or "").partition("\n")[0])


def commands(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The commands below a command line or a command, by name; none for most."""
    return {
        field.alias or name: next(one for one in get_args(field.annotation) if one is not type(None))
        for name, field in model.model_fields.items()
        if _COMMAND in field.metadata
    }


def all_commands(model: type[BaseModel], *above: str) -> Iterator[tuple[tuple[str, ...], type[BaseModel]]]:
    """Every command and its words, such as `("profile", "show")`, those of its own behind each."""
    for name, command in commands(model).items():
        yield (*above, *name.split()), command
        yield from all_commands(command, *above, *name.split())


def options(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Options of a command by their flag, such as `--batch-size`."""
    found = {}
    for name, field in model.model_fields.items():
        if not {_POSITIONAL, _COMMAND, _UNKNOWN} & set(field.metadata):
            word = (field.alias or name).replace("_", "-")
            found["-" * min(len(word), 2) + word] = field
    return found


def flags(model: type[BaseModel]) -> list[str]:
    """All that may begin with a dash: options, their negations, and help."""
    own = options(model)
    return [*own, *(f"--no-{flag[2:]}" for flag, field in own.items() if _DUAL in field.metadata), "-h", "--help"]


def passes_flags_on(model: type[BaseModel]) -> bool:
    """Whether a command hands flags that it does not know to another program."""
    return any(_UNKNOWN in field.metadata for field in model.model_fields.values())


def find_command(root: type[BaseModel], words: Sequence[str]) -> tuple[list[str], type[BaseModel]]:
    """The command that a command line names, as far as it names one that exists, and its model."""
    found: list[str] = []
    model = root
    for word in words:
        below = commands(model)
        if word not in below:
            break
        found.append(word)
        model = below[word]
    return found, model


def too_many(root: type[BaseModel], words: Sequence[str], extra: str) -> tuple[str, str, str]:
    """What was wrong, what was expected, and what to do, where a command line has words that no option takes."""
    found, model = find_command(root, words)
    command = " ".join(["vhserve", *found])
    own = [(field.alias or name).upper() for name, field in model.model_fields.items() if _POSITIONAL in field.metadata]
    longer = {name.split()[1]: name for name in commands(root) if found and name.startswith(f"{found[0]} ")}
    close = get_close_matches(words[len(found)], longer, n=1) if words[len(found) :] else []
    fix = f"did you mean {longer[close[0]]}?" if close else f"see {command} --help"
    return f"{command} has no place for {extra}", " ".join([command, *own, "[options]"]), fix


def misspelt(root: type[BaseModel], words: Sequence[str]) -> tuple[str, str, str] | None:
    """What was wrong, what was expected, and what to do, where a command line has an unknown command or flag."""
    found, model = find_command(root, words)
    command = " ".join(["vhserve", *found])
    rest, below = words[len(found) :], commands(model)
    if below:
        if not rest or rest[0].startswith("-"):
            return None
        wrong = f"{command} has no command {rest[0]!r}"
        return wrong, ", ".join(below), did_you_mean(rest[0], below, f"see {command} --help")
    known = flags(model)
    for word in rest:
        flag = word.partition("=")[0]
        if _is_flag(flag) and flag not in known:
            fix = did_you_mean(flag, known, f"see {command} --help")
            return f"{command} has no option {flag}", "an option that its help lists", fix
    return None


def _is_flag(word: Any) -> bool:
    return len(word) > 1 and word[0] == "-" and not word[1:].replace(".", "").isdigit()
