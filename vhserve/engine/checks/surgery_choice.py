"""How a plan's heads are taken out of a model, as the user asks for it: the values of `--surgery` and how they travel.

Owns the names, and what can be said without the model. Does not know modules (`weights.surgery` decides).
"""

from typing import Any, Final, Literal, get_args

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
    asked: AskedSurgery = additional_config.get(KEY, "auto") if isinstance(additional_config, dict) else "auto"
    if asked not in get_args(AskedSurgery):
        raise FlagRefused(
            f"additional_config.{KEY} is {asked!r}",
            expected=f"one of {', '.join(get_args(AskedSurgery))}",
            fix="correct it, or leave it out",
        )
    return asked


def check_surgery_flags(asked: AskedSurgery, arguments: Any) -> None:
    """Check the parsed command line against what was asked for.

    Raises
    ------
    FlagRefused
    """
    flags = {"--enable-lora": arguments.enable_lora, "--quantization": arguments.quantization}
    for flag, given in flags.items():
        if asked == SLICE and given:
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
