"""Bytes of a cell of the KV cache: what one KV head keeps of one token, its key and value and their scales.

Asks vLLM's own specs. Does not know how many heads there are, nor blocks or lanes.
"""

from typing import Any, Final

from vllm.utils.torch_utils import kv_cache_dtype_str_to_dtype
from vllm.v1.attention.backends.triton_attn import TritonAttentionBackend
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVQuantMode, get_kv_quant_mode

from vhserve.errors import FlagRefused

_PLAIN: Final = (KVQuantMode.NONE, KVQuantMode.FP8_PER_TENSOR)
"""Kinds whose cells hold a key and a value and nothing else."""


def cell_bytes(vllm_config: Any, head_size: int) -> int:
    """Bytes that one KV head of this size keeps of one token.

    Raises
    ------
    FlagRefused
        Cells of this kind are of no fixed size, or only a backend that is not installed everywhere knows it.
    """
    kind = vllm_config.cache_config.cache_dtype
    spec = FullAttentionSpec(
        block_size=1,
        num_kv_heads=1,
        head_size=head_size,
        dtype=kv_cache_dtype_str_to_dtype(kind, vllm_config.model_config),
        kv_quant_mode=get_kv_quant_mode(kind),
    )
    if spec.kv_quant_mode.is_per_token_head:
        customised: Any = TritonAttentionBackend.customize_spec(spec)  # no other backend has these kinds
        return int(customised.page_size_bytes)
    if spec.kv_quant_mode not in _PLAIN:
        raise FlagRefused(
            f"how large a KV cache of --kv-cache-dtype {kind} is, is known only when the model is loaded",
            expected="auto, float16, bfloat16, or one of FP8 or per_token_head",
            fix="leave --dry-run out, or change --kv-cache-dtype",
        )
    return spec.page_size_bytes
