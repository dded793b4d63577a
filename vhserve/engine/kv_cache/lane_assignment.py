"""Assigns each layer's heads of each treatment to a lane, and pads pages so that vLLM's groups are exactly the lanes.

Owns the two rules of vLLM's grouping that pages must be padded for. Does not know how lanes are chosen (`lanes`) or how
a layer reports its page (`attention.lane_attention`); imports neither vLLM nor torch.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from profiles.names import TreatmentName
from profiles.planning.layout import LayerLayout
from vhserve.engine.kv_cache.lanes import HeadCounts, Partition, kv_heads_of, lanes_of

PADDING_BYTES: Final = 256
"""Added to a page whose assignment is padded; keeps every page aligned for any kernel."""


@dataclass(frozen=True)
class LaneAssignment:
    """The lane of one layer's heads of one treatment.

    Attributes
    ----------
    lane
        Index among the lanes of the treatment.
    padded
        Whether the layer's KV page is to be larger than those of layers with equally many heads.
    """

    lane: int
    padded: bool


LayerLanes = Mapping[TreatmentName, LaneAssignment]
"""Lanes of one layer's heads, for the treatments that have heads in it."""


def assign_lanes(layouts: Sequence[LayerLayout], image_tokens: int, block_size: int) -> tuple[LayerLanes, ...] | None:
    """Lanes of every layer; None when no head is partial, so that vLLM's own grouping applies.

    Parameters
    ----------
    image_tokens
        Usual number of tokens of an image.
    block_size
        Tokens of a KV block.
    """
    lanes = lanes_of(layouts, image_tokens, block_size)
    if lanes is None:
        return None
    padded = padded_layers(kv_heads_of(layouts), lanes.of)
    assigned = {name: _assignments(partition, padded[name]) for name, partition in lanes.of.items()}
    return tuple(
        {name: of_layer[layer] for name, of_layer in assigned.items() if layer in of_layer}
        for layer in range(len(layouts))
    )


def _assignments(lanes: Partition, padded: set[int]) -> dict[int, LaneAssignment]:
    return {layer: LaneAssignment(lane, layer in padded) for lane, layers in enumerate(lanes) for layer in layers}


def padded_layers(heads: HeadCounts, lanes: Mapping[TreatmentName, Partition]) -> dict[TreatmentName, set[int]]:
    """Layers whose KV page must be a few bytes larger than the others', or vLLM would split a lane, by treatment.

    vLLM 0.32 (`v1/core/kv_cache_utils.py`) splits a lane whose page sizes occur equally often
    (`_get_packed_kv_cache_groups`), and when all pages have one size, it makes groups of equally many layers
    (`_get_kv_cache_groups_uniform_page_size`). One larger page in a lane avoids both.
    """
    sizes = [Counter(heads[name][layer] for layer in lane) for name, partition in lanes.items() for lane in partition]
    layers = [size.total() for size in sizes]
    if len({page for size in sizes for page in size}) == 1:
        kept = max(layers) < 1.5 * min(layers)
    else:
        kept = not any(len(size) > 1 and len(set(size.values())) == 1 for size in sizes)
    return {name: set() if kept else _padded(heads[name], partition) for name, partition in lanes.items()}


def _padded(heads: Sequence[int], lanes: Partition) -> set[int]:
    """The last layer of each lane of several layers whose pages occur equally often."""
    padded = set()
    for lane in lanes:
        size = Counter(heads[layer] for layer in lane)
        if len(set(size.values())) == 1 and max(size.values()) > 1:
            padded.add(lane[-1])
    return padded
