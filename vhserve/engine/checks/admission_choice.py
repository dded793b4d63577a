"""Which waiting requests are taken in, as the user asks for it: the values of `--admission` and how they travel.

Owns the names. Does not know how either is done (`admission` does).
"""

from typing import Any, Final, Literal, get_args

from vhserve.engine.checks.asked_choice import asked_choice

Admission = Literal["reckon", "stock"]

RECKON: Final[Admission] = "reckon"
STOCK: Final[Admission] = "stock"

KEY: Final = "vhserve_admission"
"""Key of vLLM's `additional_config`, which is part of the key of its compile cache; absent for `reckon`."""


def asked_admission(additional_config: Any) -> Admission:
    """What an `additional_config` asks for.

    Raises
    ------
    FlagRefused
    """
    return asked_choice(additional_config, KEY, get_args(Admission), RECKON)
