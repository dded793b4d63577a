"""What a plan saves, as arithmetic: KV cache, weights, and how many more requests fit.

All figures are of the whole model (every rank together), in bytes. Does not know how a server splits its memory.
"""

from math import ceil

from profiles.geometry import ModelGeometry
from profiles.names import TreatmentName
from profiles.planning.layout import layer_layouts
from profiles.pruning_plan import PruningPlan
from profiles.treatments import TREATMENTS, Phase, Treatment


def kv_bytes_baseline(geometry: ModelGeometry, dtype_bytes: int) -> int:
    """KV cache of one token in the unpruned model: keys and values of every KV head."""
    return geometry.layers * geometry.kv_heads * 2 * geometry.head_size * dtype_bytes


def kept_kv_heads(plan: PruningPlan) -> int:
    """KV heads of all layers that keep something of a token under the plan."""
    return sum(_kv_heads(plan).values())


def kv_bytes_per_token(plan: PruningPlan, dtype_bytes: int) -> int:
    """KV cache of one text token under the plan: every head that is computed keeps it."""
    return kept_kv_heads(plan) * 2 * plan.geometry.head_size * dtype_bytes


def kv_bytes_per_image_token(
    plan: PruningPlan,
    dtype_bytes: int,
    phase: Phase = "reply",
    prompt: tuple[int, int] | None = None,
    image_tokens: int | None = None,
) -> int:
    """KV cache of one image token under the plan, on average and rounded up; heads keep what their treatment sees.

    Parameters
    ----------
    phase
        What is kept while the prompt is computed, or afterwards.
    prompt
        Position of the image's first token, and the tokens of a KV block: of the image, what lies in blocks with text
        is kept by every head. None: count tokens, as if every block held one.
    image_tokens
        Of the image; None: the model's usual one.
    """
    width = 2 * plan.geometry.head_size * dtype_bytes
    image = plan.geometry.image_tokens if image_tokens is None else image_tokens
    kept = {name: TREATMENTS[name].kept(phase) for name in _kv_heads(plan)}
    if prompt is None or not image:
        strides = {name: one.stride for name, one in kept.items()}
        return sum(
            -(-heads * width // (strides[name] or 1)) for name, heads in _kv_heads(plan).items() if strides[name]
        )
    start, size = prompt
    blocks = image_blocks(start, image, size)
    held = {name: image - (blocks - one.count(blocks)) * size for name, one in kept.items()}
    return sum(ceil(heads * width * held[name] / image) for name, heads in _kv_heads(plan).items())


def kv_bytes_of_request(
    plan: PruningPlan,
    text_tokens: int,
    image_tokens: int,
    dtype_bytes: int,
    block_size: int | None = None,
    image_start: int | None = None,
    phase: Phase = "reply",
) -> int:
    """KV cache of one request whose image tokens stand in one run.

    Parameters
    ----------
    block_size
        Tokens of a KV block. None: count tokens, as if every block held one. Else whole blocks are counted, and of
        those that hold nothing but image tokens, heads keep what their treatment sees.
    image_start
        Position of the first image token. None: the position that leaves the fewest image blocks.
    phase
        What is kept while the prompt is computed, or afterwards.
    """
    size = block_size or 1
    blocks = ceil((text_tokens + image_tokens) / size)
    if image_start is None:
        dropped = max(0, image_tokens - size + 1) // size
    else:
        dropped = image_blocks(image_start, image_tokens, size)

    def held(treatment: Treatment) -> int:
        return blocks - dropped + treatment.kept(phase).count(dropped)

    tokens = sum(heads * held(TREATMENTS[name]) * size for name, heads in _kv_heads(plan).items())
    return tokens * 2 * plan.geometry.head_size * dtype_bytes


def ideal_concurrency(
    plan: PruningPlan,
    text_tokens: int,
    image_tokens: int,
    block_size: int | None = None,
    image_start: int | None = None,
) -> float:
    """How many times as many requests of this kind fit into the KV cache as without the plan.

    Counts tokens, or blocks where `block_size` is given (see `kv_bytes_of_request`). Where all heads that are kept see
    the whole image, it is the same for every request.
    """
    size = block_size or 1
    baseline = ceil((text_tokens + image_tokens) / size) * size * kv_bytes_baseline(plan.geometry, 1)
    return baseline / kv_bytes_of_request(plan, text_tokens, image_tokens, 1, block_size, image_start)


def weight_bytes_saved(plan: PruningPlan, dtype_bytes: int) -> int:
    """Weights that are not loaded: rows of q, k and v, columns of o. Biases are not counted."""
    geometry = plan.geometry
    kv_heads = geometry.layers * geometry.kv_heads - sum(_kv_heads(plan).values())
    return (len(plan.uncomputed) + kv_heads) * 2 * geometry.head_size * geometry.hidden_size * dtype_bytes


def image_blocks(start: int, image_tokens: int, block_size: int) -> int:
    """Blocks that hold nothing but tokens of an image whose first token is at `start`."""
    return max(0, (start + image_tokens) // block_size - ceil(start / block_size))


def _kv_heads(plan: PruningPlan) -> dict[TreatmentName, int]:
    """KV heads of each treatment, over all layers."""
    layouts = layer_layouts(plan)
    return {name: sum(len(layout.kept[name].kv) for layout in layouts) for name in layouts[0].kept}
