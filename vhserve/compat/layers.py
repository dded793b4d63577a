"""Attention layers of a model that is built or runs, and the metadata of its batch.

Does not know which heads a layer has. Importing it is cheap.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any, Final


def forget_attention(layer_name: str, vllm_config: Any) -> None:
    """Remove an attention layer from the registry by which vLLM finds the layers that need a KV cache.

    Symptom
        `ValueError: Duplicate layer name` when a smaller attention is built in its place; and a KV cache for a layer
        that no longer attends.
    Cause
        An attention layer registers itself in the compilation configuration when it is built; nothing removes it.
    Removal
        vLLM lets a model class choose the heads of each layer before its attention is built.
    """
    del vllm_config.compilation_config.static_forward_context[layer_name]


def attention_settings(attention: Any) -> dict[str, Any]:
    """Arguments of vLLM's `Attention` that a built one no longer has under their names, to build another like it.

    Symptom
        Attention over fewer heads has no soft cap where the model's has one, another scale, or another backend.
    Cause
        They are passed on to the implementation of a backend, which is not public.
    Removal
        vLLM's `Attention` keeps its arguments.

    Without what belongs to single heads: ALiBi slopes and sinks.
    """
    implementation = attention.impl
    return {
        "scale": implementation.scale,
        "logits_soft_cap": implementation.logits_soft_cap or None,
        "per_layer_sliding_window": attention.sliding_window,
        "attn_type": attention.attn_type,
        "attn_backend": attention.attn_backend,
        "quant_config": attention.quant_config,
    }


def settled_block_size(vllm_config: Any) -> int:
    """Tokens of a KV block, as the engine will have them; call this once the model's stock attention is built.

    Symptom
        Lanes are chosen for blocks of 16 tokens, and the engine has others, where no --block-size is given.
    Cause
        vLLM takes the size that its attention backends prefer when the model has been built (on CPUs, 0.32 does so
        before, and 0.33 after).
    Removal
        vLLM settles the size before it builds the model.
    """
    from vllm.platforms import current_platform

    current_platform.update_block_size_for_backend(vllm_config)
    size: int = vllm_config.cache_config.block_size
    return size


def name_for_operator(layer_name: str) -> Any:
    """An attention layer's name, to be given to an operator whose function takes vLLM's `LayerNameType`.

    Symptom
        Layers that are alike are compiled one by one, so that an engine starts later.
    Cause
        torch.compile takes a string for a constant, by which the code of each layer is another. vLLM's own operators
        get a name that torch lifts out of the code, where torch can do so; how is private.
    Removal
        vLLM publishes it, or torch lifts strings.
    """
    from vllm.utils.torch_utils import _encode_layer_name

    return _encode_layer_name(layer_name)


def layer_in_batch(layer_name: Any) -> Any:
    """An attention layer of the model that runs, by name, or by what `name_for_operator` has made of it.

    Symptom
        A custom operator in a compiled model cannot take a Python object.
    Cause
        Operators take tensors and names. vLLM's own find their layer in the forward context, which is not documented.
    Removal
        vLLM documents the forward context.
    """
    from vllm.forward_context import get_forward_context
    from vllm.utils.torch_utils import _resolve_layer_name

    return get_forward_context().no_compile_layers[_resolve_layer_name(layer_name)]


def metadata_of(layer_name: str) -> Any | None:
    """An attention layer's metadata of the batch that runs; None while vLLM measures memory.

    Symptom
        A projection has no access to the attention metadata, and so to the tokens that its layer's attention drops.
    Cause
        Only attention operators read the metadata, from the forward context, which is not documented.
    Removal
        With `layer_in_batch`.
    """
    from vllm.forward_context import get_forward_context

    metadata = get_forward_context().attn_metadata
    if isinstance(metadata, list):
        metadata = metadata[0]  # with speculative decoding: the model's own
    return None if metadata is None else metadata[layer_name]


@contextmanager
def of_some_rows(layer_names: Sequence[str], rows: Any, metadata: Callable[[Any], Any]) -> Iterator[None]:
    """Let attention layers find, while a part of a batch's rows runs through them, what belongs to that part.

    Symptom
        Layers that get fewer rows than the batch has write them into the slots of others, and attend beyond their end.
    Cause
        Metadata and slots are of the whole batch, and layers read them from the forward context, which is not
        documented.
    Removal
        vLLM's layers take metadata as an argument.

    Parameters
    ----------
    rows
        (rows,) int64: indices in the batch.
    metadata
        Makes a layer's metadata that of the rows. Layers that share it share what is made of it.
    """
    from vllm.config import CUDAGraphMode
    from vllm.forward_context import get_forward_context

    context: Any = get_forward_context()
    changed = ("attn_metadata", "slot_mapping", "is_padding", "cudagraph_runtime_mode")
    stock = {name: getattr(context, name) for name in changed}
    own, slots = (
        (dict(one[0]) if isinstance(one, list) else dict(one)) for one in (context.attn_metadata, context.slot_mapping)
    )
    for values, of_rows in ((own, metadata), (slots, lambda mapping: mapping.index_select(0, rows))):
        made: dict[int, Any] = {}
        for name in layer_names:
            if (value := values.get(name)) is not None:
                values[name] = made[id(value)] if id(value) in made else made.setdefault(id(value), of_rows(value))
    context.attn_metadata, context.slot_mapping = own, slots
    context.is_padding = None if context.is_padding is None else context.is_padding.index_select(0, rows)
    context.cudagraph_runtime_mode = CUDAGraphMode.NONE  # graphs are of whole batches
    try:
        yield
    finally:
        for name, value in stock.items():
            setattr(context, name, value)


def runs_pieces_of_graphs() -> bool:
    """Whether compiled code between two attention operators is replayed in the step that runs.

    Symptom
        A replayed piece reads what an earlier step left where its inputs were when it was captured.
    Cause
        A piece takes its inputs to be at the same addresses in all steps. Which steps are replayed says the forward
        context, which is not documented.
    Removal
        With `layer_in_batch`.
    """
    from vllm.config import CUDAGraphMode
    from vllm.forward_context import get_forward_context

    mode: Any = get_forward_context().cudagraph_runtime_mode
    return bool(mode == CUDAGraphMode.PIECEWISE)


ATTENTION: Final = "vllm::unified_attention_with_output"
CACHE_WRITE: Final = "vllm::unified_kv_cache_update"
"""vLLM's operators that attend, and that write keys and values in front of it."""


def split_graphs_at(operator: str, beside: str, vllm_config: Any) -> None:
    """Split compiled graphs at an operator, where they are split at one of vLLM's; idempotent.

    Symptom
        CUDA graphs of parts of the model attend to, or write into, what belonged to the batch that they were captured
        with, which has no requests.
    Cause
        An operator that reads the forward context must stay out of such graphs. vLLM has a list of those, settled
        before a model is built, and splits when it compiles the model.
    Removal
        An operator says for itself that graphs are to be split at it.

    Call this while the model is built. Where it is not split, graphs are of whole steps.
    """
    operators = vllm_config.compilation_config.splitting_ops
    if operators and beside in operators and operator not in operators:
        operators.append(operator)


def copy_of_batch(batch: Any, **changes: Any) -> Any:
    """A shallow copy of a `CommonAttentionMetadata` with other values for some fields.

    Symptom
        Metadata built from a copy holds the sequence lengths of the original.
    Cause
        The dataclass caches values derived from its tensors in two private fields, which `copy` copies.
    Removal
        The derived values become functions of the tensors.
    """
    fresh = copy(batch)
    fresh._num_computed_tokens_cache = None
    fresh._token_to_req_indices_cache = None
    for name, value in changes.items():
        setattr(fresh, name, value)
    return fresh


def settle_scales(layer: Any, kv_cache: Any) -> None:
    """Make a layer's views of the scales in its KV cache when that is bound, and not in its first step.

    Symptom
        With `int4_per_token_head` and its like, an engine's first requests attend to keys and values that are partly
        overwritten, where layers of several KV cache groups share blocks.
    Cause
        Triton's implementation sets all scales of a layer's cache to 1 when the layer runs for the first time, in
        every block, whichever group holds it by then.
    Removal
        vLLM sets them when the cache is bound, or not at all: its kernels never read one that was not written.
    """
    if getattr(layer.impl, "_is_per_token_head_quant", False):
        layer.impl._ensure_scale_caches(kv_cache)
