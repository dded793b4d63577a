"""The criterion on modules of vLLM's own: what a decoder's attention must be, and where heads can be cut out."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from engine_host import EngineHost, call
from oracle import TinyModel

from profiles.geometry import ModelGeometry, ModelRef
from profiles.pruning_plan import PruningPlan

pytestmark = pytest.mark.vllm

GEOMETRY = ModelGeometry(layers=3, query_heads=4, kv_heads=2, head_size=32, hidden_size=96, image_tokens=9)
MODEL = ModelRef(name="m", revision="r", architecture="A")


def refused(model: str, defect: str, treatment: str) -> str | None:
    """Runs in the host: what the criterion says of a decoder with a defect in its layer 1."""
    from vhserve.engine.weights.decoder_attention import decoder_attention
    from vhserve.errors import ModelNotServable

    geometry = GEOMETRY.model_copy(update={"kv_heads": 1 if defect == "one KV head" else 2})
    heads = [(0, head) for head in range(geometry.query_heads // geometry.kv_heads)]
    plan = PruningPlan.manual(MODEL, geometry, **{treatment: heads}, granularity="kv_group")
    try:
        found = decoder_attention(decoder(model, defect), plan)
    except ModelNotServable as error:
        return str(error)
    assert [(one.index, one.slot, one.name) for one in found] == [(i, "self_attn", "attn") for i in range(3)]
    return None


def sliceable(model: str, change: str) -> list[str | None]:
    """Runs in the host: what keeps heads from being cut out of each layer, with a change in layer 1."""
    from torch import nn

    from vhserve.engine.weights.decoder_attention import decoder_attention
    from vhserve.engine.weights.sliceable import why_not_sliceable

    built = decoder(model, "")
    module: Any = built.layers[1].self_attn
    if change == "norm of one head":
        module.q_norm = nn.RMSNorm(32)
    elif change == "norm of all heads":
        module.q_norm = nn.RMSNorm(4 * 32)
    elif change == "another projection":
        module.qkv_proj.__class__ = type("OtherQKV", (type(module.qkv_proj),), {})
    elif change == "another split":
        module.q_size = 64
    plan = PruningPlan.manual(MODEL, GEOMETRY, removed=[(0, 0), (0, 1)], granularity="kv_group")
    return [why_not_sliceable(one, GEOMETRY, compensated=True) for one in decoder_attention(built, plan)]


def decoder(model: str, defect: str) -> Any:
    """Three layers whose attention is built as vLLM's Llama builds it; of `model` the configuration is taken."""
    from torch import nn
    from vllm.config import set_current_vllm_config
    from vllm.distributed import (
        cleanup_dist_env_and_memory,
        init_distributed_environment,
        initialize_model_parallel,
    )
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.layers.attention import Attention
    from vllm.model_executor.layers.attention.mla_attention import MLAAttention
    from vllm.model_executor.layers.linear import ColumnParallelLinear, QKVParallelLinear, RowParallelLinear
    from vllm.model_executor.layers.mamba.short_conv import ShortConv
    from vllm.utils.network_utils import get_distributed_init_method, get_open_port
    from vllm.v1.attention.backend import AttentionType

    class OtherAttention(Attention): ...

    options: dict[str, dict[str, Any]] = {
        "sliding window": {"per_layer_sliding_window": 16},
        "encoder": {"attn_type": AttentionType.ENCODER},
        "alibi": {"alibi_slopes": [0.5] * 4},
        "fewer heads": {"num_kv_heads": 4},
    }
    config = EngineArgs(model=model, dtype="float32", enforce_eager=True).create_engine_config()
    with set_current_vllm_config(config):
        init_distributed_environment(1, 0, get_distributed_init_method("127.0.0.1", get_open_port()), 0, "gloo")
        initialize_model_parallel(1, 1)

        def layer(index: int) -> nn.Module:
            own, name = defect if index == 1 else "", f"model.layers.{index}.self_attn.attn"
            built, module = nn.Module(), nn.Module()
            kind = OtherAttention if own == "another class" else Attention
            kv_heads = 1 if defect == "one KV head" else 2
            kwargs = {"num_kv_heads": kv_heads, "cache_config": config.cache_config, **options.get(own, {})}
            module.qkv_proj = QKVParallelLinear(96, 32, 4, 2, bias=False)
            module.o_proj = RowParallelLinear(4 * 32, 96, bias=False)
            module.q_size, module.kv_size = 4 * 32, 2 * 32  # type: ignore[assignment]
            if own == "linear attention":
                sizes = SimpleNamespace(conv_L_cache=3, conv_bias=False)
                module.attn = ShortConv(sizes, 96, index, cache_config=config.cache_config, prefix=name)
            elif own == "latent attention":
                up = ColumnParallelLinear(64, 4 * 64, bias=False)
                sizes = {"qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32, "kv_lora_rank": 64}
                module.attn = MLAAttention(4, 48**-0.5, q_lora_rank=None, kv_b_proj=up, prefix=name, **sizes)
            elif own != "no attention":
                module.attn = kind(4, 32, 32**-0.5, prefix=name, **kwargs)
            if own == "shared cache":
                module.attn.kv_sharing_target_layer_name = "model.layers.0.self_attn.attn"
            if own == "sinks":
                module.attn.has_sink = True
            if own == "both directions":
                module.attn.use_mm_prefix = True
            if own == "two attentions":
                module.other = kind(4, 32, 32**-0.5, prefix=f"{name}_other", **kwargs)
            built.self_attn = module
            return built

        whole = nn.Module()
        try:
            whole.layers = nn.ModuleList(map(layer, range(3)))
        finally:
            cleanup_dist_env_and_memory()
    return whole


REFUSED = {
    "another class": "OtherAttention",
    "latent attention": "MLAAttention; expected vLLM's own attention over keys and values of every head",
    "linear attention": "ShortConv; expected vLLM's own attention over keys and values of every head",
    "one KV head": "its 4 query heads share one KV head",
    "encoder": "a decoder's attention",
    "alibi": "ALiBi",
    "sinks": "attention sinks",
    "shared cache": "the KV cache of model.layers.0",
    "fewer heads": "(4, 4, 32); expected (4, 2, 32)",
    "two attentions": "two attentions",
    "no attention": "2 of its 3 decoder layers",
}
ONLY_REMOVED = {"sliding window": "sliding window of 16 tokens", "both directions": "within an image"}


@pytest.fixture
def asked(engine_host: EngineHost, models: dict[str, TinyModel]) -> Callable[..., Any]:
    def ask(function: Callable[..., Any], *arguments: str) -> Any:
        outcome = engine_host.do(call(function, str(models["gqa"].path), *arguments))
        assert outcome.failure is None, outcome.failure
        return outcome.probed

    return ask


@pytest.mark.parametrize("treatment", ["removed", "text_only"])
def test_a_decoder_of_vllm_s_own_attention_passes(treatment: str, asked: Callable[..., Any]) -> None:
    assert asked(refused, "", treatment) is None


@pytest.mark.parametrize("defect", REFUSED)
def test_what_fails_is_named_with_its_layer(defect: str, asked: Callable[..., Any]) -> None:
    said = asked(refused, defect, "removed")
    assert REFUSED[defect] in said
    assert "layer 1" in said or defect in {"no attention", "one KV head"}


@pytest.mark.parametrize("defect", ONLY_REMOVED)
def test_some_attention_takes_plans_of_removed_heads_alone(defect: str, asked: Callable[..., Any]) -> None:
    assert asked(refused, defect, "removed") is None
    assert ONLY_REMOVED[defect] in asked(refused, defect, "text_only")


def test_heads_are_cut_out_where_rows_and_columns_are_one_head_s(asked: Callable[..., Any]) -> None:
    assert asked(sliceable, "") == asked(sliceable, "norm of one head") == [None] * 3
    for change, saying in {
        "norm of all heads": "parameters for all heads (q_norm.weight)",
        "another projection": "vLLM's own classes",
        "another split": "how it splits",
    }.items():
        first, second, third = asked(sliceable, change)
        assert first is None
        assert third is None
        assert saying in second
