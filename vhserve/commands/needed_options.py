"""Refuses options that are given, but change nothing without another one that is not.

Knows no command: which option needs which is the command's.
"""

from collections.abc import Mapping

from pydantic import BaseModel

from profiles.errors import WrongValue
from vhserve.commands.flags import options


def check_needed(command: BaseModel, needed: Mapping[str, str]) -> None:
    """Check what a command was given.

    Parameters
    ----------
    needed
        For the field of an option, that of the one which it needs.

    Raises
    ------
    WrongValue
    """
    flags = {id(field): flag for flag, field in options(type(command)).items()}
    for name, other in needed.items():
        if name not in command.model_fields_set or not getattr(command, name) or getattr(command, other):
            continue
        flag, missing = (flags[id(type(command).model_fields[one])] for one in (name, other))
        raise WrongValue(
            f"{flag} changes nothing without {missing}",
            expected=f"{missing} with it",
            fix=f"leave {flag} out, or give {missing}",
        )
