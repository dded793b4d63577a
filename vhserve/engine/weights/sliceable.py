"""Can heads be cut out of the projections around a layer's attention?

Owns the criterion, which asks the module; what does not pass it can still have its heads chosen behind the projections
(`attention.gathered_attention`). Does not change anything.
"""

from typing import Any

from vllm.model_executor.layers.linear import QKVParallelLinear, RowParallelLinear, UnquantizedLinearMethod

from profiles.geometry import ModelGeometry
from vhserve.engine.weights.decoder_attention import DecoderAttention


def why_not_sliceable(one: DecoderAttention, geometry: ModelGeometry, compensated: bool) -> str | None:
    """What keeps heads from being cut out of a layer's projections; None where nothing does.

    Parameters
    ----------
    compensated
        Whether the plan adds means in place of removed heads, to the bias of the output's projection.
    """
    module = one.module
    qkv, output = getattr(module, "qkv_proj", None), getattr(module, "o_proj", None)
    kind = type(module).__name__
    # Subclasses may read a checkpoint, or project, in ways of their own.
    if type(qkv) is not QKVParallelLinear or type(output) is not RowParallelLinear:
        return f"{kind} has no qkv_proj and o_proj of vLLM's own classes"
    for projection in (qkv, output):
        if not isinstance(projection.quant_method, UnquantizedLinearMethod):
            return f"its weights are quantised ({type(projection.quant_method).__name__})"
    width = geometry.query_heads * geometry.head_size
    if (qkv.total_num_heads, qkv.total_num_kv_heads) != (geometry.query_heads, geometry.kv_heads):
        return f"{kind} projects more than its heads' queries, keys and values"
    if getattr(qkv, "v_head_size", qkv.head_size) != qkv.head_size or output.input_size != width:
        return f"{kind} has values of another size"
    if compensated and not output.reduce_results:
        return f"{kind} adds no bias to its output"
    if (getattr(module, "q_size", None), getattr(module, "kv_size", None)) != (
        width,
        geometry.kv_heads * geometry.head_size,
    ):
        return f"{kind} does not say how it splits queries, keys and values"
    if others := _other_parameters(module, one.name, geometry.head_size):
        return f"{kind} has parameters for all heads ({', '.join(others)})"
    return None


def _other_parameters(module: Any, attention: str, head_size: int) -> list[str]:
    """Names of parameters beside the projections that are not one head's."""
    ours = ("qkv_proj.", "o_proj.", f"{attention}.", "rotary_emb.")
    return [
        name
        for name, parameter in module.named_parameters()
        if not name.startswith(ours) and parameter.numel() != head_size
    ]
