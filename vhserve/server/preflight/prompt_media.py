"""Are the numbers of pictures and videos of a prompt such as vLLM counts?

vLLM takes any name for a kind of media, and leaves kinds that are not named without a limit.
"""

import json
from typing import Any, Final

from profiles.suggestions import did_you_mean
from vhserve.errors import FlagRefused
from vhserve.server.preflight.flags import GivenFlags

MODALITIES: Final = ("image", "audio", "video", "vision_chunk")
"""Kinds of media that vLLM counts by themselves."""

_FLAG: Final = "--limit-mm-per-prompt"


def check_limits(flags: GivenFlags) -> None:
    """Refuse a --limit-mm-per-prompt that limits nothing, or to less than nothing.

    Raises
    ------
    FlagRefused
    """
    given = flags.get(_FLAG)
    if given is None or flags.is_in_part(_FLAG):
        return
    try:
        limits: Any = json.loads(given)
    except ValueError:  # refused before where vLLM's flags are known, and by vLLM where they are not
        return
    if not isinstance(limits, dict):
        raise FlagRefused(f"{_FLAG} {given}", expected="a number for each kind of media", fix=f"give {_EXAMPLE}")
    for kind, limit in limits.items():
        if kind not in MODALITIES:
            raise FlagRefused(
                f"{_FLAG}: {kind!r} is no kind of media, so that nothing is limited by it",
                expected=f"one of {', '.join(MODALITIES)}",
                fix=did_you_mean(kind, MODALITIES, f"give {_EXAMPLE}"),
            )
        count = limit.get("count", 0) if isinstance(limit, dict) else limit
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise FlagRefused(f"{_FLAG}: {kind} is {count!r}", expected="a number from 0 up", fix=f"give {_EXAMPLE}")


_EXAMPLE: Final = f"""{_FLAG} '{{"image": 4}}'"""
