"""Which projections leave out a layer's last heads for dropped tokens, and how: by where dropped tokens are known.

Does not know how tokens are projected (`packed_parts`, `weight_views`).
"""

from typing import Any, Final

from torch import nn
from vllm import envs
from vllm.config import VllmConfig

from profiles.treatments import ALL_BLOCKS
from vhserve.engine.attention.host_builder import HostBuilder
from vhserve.engine.attention.lane_attention import PartialAttention
from vhserve.engine.attention.split_attention import SplitAttention
from vhserve.engine.weights.dropped_tokens import DroppedTokensLinear, HeadParts
from vhserve.engine.weights.packed_parts import PackedOutput, PackedQKV
from vhserve.engine.weights.weight_views import OutputViews, QKVViews

WORTHWHILE: Final = 0.5
"""Least share of the last heads in a layer on CPUs, where two parts are put together in every step, also where no token
is dropped. On devices such a step is vLLM's own, and each batch is asked whether it pays."""


def use_dropped_tokens_linear(module: Any, attention: nn.Module, head_size: int, vllm_config: VllmConfig) -> None:
    """Set the linear methods of a layer's projections, where its last heads drop tokens and the host knows which.

    Parameters
    ----------
    module
        Holds the projections; already shrunk to the heads that are kept.
    attention
        Over these heads. The last ones, whose treatment is the harshest, drop the tokens.
    """
    last: Any = attention.parts[-1] if isinstance(attention, SplitAttention) else attention
    if not isinstance(last, PartialAttention) or last.treatment.seen_in_prompt == ALL_BLOCKS:
        return
    queries = HeadParts((module.num_heads - last.num_heads) * head_size, last.num_heads * head_size)
    keys = HeadParts((module.num_kv_heads - last.num_kv_heads) * head_size, last.num_kv_heads * head_size)
    outputs = (queries, keys, keys)
    methods: tuple[DroppedTokensLinear, DroppedTokensLinear]
    if issubclass(last.attn_backend.get_builder_cls(), HostBuilder):  # type: ignore[no-untyped-call]  # vLLM's
        if last.num_heads < WORTHWHILE * module.num_heads:
            return
        hidden_size = module.qkv_proj.hidden_size
        methods = PackedQKV(last.layer_name, outputs), PackedOutput(last.layer_name, queries, hidden_size)
    elif vllm_config.use_v2_model_runner and not envs.VLLM_BATCH_INVARIANT:
        methods = QKVViews(last.layer_name, outputs), OutputViews(last.layer_name, queries)
    else:  # with V1 on a GPU the host doesn't know, and rows of one GEMM must not depend on how many there are
        return
    for method in methods:
        last.add_projection(method.kind, method)
        getattr(module, method.kind).quant_method = method  # as vLLM's linear layers do when they are built
