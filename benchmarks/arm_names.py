"""What an arm of a benchmark is, by its name: stock vLLM, or a plan for a share of the heads; and what is added to it.

Owns the names. Does not know how an arm is run, on which machine, or what is measured.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from profiles.names import TreatmentName
from profiles.treatments import REMOVED, TEXT_ONLY, budgeted

CACHES: Final[Mapping[str, str]] = {
    "fp8": "fp8",
    "fp8h": "fp8_per_token_head",
    "int8": "int8_per_token_head",
    "int4": "int4_per_token_head",
}
"""KV cache types of vLLM (`--kv-cache-dtype`) by what is added to an arm's name."""

GATHER: Final = "gather"
STOCK_ADMISSION: Final = "stock-admission"
ADDED: Final = (*CACHES, GATHER, STOCK_ADMISSION)

HELP = (
    "comma list of stock; FLAG:SHARE of each layer's heads, by the flags of `vhserve plan` ("
    + ", ".join(one.flag for one in budgeted() if one is not REMOVED)
    + "); removed:HEADS of the last third of the layers; exit:LAYER, from which on all heads are text-only; several "
    "of these joined by /; each with +fp8 for an FP8 KV cache, or +fp8h, +int8 or +int4 for one with a scale for each "
    "token and head, and a plan's with +gather for heads chosen behind the weights, and +stock-admission for requests "
    "that are admitted as vLLM does"
)


@dataclass(frozen=True)
class ArmName:
    """One arm.

    Attributes
    ----------
    shares
        Of each layer's heads, by treatment.
    removed
        Heads that are removed from the last third of the layers.
    exit_layer
        First layer, 0-based, of those whose heads are all text-only.
    cache
        Type of its KV cache as vLLM calls it; `auto` is the model's.
    gather
        Whether heads are chosen behind the weights, and not cut out of them.
    stock_admission
        Whether requests are admitted as by vLLM, and not by what replies will need; stock's always are.
    """

    text: str
    shares: dict[TreatmentName, float] = field(default_factory=dict)
    removed: int = 0
    exit_layer: int | None = None
    cache: str = "auto"
    gather: bool = False
    stock_admission: bool = False

    @property
    def is_stock(self) -> bool:
        """Whether it has no plan."""
        return not self.shares and not self.removed and self.exit_layer is None

    @property
    def is_text_only(self) -> bool:
        """Whether it treats heads in no other way."""
        return set(self.shares) == {TEXT_ONLY.name} and not self.removed and self.exit_layer is None


def parse(text: str) -> ArmName:
    """The arm of a name.

    Raises
    ------
    argparse.ArgumentTypeError
    """
    kinds, *added = text.split("+")
    if unknown := [one for one in added if one not in ADDED]:
        known = ", ".join(f"+{one}" for one in ADDED)
        raise argparse.ArgumentTypeError(f"{text!r} has +{unknown[0]}: expected {known} or nothing")
    caches = [CACHES[one] for one in added if one in CACHES]
    if len(caches) > 1 or len(set(added)) < len(added):
        raise argparse.ArgumentTypeError(f"{text!r}: expected one KV cache type, and nothing twice")
    shares, removed, exit_layer = {}, 0, None
    for kind in [] if kinds == "stock" else kinds.split("/"):
        flag, _, number = kind.partition(":")
        treatments = {one.flag: one for one in budgeted() if one is not REMOVED}
        try:
            if flag == REMOVED.name:
                removed = int(number)
            elif flag == "exit":
                exit_layer = int(number)
            else:
                shares[treatments[flag].name] = float(number)
        except (KeyError, ValueError):
            raise argparse.ArgumentTypeError(f"{text!r} is no arm: expected {HELP}") from None
    if any(share <= 0 for share in shares.values()) or sum(shares.values()) > 1 or min(removed, exit_layer or 0) < 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected shares above 0 that make up at most 1")
    cache = caches[0] if caches else "auto"
    arm = ArmName(text, shares, removed, exit_layer, cache, GATHER in added, STOCK_ADMISSION in added)
    if arm.gather and arm.is_stock:
        raise argparse.ArgumentTypeError(f"{text!r} has no plan to gather heads by: expected {HELP}")
    if arm.stock_admission and arm.is_stock:
        raise argparse.ArgumentTypeError(f"{text!r} has no plan, and vLLM's admission anyway: expected {HELP}")
    return arm


def parse_list(text: str) -> list[ArmName]:
    """Arms of a comma list.

    Raises
    ------
    argparse.ArgumentTypeError
    """
    names = text.split(",")
    if len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} names an arm twice")
    return [parse(name) for name in names]
