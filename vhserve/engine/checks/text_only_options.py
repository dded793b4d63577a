"""What a plan with text-only heads asks of vLLM's settings, beyond what every plan asks.

Owns the settings it needs and those that it refuses. Checked like `refusals`: on the command line's arguments, and on
vLLM's configuration inside the engine.
"""

from typing import Any, Final

from profiles.pruning_plan import PruningPlan
from vhserve.engine.checks.unsupported_options import Refusal, check_arguments, check_config
from vhserve.errors import FlagRefused, TreatmentUnsupported

SCHEDULER: Final = "vhserve.engine.scheduler.plan_scheduler"

LAYOUTS: Final = ("BLHNC", "BLNHC")

REFUSALS: Final = (
    Refusal(
        "--disable-hybrid-kv-cache-manager",
        "disable_hybrid_kv_cache_manager",
        "scheduler_config.disable_hybrid_kv_cache_manager",
        bool,
        "the hybrid KV cache manager",
        "text-only heads have block tables of their own",
    ),
    Refusal(
        "--enable-prompt-embeds",
        "enable_prompt_embeds",
        "model_config.enable_prompt_embeds",
        bool,
        "prompts of tokens and images",
        "which embeddings are of an image is not known",
    ),
    Refusal(
        "--kv-cache-dtype-skip-layers",
        "kv_cache_dtype_skip_layers",
        "cache_config.kv_cache_dtype_skip_layers",
        bool,
        "one KV cache type for all layers",
        "lanes are chosen for heads of one size",
    ),
    Refusal(
        "--kv-sharing-fast-prefill",
        "kv_sharing_fast_prefill",
        "cache_config.kv_sharing_fast_prefill",
        bool,
        "no KV sharing",
        "it replaces the attention back end",
    ),
    Refusal(
        "--enable-dbo",
        "enable_dbo",
        "parallel_config.enable_dbo",
        bool,
        "no dual batch overlap",
        "it splits batches after their metadata is compacted",
    ),
)


def overrides(plan: PruningPlan) -> dict[str, Any]:
    """Arguments of vLLM that serve the plan's text-only heads; none when it has none.

    The scheduler is every plan's, but only text-only heads cannot do without it.

    Raises
    ------
    TreatmentUnsupported
        The model has no image tokens, so that text only is all there is.
    """
    if not plan.heads("text_only"):
        return {}
    if not plan.geometry.image_tokens:
        raise TreatmentUnsupported(
            f"the plan has {len(plan.heads('text_only'))} text-only heads, and its model no image tokens",
            expected="a model whose images become tokens of the prompt",
            fix="make the plan without --text-only",
        )
    return {"scheduler_cls": SCHEDULER}


def check_flags(plan: PruningPlan, arguments: Any) -> None:
    """Refuse what the parsed command line asks for and text-only heads cannot have.

    Raises
    ------
    FlagRefused
    """
    if not plan.heads("text_only"):
        return
    check_arguments(arguments, REFUSALS)
    if getattr(arguments, "scheduler_cls", None) not in (None, SCHEDULER):
        raise _other_scheduler(arguments.scheduler_cls)
    _check_layout()


def check_engine(plan: PruningPlan, vllm_config: Any) -> None:
    """Refuse what vLLM is configured for and text-only heads cannot have.

    Raises
    ------
    FlagRefused, TreatmentUnsupported
    """
    if not overrides(plan):
        return
    check_config(vllm_config, REFUSALS)
    if vllm_config.scheduler_config.scheduler_cls != SCHEDULER:
        raise _other_scheduler(vllm_config.scheduler_config.scheduler_cls)
    _check_layout()


def _check_layout() -> None:
    from vllm import envs

    if envs.VLLM_KV_CACHE_LAYOUT not in (None, *LAYOUTS):
        raise FlagRefused(
            f"VLLM_KV_CACHE_LAYOUT={envs.VLLM_KV_CACHE_LAYOUT} cannot hold text-only heads",
            expected=f"one of {', '.join(LAYOUTS)}, whose blocks groups of unlike layers can share",
            fix="unset VLLM_KV_CACHE_LAYOUT",
        )


def _other_scheduler(name: Any) -> FlagRefused:
    return FlagRefused(
        f"--scheduler-cls ({name}) does not know text-only heads",
        expected=SCHEDULER,
        fix="leave --scheduler-cls out, or serve a plan without text-only heads",
    )
