"""vLLM's Triton kernels of experts and adapters on CPUs; a patch for hosts of `device_engines`.

Owns what those kernels get from CUDA's on a GPU, in torch: which choices of experts each block computes, and the sum of
a token's experts. Judges nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def triton_adapters(captured: dict[str, Any]) -> Iterator[None]:
    """Experts of an engine that takes adapters, and the experts' adapters, as on a GPU.

    Other adapters are vLLM's for CPUs: its Triton kernels for them take no float32.
    """
    from unittest.mock import patch

    from vllm import _custom_ops
    from vllm.lora.ops.triton_ops import LoRAKernelMeta
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
    from vllm.lora.punica_wrapper.punica_gpu import PunicaWrapperGPU

    stock_start, stock_update = PunicaWrapperCPU.__init__, PunicaWrapperCPU.update_metadata

    def start(self: Any, tokens: int, **options: Any) -> None:
        stock_start(self, tokens, **options)
        self.lora_config = options["lora_config"]
        self.token_mapping_meta = LoRAKernelMeta.make(self.lora_config.max_loras, tokens, options["device"])

    def update(self: Any, *args: Any, **options: Any) -> None:
        stock_update(self, *args, **options)
        self.token_mapping_meta.prepare_tensors(self.token_lora_indices)

    of_experts = ("moe_lora_align_block_size", "add_lora_fused_moe", "add_lora_w13", "add_lora_w2")
    on_a_gpu = {name: getattr(PunicaWrapperGPU, name) for name in of_experts}
    sorting = {"moe_align_block_size": align, "moe_lora_align_block_size": align_adapters, "moe_sum": sum_experts}
    with (
        patch.multiple(PunicaWrapperCPU, __init__=start, update_metadata=update, **on_a_gpu),
        patch.multiple(_custom_ops, **sorting),
    ):
        yield


def align(
    topk_ids: Any,
    num_experts: int,
    block_size: int,
    sorted_ids: Any,
    expert_ids: Any,
    padded: Any,
    expert_map: Any = None,
    scatter_idx: Any = None,
) -> None:
    """Fill in the choices in the order of their experts, each block's expert, and how many places that makes."""
    import torch

    assert expert_map is None
    assert scatter_idx is None
    everything = torch.ones(topk_ids.numel(), dtype=torch.bool)
    padded[0] = _sort(topk_ids, everything, num_experts, block_size, sorted_ids, expert_ids)


def align_adapters(
    topk_ids: Any,
    token_adapters: Any,
    num_experts: int,
    block_size: int,
    adapters: int,
    places: int,
    blocks: int,
    sorted_ids: Any,
    expert_ids: Any,
    padded: Any,
    enabled: Any,
    active: Any,
    expert_map: Any = None,
) -> None:
    """The same for each adapter, of its tokens' choices."""
    assert expert_map is None
    chosen_for = token_adapters[: len(topk_ids)].repeat_interleave(topk_ids.shape[1])
    for adapter in {one for one in active.tolist() if one >= 0 and enabled[one]}:
        own = sorted_ids.view(adapters, places)[adapter], expert_ids.view(adapters, blocks)[adapter]
        padded[adapter] = _sort(topk_ids, chosen_for == adapter, num_experts, block_size, *own)


def _sort(topk_ids: Any, counted: Any, experts: int, block: int, sorted_ids: Any, expert_ids: Any) -> int:
    """Choices, by their number in `topk_ids` (tokens, choices), with as many beyond the last as fill each block."""
    import torch

    flat, at = topk_ids.flatten(), 0
    sorted_ids.fill_(flat.numel())
    for expert in range(experts):
        chosen = torch.nonzero((flat == expert) & counted).flatten().to(sorted_ids.dtype)
        sorted_ids[at : at + len(chosen)] = chosen
        number = -(-len(chosen) // block)
        expert_ids[at // block : at // block + number] = expert
        at += number * block
    return at


def sum_experts(outputs: Any, output: Any, topk_ids: Any = None, expert_map: Any = None) -> None:
    """Of (tokens, choices, width)."""
    assert expert_map is None
    output.copy_(outputs.sum(1))
