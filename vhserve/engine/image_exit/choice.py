"""May rows leave, and from which layer on: what a plan allows, what the engine can do, and why it does not.

Does not change a model.
"""

from typing import Any, Final

from torch import nn
from vllm.compilation.breakable_cudagraph import is_breakable_cudagraph_enabled
from vllm.config import VllmConfig
from vllm.platforms import current_platform

from profiles.planning.image_exit import exit_layer
from profiles.pruning_plan import PruningPlan

DECODERS: Final = frozenset(
    {
        *("LlamaModel", "MistralModel", "Qwen2Model", "Qwen3Model", "Qwen3MoeModel", "Glm4Model"),
        *("Qwen3LLMModel", "Qwen3MoeLLMModel"),
    }
)
"""vLLM's decoders that pass every layer what the one before has returned, but for the visual features that the first
layers of a Qwen3-VL get."""


def chosen_exit(decoder: nn.Module, plan: PruningPlan, vllm_config: VllmConfig) -> tuple[int | None, str]:
    """First layer, 0-based, that computes kept rows only, and the reason where there is none though the plan has one.

    Parameters
    ----------
    decoder
        The module that holds the decoder's layers and runs them.
    """
    layer = exit_layer(plan)
    if layer is None:
        return None, ""
    if reason := _obstacle(decoder, vllm_config):
        return None, reason
    layer = max(layer, _visual_layers(vllm_config))
    return (layer, "") if layer < plan.geometry.layers else (None, "every layer gets visual features")


def _obstacle(decoder: nn.Module, vllm_config: VllmConfig) -> str:
    speculation: Any = vllm_config.speculative_config
    if not current_platform.is_cpu() and not vllm_config.use_v2_model_runner:
        return "on a GPU, Model Runner V1 does not know which rows are kept"
    if vllm_config.compilation_config.use_inductor_graph_partition or is_breakable_cudagraph_enabled():
        return "CUDA graphs are not split in front of it"
    if vllm_config.parallel_config.use_ubatching:
        return "a batch is computed in two parts"
    if type(decoder).__name__ not in DECODERS:
        return f"what {type(decoder).__name__} does between layers is not known"
    if any(getattr(one, "ada_rms_norm_t_cond", None) is not None for one in decoder.modules()):
        return "its layers are given a time"
    if vllm_config.lora_config is not None:
        return "adapters are chosen by the row"
    if vllm_config.parallel_config.data_parallel_size > 1 and vllm_config.model_config.is_moe:
        return "data-parallel experts count rows"
    if vllm_config.model_config.runner_type != "generate":
        return "a pooling model reads every row"
    if speculation is not None and speculation.method not in ("ngram", "suffix"):
        return f"a drafter of kind {speculation.method} reads every row"
    return ""


def _visual_layers(vllm_config: VllmConfig) -> int:
    """How many of the first layers get visual features for every image token (DeepStack)."""
    vision: Any = getattr(vllm_config.model_config.hf_config, "vision_config", None)
    return len(getattr(vision, "deepstack_visual_indexes", None) or ())
