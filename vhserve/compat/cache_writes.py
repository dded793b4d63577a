"""Writes into the KV caches of a layer's attentions, made apart from these attentions.

Does not know how a write is made. Importing it is cheap.
"""

from collections.abc import Callable
from typing import Any

from vhserve.compat.layers import name_for_operator


def writes_what_it_is_given(attention: Any) -> bool:
    """Whether all that an attention layer does before it attends is to copy its keys and values into its cache.

    Symptom
        Keys and values are written twice, or not as the attention reads them, where another writes them for it.
    Cause
        vLLM's layer says in attributes, which are not documented, whether its backend writes as it attends, whether
        its cache is another layer's, and what it makes of queries and keys on the way to the cache.
    Removal
        vLLM's attention says how its cache is written.
    """
    return (
        not attention.use_direct_call
        and not attention.attn_backend.forward_includes_kv_cache_update
        and attention.attn_type == "decoder"
        and attention.kv_sharing_target_layer_name is None
        and attention.query_quant is None
        and attention.head_size_v == attention.head_size
        and attention.kv_cache_torch_dtype == attention.dtype
    )


def slots_of(layer_name: str) -> Any | None:
    """Where an attention layer's keys and values of the batch that runs belong; None while vLLM measures memory.

    Symptom
        Keys and values of several layers cannot be written together: each layer finds its slots by itself.
    Cause
        Slots are in the forward context, which is not documented.
    Removal
        With `layers.metadata_of`.

    Returns
    -------
    (tokens,) int64: block times block size plus place in the block; -1 for padding.
    """
    from vllm.forward_context import get_forward_context

    slots: Any = get_forward_context().slot_mapping
    return slots.get(layer_name)


def write_as_stock(layer_name: str, key: Any, value: Any) -> None:
    """Write an attention layer's keys and values of the batch that runs as the layer itself would.

    Symptom
        A write that is made apart from its attention has to be made for every kind of cache.
    Cause
        The layer's own write is inside its `forward`; the function under it is not documented.
    Removal
        vLLM's attention has a method that writes, and no more.

    Parameters
    ----------
    key, value
        (tokens, KV heads, head size).
    """
    from vllm.model_executor.layers.attention.attention import unified_kv_cache_update

    unified_kv_cache_update(key, value, layer_name)


def attention_after_write(attention: Any) -> Callable[[Any, Any, Any, Any, Any], None]:
    """What an attention layer's `forward` does once keys and values are in the cache.

    Symptom
        The layer writes keys and values again.
    Cause
        One method writes and attends. Given no keys, it does not write, but then nothing keeps torch.compile from
        putting the attention in front of the write.
    Removal
        vLLM's attention takes what its cache's write returned.

    Returns
    -------
    Function of query, key, value, output, each of shape (tokens, heads, head size), and of what the write returned.
    It fills the output.
    """
    import torch

    name = attention.layer_name

    def attend(query: Any, key: Any, value: Any, output: Any, written: Any) -> None:
        torch.ops.vllm.unified_attention_with_output(
            query, key, value, output, name_for_operator(name), kv_cache_dummy_dep=written
        )

    return attend
