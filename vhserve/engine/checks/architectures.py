"""Architectures that can be served with a plan, and the names of vhserve's own model classes.

Names only: does not know the classes themselves, which are in `vhserve.engine.models`.
"""

from collections.abc import Sequence
from typing import Final

from vhserve.errors import ModelNotServable

SERVED_BY: Final = {
    "LlavaForConditionalGeneration": "VhserveLlavaForConditionalGeneration",
    "LlavaNextForConditionalGeneration": "VhserveLlavaNextForConditionalGeneration",
}
"""Architecture in a checkpoint's `config.json` → name of vhserve's class that vLLM loads in its place."""

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
    """Architecture of the checkpoint, given the architectures of a configuration that may name vhserve's class."""
    first = architectures[0] if architectures else "unknown"
    return _STOCK.get(first, first)
