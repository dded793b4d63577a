"""Reads what the user chose out of vLLM's `additional_config`, which is part of the key of its compile cache.

Owns how a value that is not among a choice's is refused. Does not know which choices there are (`admission_choice`,
`surgery_choice`).
"""

from collections.abc import Sequence
from typing import Any, TypeVar

from vhserve.errors import FlagRefused

Choice = TypeVar("Choice", bound=str)


def asked_choice(additional_config: Any, key: str, choices: Sequence[Choice], default: Choice) -> Choice:
    """What an `additional_config` has under `key`, or the default.

    Raises
    ------
    FlagRefused
        It is none of the choices.
    """
    asked: Choice = additional_config.get(key, default) if isinstance(additional_config, dict) else default
    if asked not in choices:
        raise FlagRefused(
            f"additional_config.{key} is {asked!r}",
            expected=f"one of {', '.join(choices)}",
            fix="correct it, or leave it out",
        )
    return asked
