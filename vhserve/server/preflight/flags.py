"""Reads vLLM's flags off a command line without vLLM: where MODEL stands, and the values of single flags.

Refuses flags that vLLM does not have and values that it would not take. Does not know what flags mean; a command line
that passes here is parsed by vLLM again.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from profiles.suggestions import did_you_mean
from vhserve.errors import FlagRefused
from vhserve.server.preflight.vllm_flags import Flag, known_flags

_FLAG: Final = re.compile(r"-{1,2}[A-Za-z]")
_OPTIMISATION: Final = re.compile(r"-O")


class GivenFlags:
    """Values of the flags on a command line, by name such as `--port`; the last one counts, as for vLLM."""

    def __init__(self, values: Mapping[str, str | None]) -> None:
        self._values = values

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def get(self, name: str) -> str | None:
        """Value of a flag; None where it is not given or has none."""
        return self._values.get(name)

    def whole_number(self, name: str) -> int | None:
        """Value of a flag that takes an integer, with vLLM's suffixes (`1k`, `2G`); None: not given, or a word."""
        value = self._values.get(name)
        return None if value is None else _whole_number(value)


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
    for name, value in _pairs(words, flags, own):
        if name == "--config" and value is not None:
            values = {**_configured(Path(value)), **values}
        values[name] = value
        if flags is not None and name in flags and value is not None:
            _check_value(name, value, flags[name])
    return GivenFlags(values)


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
    flag = flags.get(_resolve(name, flags) or "", Flag())
    after = 0
    while at + after + 1 < len(words) and not _FLAG.match(words[at + after + 1]):
        after += 1
    most = {"none": 0, "one": 1, "maybe": 1, "some": after}[flag.values]
    return min(after, most)


def _pairs(
    words: Sequence[str], flags: Mapping[str, Flag] | None, own: Iterable[str] = ()
) -> Iterator[tuple[str, str | None]]:
    """Flags and their first values, under the names that vLLM gives them."""
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
        if separator:
            yield resolved, value
            continue
        has_value = known.get(resolved, Flag()).values != "none" and at + 1 < len(words)
        yield resolved, words[at + 1] if has_value and not _FLAG.match(words[at + 1]) else None


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
    if flag.choices and value not in flag.choices:
        raise FlagRefused(f"{name} {value}", expected=f"one of {', '.join(flag.choices)}", fix=f"correct {name}")
    try:
        {"int": int, "float": float, "text": str}[flag.kind](value)
    except ValueError:
        expected = "a whole number" if flag.kind == "int" else "a number"
        raise FlagRefused(f"{name} {value}", expected=expected, fix=f"correct {name}") from None


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
