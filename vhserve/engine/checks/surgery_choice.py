"""How a plan's heads are taken out of a model, as the user asks for it: the values of `--surgery` and how they travel.

Owns the names, and what can be said without the model. Does not know modules (`weights.surgery` decides).
"""

from typing import Any, Final, Literal, get_args

from vhserve.engine.checks.asked_choice import asked_choice
from vhserve.errors import FlagRefused

Surgery = Literal["slice", "gather"]
AskedSurgery = Literal["auto", "slice", "gather"]

SLICE: Final[Surgery] = "slice"
GATHER: Final[Surgery] = "gather"

KEY: Final = "vhserve_surgery"
"""Key of vLLM's `additional_config`, which is part of the key of its compile cache; absent for `auto`."""


def asked_surgery(additional_config: Any) -> AskedSurgery:
    """What an `additional_config` asks for.

    Raises
    ------
    FlagRefused
    """
    return asked_choice(additional_config, KEY, get_args(AskedSurgery), "auto")


def check_surgery_flags(asked: AskedSurgery, arguments: Any) -> None:
    """Check a command line, parsed or as far as it is known, against what was asked for.

    Raises
    ------
    FlagRefused
    """
    for flag, attribute in (("--enable-lora", "enable_lora"), ("--quantization", "quantization")):
        if asked == SLICE and getattr(arguments, attribute, None):
            raise refuse_slice(flag)


def refuse_slice(flag: str) -> FlagRefused:
    """What to raise where a flag needs projections of all heads, and `slice` was asked for."""
    return FlagRefused(
        f"{flag} does not go together with --surgery slice: weights of single heads cannot be cut out then",
        expected="--surgery gather, which leaves the projections as they are",
        fix="serve with --surgery gather, or without --surgery",
    )


def only_gather_serves(vllm_config: Any) -> bool:
    """Whether projections must stay as they are: they are quantised, or adapters are added to them."""
    return bool(vllm_config.lora_config or vllm_config.model_config.quantization)
