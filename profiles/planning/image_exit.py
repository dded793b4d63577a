"""Image exit: the layer from which on no head sees an image, so that its tokens need not be computed further.

Owns the rule and what it saves. Does not know how an engine leaves tokens out.
"""

from typing import Final

from profiles.pruning_plan import PruningPlan
from profiles.treatments import NO_BLOCKS, TREATMENTS

_BLIND: Final = tuple(name for name, one in TREATMENTS.items() if one.seen_in_prompt == NO_BLOCKS)
"""Treatments under which a head sees nothing of an image while a prompt is computed."""


def exit_layer(plan: PruningPlan) -> int | None:
    """First layer, 0-based, from which on every head is text-only or removed; None if there is none.

    What a token of an image block becomes there is read by nobody: no head of these layers attends to it, and no reply
    follows from it. At least one head is text-only: with removed heads alone an engine does not know image blocks.
    """
    geometry, first = plan.geometry, plan.geometry.layers
    blind = {head for name in _BLIND for head in plan.heads(name)}
    while first and all((first - 1, head) in blind for head in range(geometry.query_heads)):
        first -= 1
    computed = (layer for name in _BLIND if TREATMENTS[name].computed for layer, _ in plan.heads(name))
    return first if any(layer >= first for layer in computed) else None


def prefill_saved(plan: PruningPlan, dropped: float) -> float:
    """Share of the decoder layers' work on a prompt that image exit leaves out, all layers taken to cost alike.

    Parameters
    ----------
    dropped
        Share of the prompt's tokens that lie in image blocks.
    """
    first, layers = exit_layer(plan), plan.geometry.layers
    return 0.0 if first is None else (layers - first) / layers * dropped
