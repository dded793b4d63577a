"""What a plan saves, as arithmetic: KV cache, weights, and how many more requests fit.

All figures are of the whole model (every rank together), in bytes. Does not know how a server splits its memory.
"""

from math import ceil

from profiles.geometry import ModelGeometry
from profiles.planning.layout import layer_layouts
from profiles.pruning_plan import PruningPlan


def kv_bytes_baseline(geometry: ModelGeometry, dtype_bytes: int) -> int:
    """KV cache of one token in the unpruned model: keys and values of every KV head."""
    return geometry.layers * geometry.kv_heads * 2 * geometry.head_size * dtype_bytes


def kv_bytes_per_token(plan: PruningPlan, dtype_bytes: int) -> int:
    """KV cache of one text token under the plan; text-only heads count in full."""
    kv_full, kv_text = _kv_heads(plan)
    return (kv_full + kv_text) * 2 * plan.geometry.head_size * dtype_bytes


def kv_bytes_per_image_token(plan: PruningPlan, dtype_bytes: int) -> int:
    """KV cache of one image token under the plan; text-only heads keep none."""
    kv_full, _ = _kv_heads(plan)
    return kv_full * 2 * plan.geometry.head_size * dtype_bytes


def kv_bytes_of_request(
    plan: PruningPlan,
    text_tokens: int,
    image_tokens: int,
    dtype_bytes: int,
    block_size: int | None = None,
    image_start: int | None = None,
) -> int:
    """KV cache of one request whose image tokens stand in one run.

    Parameters
    ----------
    block_size
        Tokens of a KV block. None: count tokens, as if every block held one. Else whole blocks are counted, and
        text-only heads skip those blocks that hold nothing but image tokens.
    image_start
        Position of the first image token. None: the position that leaves the fewest image blocks.
    """
    kv_full, kv_text = _kv_heads(plan)
    size = block_size or 1
    blocks = ceil((text_tokens + image_tokens) / size)
    if image_start is None:
        image_blocks = max(0, image_tokens - size + 1) // size
    else:
        image_blocks = max(0, (image_start + image_tokens) // size - ceil(image_start / size))
    tokens = kv_full * blocks * size + kv_text * (blocks - image_blocks) * size
    return tokens * 2 * plan.geometry.head_size * dtype_bytes


def ideal_concurrency(plan: PruningPlan, text_tokens: int, image_tokens: int) -> float:
    """How many times as many requests of this kind fit into the KV cache as without the plan.

    Counts tokens, not blocks. With no text-only heads it is the same for every kind of request.
    """
    baseline = (text_tokens + image_tokens) * kv_bytes_baseline(plan.geometry, 1)
    return baseline / kv_bytes_of_request(plan, text_tokens, image_tokens, 1)


def weight_bytes_saved(plan: PruningPlan, dtype_bytes: int) -> int:
    """Weights that are not loaded: rows of q, k and v, columns of o. Biases are not counted."""
    geometry = plan.geometry
    queries = len(plan.heads("removed"))
    kv_heads = geometry.layers * geometry.kv_heads - sum(_kv_heads(plan))
    return (queries + kv_heads) * 2 * geometry.head_size * geometry.hidden_size * dtype_bytes


def _kv_heads(plan: PruningPlan) -> tuple[int, int]:
    """KV heads of full and of text-only heads, over all layers."""
    layouts = layer_layouts(plan)
    return sum(len(layout.kv_full) for layout in layouts), sum(len(layout.kv_text) for layout in layouts)
