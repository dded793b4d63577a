"""Which architectures can be served with a plan, and what vhserve's own model classes are called.

Knows names only: the classes are in `vhserve.engine.models`, and are not imported from here.
"""

from collections.abc import Sequence
from typing import Final

from vhserve.errors import ModelNotServable

SERVED_BY: Final = {
    "LlavaForConditionalGeneration": "VhserveLlavaForConditionalGeneration",
    "LlavaNextForConditionalGeneration": "VhserveLlavaNextForConditionalGeneration",
}
"""Architecture in a checkpoint's `config.json` → vhserve's class that vLLM is told to use instead."""

_STOCK: Final = {ours: stock for stock, ours in SERVED_BY.items()}


def served_by(architecture: str) -> str:
    """Name of vhserve's class for an architecture.

    Raises
    ------
    ModelNotServable
        There is none.
    """
    try:
        return SERVED_BY[architecture]
    except KeyError:
        raise ModelNotServable(
            f"a model of architecture {architecture} cannot be served with a plan",
            expected=f"one of {', '.join(SERVED_BY)}",
            fix="serve it without --plan, or choose another model (see `vhserve models`)",
        ) from None


def stock_architecture(architectures: Sequence[str]) -> str:
    """Architecture that a checkpoint had before vhserve's class was put in its place."""
    first = architectures[0] if architectures else "unknown"
    return _STOCK.get(first, first)
