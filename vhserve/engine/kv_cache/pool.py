"""The blocks that all KV cache groups of an engine take from one pool: their size, and how many a request takes.

Arithmetic on counts of KV heads; does not know vLLM, nor how large the pool is.
"""

from dataclasses import dataclass
from typing import Self

from profiles.geometry import ModelGeometry
from profiles.planning.layout import layer_layouts
from profiles.pruning_plan import PruningPlan
from profiles.treatments import FULL
from vhserve.engine.kv_cache.capacity import GroupCounts, groups_of
from vhserve.engine.kv_cache.lane_assignment import PADDING_BYTES, assign_lanes
from vhserve.engine.kv_cache.lanes import PromptBlocks


@dataclass(frozen=True)
class Pool:
    """Blocks of an engine with a plan or without.

    Attributes
    ----------
    block_size
        Tokens of a block.
    cell_bytes
        Bytes that one KV head keeps of a token: key, value, and their scales.
    block_bytes
        Bytes of one block, for all layers of the widest group.
    groups
        KV cache groups, each with a block table of its own.
    """

    block_size: int
    cell_bytes: int
    block_bytes: int
    groups: GroupCounts

    @classmethod
    def of(cls, geometry: ModelGeometry, plan: PruningPlan | None, block_size: int, cell_bytes: int) -> Self:
        """The blocks of a model's decoder; the geometry is the plan's where there is one."""
        groups = GroupCounts({FULL.name: 1}) if plan is None else groups_of(plan, block_size)
        return cls(block_size, cell_bytes, _bytes_of_block(geometry, plan, block_size, cell_bytes), groups)

    def blocks_of_text(self, tokens: int) -> int:
        """Blocks that a request of so many tokens takes where none of them is an image's, over all groups."""
        return self.groups.blocks(PromptBlocks(-(-tokens // self.block_size)))

    def bytes_for_text(self, tokens: int) -> int:
        """Bytes of the smallest pool that such a request fits in, with the null block, which is never allocated."""
        return (self.blocks_of_text(tokens) + 1) * self.block_bytes


def _bytes_of_block(geometry: ModelGeometry, plan: PruningPlan | None, block_size: int, cell_bytes: int) -> int:
    if plan is None:
        return geometry.layers * geometry.kv_heads * block_size * cell_bytes
    head = block_size * cell_bytes
    layouts = layer_layouts(plan)
    lanes = assign_lanes(layouts, geometry.image_tokens, block_size)
    if lanes is None:
        return sum(len(layout.full.kv) for layout in layouts) * head
    widths: dict[tuple[str, int], int] = {}
    for layout, layer in zip(layouts, lanes, strict=True):
        for name, lane in layer.items():
            page = len(layout.kept[name].kv) * head + PADDING_BYTES * lane.padded
            widths[name, lane.lane] = widths.get((name, lane.lane), 0) + page
    return max(widths.values())
