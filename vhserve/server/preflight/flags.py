"""Reads vLLM's flags off a command line without vLLM: where MODEL stands, and the values of single flags.

Refuses flags that vLLM does not have and values that it would not take. Does not know what flags mean; a command line
that passes here is parsed by vLLM again.
"""

import json
import re
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from profiles.suggestions import did_you_mean
from vhserve.errors import FlagRefused
from vhserve.server.preflight.vllm_flags import Flag, Kind, known_flags

_FLAG: Final = re.compile(r"-{1,2}[A-Za-z]")
_NONE: Final = ("", "None")
_OPTIMISATION: Final = re.compile(r"-O")


class GivenFlags:
    """Values of the flags on a command line, by name such as `--port`; the last one counts, as for vLLM."""

    def __init__(
        self,
        values: Mapping[str, str | None],
        in_part: Iterable[str] = (),
        several: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._values = values
        self._in_part = set(in_part)
        self._several = several or {}

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def get(self, name: str) -> str | None:
        """Value of a flag; None where it is not given or has none."""
        return self._values.get(name)

    def several(self, name: str) -> Sequence[str]:
        """All values of a flag that takes any number of them; empty where it is not given."""
        return self._several.get(name, ())

    def is_in_part(self, name: str) -> bool:
        """Whether a field of its value is given, such as `--limit-mm-per-prompt.image`, and not the whole."""
        return name in self._in_part

    def is_on(self, name: str) -> bool:
        """Whether a flag without a value is given, and not turned off after it."""
        last = [one for one in self._values if one in (name, name.replace("--", "--no-", 1))][-1:]
        return last == [name]

    def whole_number(self, name: str) -> int | None:
        """Value of a flag that takes an integer, with vLLM's suffixes (`1k`, `2G`); None: not given, or a word."""
        value = self._values.get(name)
        return None if value is None else _whole_number(value)

    def arguments(self) -> Namespace:
        """What vLLM's parser makes of them: attributes of those that are given, as whole values.

        Leaves out flags of several values and those of which fields are given, such as `--compilation-config.mode`.
        """
        known, found = known_flags() or {}, Namespace()
        for name, value in self._values.items():
            flag = known.get(name.replace("--no-", "--", 1), Flag("some"))
            attribute = name.removeprefix("--").replace("-", "_")
            if flag.values == "none":
                setattr(found, attribute.removeprefix("no_"), name in known and not name.startswith("--no-"))
            elif flag.values == "one" and value is not None and not self.is_in_part(name):
                is_none = flag.optional and value in _NONE
                setattr(found, attribute, None if is_none else _READERS[flag.kind].read(value))
        return found


def read_flags(words: Sequence[str], own: Iterable[str] = ()) -> GivenFlags:
    """Read vLLM's flags, those of a file that `--config` names included.

    Parameters
    ----------
    words
        Command line without the flags of `vhserve serve` itself.
    own
        Those flags, which a misspelt one may have been meant to be.

    Raises
    ------
    FlagRefused
        vLLM has no such flag, or it does not take the value.
    """
    flags = known_flags()
    values: dict[str, str | None] = {}
    in_part, several = set(), {}
    for name, field, given in _given(words, flags, own):
        value = given[0] if given else None
        if name == "--config" and value is not None:
            values = {**_checked(_configured(Path(value)), flags), **values}
        values.pop(name, None)  # it goes to the end: the last of a flag and its opposite counts
        values[name], several[name] = value, given
        if field:
            in_part.add(name)
        if flags is not None and name in flags and value is not None and not field:
            _check_value(name, value, flags[name])
    return GivenFlags(values, in_part, several)


def put_model_first(words: Sequence[str], own: Mapping[str, bool]) -> list[str]:
    """Move MODEL in front of the flags of `vhserve serve`, so that no value of a flag of vLLM's is taken for it.

    Parameters
    ----------
    words
        What follows `serve`.
    own
        Flags of `vhserve serve` itself, and whether each takes a value.

    Raises
    ------
    FlagRefused
        There is no model.
    """
    flags = known_flags()
    if flags is None or "--help" in words or "-h" in words:
        return list(words)
    everything = {**flags, **{name: Flag("one" if takes else "none") for name, takes in own.items()}}
    at = 0
    while at < len(words):
        word = words[at]
        if not _FLAG.match(word):
            return [word, *words[:at], *words[at + 1 :]]
        at += 1 + _values_after(words, at, everything)
    raise FlagRefused(
        "no model is named: every word is a flag or the value of one",
        expected="vhserve serve MODEL [--plan PLAN] [any flag of `vllm serve`]",
        fix="name an alias (see `vhserve models`), Hub id or folder after `serve`",
    )


def _values_after(words: Sequence[str], at: int, flags: Mapping[str, Flag]) -> int:
    """How many of the words after a flag are its values."""
    name, separator, _ = words[at].partition("=")
    if separator or _OPTIMISATION.match(name):
        return 0
    flag = flags.get(_resolve(name, flags) or name, Flag())
    after = 0
    while at + after + 1 < len(words) and not _FLAG.match(words[at + after + 1]):
        after += 1
    most = {"none": 0, "one": 1, "maybe": 1, "some": after}[flag.values]
    return min(after, most)


def _given(
    words: Sequence[str], flags: Mapping[str, Flag] | None, own: Iterable[str] = ()
) -> Iterator[tuple[str, str, Sequence[str]]]:
    """Flags under the long names that vLLM gives them, the field of their value that is given, and their values."""
    known = flags or {}
    for at, word in enumerate(words):
        if not _FLAG.match(word) or _OPTIMISATION.match(word):
            continue
        name, separator, value = word.partition("=")
        resolved = _resolve(name, known)
        if resolved is None:
            if flags is not None and name.startswith("--"):
                raise _unknown(name, [*own, *known])
            resolved = name
        flag = known.get(resolved, Flag())
        after = at + 1 + _values_after(words, at, {resolved: flag})
        yield flag.name or resolved, name.partition(".")[2], [value] if separator else words[at + 1 : after]


def _resolve(name: str, flags: Mapping[str, Flag]) -> str | None:
    """vLLM's name of a flag: `_` counts as `-`, a dot begins a field of its value, a unique beginning is enough."""
    if not name.startswith("--"):
        return name if name in flags else None
    whole = name.partition(".")[0].replace("_", "-")
    if whole in flags:
        return whole
    begins = [flag for flag in flags if flag.startswith(whole)]
    return begins[0] if len(begins) == 1 else None


def _unknown(name: str, flags: Sequence[str]) -> FlagRefused:
    whole = name.replace("_", "-")
    begins = [flag for flag in flags if flag.startswith(whole)][:4]
    hint = f"did you mean {' or '.join(begins)}?" if begins else did_you_mean(whole, flags, "see vhserve serve --help")
    return FlagRefused(f"{name} is a flag of neither vhserve serve nor vllm serve", expected="one of theirs", fix=hint)


def _check_value(name: str, value: str, flag: Flag) -> None:
    fix = f"correct {name}"
    if flag.choices and value not in flag.choices:
        raise FlagRefused(f"{name} {value}", expected=f"one of {', '.join(flag.choices)}", fix=fix)
    if flag.optional and value in _NONE:
        return
    kind = _READERS[flag.kind]
    try:
        kind.read(value)
    except (ValueError, RecursionError):
        if flag.kind == "json" and (meant := _as_json(value)):
            fix = f"give {name} '{meant}'"
        raise FlagRefused(f"{name} {value}", expected=kind.expected, fix=fix) from None


@dataclass(frozen=True)
class _Reader:
    """How a kind of value is read, which raises `ValueError` where it is none, and what it is called."""

    read: Callable[[str], object]
    expected: str


def _size(value: str) -> int:
    if (number := _whole_number(value)) is None:
        return int(value)
    return number


def _length(value: str) -> int | None:
    return None if value.strip().lower() == "auto" else _size(value)


_READERS: Final[Mapping[Kind, _Reader]] = {
    "text": _Reader(str, "a text"),
    "int": _Reader(int, "a whole number"),
    "float": _Reader(float, "a number"),
    "size": _Reader(_size, "a whole number, such as 4096 or 4k"),
    "length": _Reader(_length, "a whole number, such as 4096 or 4k, or auto"),
    "json": _Reader(json.loads, "JSON"),
}


def _as_json(value: str) -> str | None:
    """JSON of what was written as `image=3,video=1`, as releases of vLLM before JSON took it."""
    pairs = [part.partition("=") for part in value.split(",")]
    if not all(key and separator and number.isdigit() for key, separator, number in pairs):
        return None
    return json.dumps({key.strip(): int(number) for key, _, number in pairs})


def _checked(values: dict[str, str | None], flags: Mapping[str, Flag] | None) -> dict[str, str | None]:
    """Values of a file, each such as vLLM takes where its flags are known."""
    for name, value in values.items():
        if flags is not None and name in flags and value is not None:
            _check_value(name, value, flags[name])
    return values


def _configured(path: Path) -> dict[str, str | None]:
    """Values of the YAML file of `--config`.

    Raises
    ------
    FlagRefused
        The file cannot be read.
    """
    import yaml

    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no YAML"
        raise FlagRefused(f"--config {path}: {reason}", expected="a YAML file of flags", fix="correct it") from error
    if not isinstance(content, dict):
        raise FlagRefused(f"--config {path} holds no mapping", expected="a YAML file of flags", fix="correct it")
    scalars = {key: value for key, value in content.items() if isinstance(value, str | int | float)}
    return {
        f"--{str(key).replace('_', '-')}": None if isinstance(value, bool) else str(value)
        for key, value in scalars.items()
        if value is not False
    }


def _whole_number(value: str) -> int | None:
    """An integer as vLLM reads it: `k`, `m`, `g`, `t` are powers of 1000, upper case powers of 1024."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmgtKMGT]?)", value.strip())
    if match is None:
        return None
    number, suffix = match.groups()
    base = 1024 if suffix.isupper() else 1000
    power = "kmgt".index(suffix.lower()) + 1 if suffix else 0
    return int(float(number) * base**power) if "." in number else int(number) * base**power
