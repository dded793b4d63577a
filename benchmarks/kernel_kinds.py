"""What kind of work a kernel of a GPU, or an operation of torch on a CPU, does, by its name.

The first pattern that is found anywhere in a name decides, so that what is special stands before what is general:
FlashAttention 3 is a cutlass kernel, and a fill is an elementwise one. Names are those of vLLM 0.32, torch, Triton,
FlashAttention, cuBLAS (nvjet), CUTLASS and oneDNN. Does not know how they are measured.
"""

import re
from typing import Final

GEMM: Final = "GEMM"
ATTENTION: Final = "attention"
CACHE: Final = "KV cache write"
FUSED: Final = "other fused"
MOVING: Final = "gather, scatter, fill"
STEP: Final = "sampling, metadata"
OTHER: Final = "other"

KINDS: Final = (GEMM, ATTENTION, CACHE, FUSED, MOVING, STEP, OTHER)
"""In the order of the table. `OTHER` is what no pattern knows."""

PATTERNS: Final[tuple[tuple[str, str], ...]] = (
    # Writes of keys and values: CUDA, Triton, per token and head, CPU, vhserve's of several attentions.
    (CACHE, r"reshape_and_cache|_reshape_cache_|concat_and_cache|cpu_attn_reshape|kv_cache_update|write_kv_parts"),
    # What a step's metadata and its sampling need, on the device.
    (STEP, r"slot_mapping|_gather_block_tables|_compact_tables|_prepare_(pos|prefill|rope)|_post_update|_apply_write"),
    (STEP, r"_combine_sampled|get_scheduler_metadata|prepare_varlen|num_sampled|_token_request_mapping"),
    (
        STEP,
        r"gumbel|topk|top_k|[aA]rg[mM]ax|_sample_|sampler|log_softmax|radixSort|sort_kernel|aten::sort|penalties|_temperature_",
    ),
    # FlashAttention 2 and 3 with the sum over parts of a sequence, Triton's, xFormers', cuDNN's, vLLM's on CPUs.
    (
        ATTENTION,
        r"flash::|flash_fwd|FlashAttn|flash_attn|fmha|sdpa|scaled_dot_product|flashinfer|BatchPrefill|BatchDecode",
    ),
    (
        ATTENTION,
        r"unified_attention|paged_attention|reduce_segments|merge_attn_states|_fwd_kernel|cpu_attention|decode_attention",
    ),
    (
        GEMM,
        r"nvjet|gemm|GEMM|Gemm|gemv|splitK|cutlass|xmma|cublasLt|cudnn.*conv|triton_tem_fused.*(mm|linear|conv)|fused_moe_kernel",
    ),
    (
        GEMM,
        r"^aten::(mm|bmm|addmm|addbmm|baddbmm|matmul|linear|_scaled_mm|mkldnn_linear|_?convolution\w*|\w*conv2d|mkldnn_convolution)$",
    ),
    (
        GEMM,
        r"onednn_(scaled_)?mm|onednn_linear|mkldnn::_?(linear|convolution)|dynamic_scaled_int8_mm|convolve|implicit_convolve",
    ),
    # Rows that are picked, put back, filled or copied, whether by a kernel of its own or by one that Inductor fused.
    (MOVING, r"index_select|index_copy|index_put|indexSelect|index_elementwise|IndexKernel|masked_fill|masked_scatter"),
    (
        MOVING,
        r"gather|scatter|FillFunctor|fill_kernel|fill_empty|copy_kernel|CopyFunctor|CatArray|Memcpy|Memset|direct_copy",
    ),
    (
        MOVING,
        r"^aten::(index|index_fill_?|fill_|zero_|zeros|zeros_like|ones|full|copy_|_to_copy|clone|contiguous|cat|stack|where|"
        r"take|repeat|repeat_interleave|roll|embedding|nonzero|masked_select|pad|constant_pad_nd|new_zeros)$",
    ),
    # Norms, rotary embeddings, activations, what Inductor fused, and other arithmetic on elements.
    (
        FUSED,
        r"rms_norm|layer_?norm|LayerNorm|rotary|act_and_mul|silu|gelu|triton_(poi|red|per|for)_|elementwise|reduce_kernel",
    ),
    (FUSED, r"softmax|SoftMax|quant|cpp_fused|cvt_"),
    (
        FUSED,
        r"^aten::(add|sub|rsub|mul|div|neg|pow|sqrt|rsqrt|exp|tanh|sigmoid|sin|cos|mean|sum|amax|max|min|clamp|gt|lt|ge|le|"
        r"eq|ne|bitwise_\w+|logical_\w+|cumsum|any|all|native_layer_norm|native_batch_norm)_?$",
    ),
)
"""Kind and regular expression, in the order in which they are tried."""

_COMPILED: Final = [(kind, re.compile(pattern)) for kind, pattern in PATTERNS]


def kind_of(name: str) -> str:
    """The kind of a kernel or operation; `OTHER` where no pattern knows its name."""
    return next((kind for kind, pattern in _COMPILED if pattern.search(name)), OTHER)
