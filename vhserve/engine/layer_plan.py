"""One decoder layer of a plan, built once for a model and passed to everything that is constructed from it.

Owns the combination of layout, KV cache lanes and mean compensation. Does not know modules or tensors: imports neither
vLLM nor torch.
"""

from dataclasses import dataclass

import numpy as np

from profiles.planning.layout import LayerLayout, layer_layouts
from profiles.pruning_plan import PruningPlan
from vhserve.engine.kv_cache.lane_assignment import LayerLanes, assign_lanes


@dataclass(frozen=True, eq=False)
class RemovedMeans:
    """Mean outputs of one layer's removed heads over the calibration set.

    Attributes
    ----------
    heads
        Removed query heads of the layer, ascending.
    means
        Their mean outputs before `o_proj`, shape (heads, head size).
    """

    heads: tuple[int, ...]
    means: np.ndarray


@dataclass(frozen=True)
class LayerPlan:
    """One decoder layer of a plan.

    Attributes
    ----------
    index
        The layer, 0-based.
    layout
        Query and KV heads that it keeps, in the order in which they are laid out.
    lanes
        Where it keeps its KV cache; None when no head of the whole plan is text-only, and vLLM's grouping applies.
    compensation
        Means to add in place of removed heads; None when the layer removes none, or the plan adds none.
    """

    index: int
    layout: LayerLayout
    lanes: LayerLanes | None
    compensation: RemovedMeans | None


def layer_plans(plan: PruningPlan, block_size: int) -> tuple[LayerPlan, ...]:
    """Plans of all layers; `block_size` is the KV cache's, in tokens.

    Raises
    ------
    LayoutRefused
        The plan keeps heads that no layout can hold.
    """
    layouts = layer_layouts(plan)
    lanes = assign_lanes(layouts, plan.geometry.image_tokens, block_size)
    means = _removed_means(plan)
    return tuple(
        LayerPlan(index, layout, lanes[index] if lanes else None, means.get(index))
        for index, layout in enumerate(layouts)
    )


def _removed_means(plan: PruningPlan) -> dict[int, RemovedMeans]:
    """Means by layer. The plan's are one array over all layers, in the order of its removed heads."""
    if plan.compensation.means is None:
        return {}
    means = np.asarray(plan.compensation.means)
    rows: dict[int, dict[int, int]] = {}
    for row, (layer, head) in enumerate(plan.heads("removed")):
        rows.setdefault(layer, {})[head] = row
    return {layer: RemovedMeans(tuple(of_head), means[list(of_head.values())]) for layer, of_head in rows.items()}
