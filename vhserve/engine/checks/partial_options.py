"""What a plan with partial heads requires of vLLM's options, beyond `unsupported_options`.

Owns the options that it sets and those that it cannot be combined with. Checked like `unsupported_options`, on the
parsed command line and on vLLM's configuration inside the engine. Does not know heads.
"""

from typing import Any, Final

from profiles.image_spans import OLD_RULE, RULE, SpanRule
from profiles.pruning_plan import PruningPlan
from profiles.treatments import TREATMENTS
from vhserve.engine.checks.unsupported_options import UnsupportedOption, check_arguments, check_config
from vhserve.errors import FlagRefused, TreatmentUnsupported

SCHEDULER: Final = "vhserve.engine.scheduler.plan_scheduler"
"""Value of vLLM's `scheduler_cls` for every plan."""

SPAN_RULES: Final = (RULE, OLD_RULE)
"""Rules of image spans that plans may have."""

LAYOUTS: Final = ("BLHNC", "BLNHC")
"""KV cache layouts with the block axis outermost."""

UNSUPPORTED_OPTIONS: Final = (
    UnsupportedOption(
        "--disable-hybrid-kv-cache-manager",
        "disable_hybrid_kv_cache_manager",
        "scheduler_config.disable_hybrid_kv_cache_manager",
        bool,
        "the hybrid KV cache manager",
        "heads that drop image blocks have block tables of their own",
    ),
    UnsupportedOption(
        "--enable-prompt-embeds",
        "enable_prompt_embeds",
        "model_config.enable_prompt_embeds",
        bool,
        "prompts of tokens and images",
        "which embeddings are of an image is not known",
    ),
    UnsupportedOption(
        "--kv-cache-dtype-skip-layers",
        "kv_cache_dtype_skip_layers",
        "cache_config.kv_cache_dtype_skip_layers",
        bool,
        "one KV cache type for all layers",
        "lanes are chosen for heads of one size",
    ),
    UnsupportedOption(
        "--kv-sharing-fast-prefill",
        "kv_sharing_fast_prefill",
        "cache_config.kv_sharing_fast_prefill",
        bool,
        "no KV sharing",
        "it replaces the attention backend",
    ),
    UnsupportedOption(
        "--enable-dbo",
        "enable_dbo",
        "parallel_config.enable_dbo",
        bool,
        "no dual batch overlap",
        "it splits batches after their metadata is compacted",
    ),
)


def overrides(plan: PruningPlan) -> dict[str, Any]:
    """Arguments of vLLM that partial heads require; empty for a plan without any.

    Raises
    ------
    TreatmentUnsupported
        The model has no image tokens, or the plan is for image spans of another rule than this release's.
    """
    if not plan.has_partial_heads:
        return {}
    _check_span_rule(plan.span_rule)
    if not plan.geometry.image_tokens:
        counts = {one.label: len(plan.heads(one.name)) for one in TREATMENTS.values() if one.is_masked}
        heads = ", ".join(f"{count} {label}" for label, count in counts.items() if count)
        raise TreatmentUnsupported(
            f"the plan has heads that drop image blocks ({heads}), and its model no image tokens",
            expected="a model whose images become tokens of the prompt",
            fix="make the plan with --remove only",
        )
    return {"scheduler_cls": SCHEDULER}


def _check_span_rule(rule: SpanRule) -> None:
    if rule not in SPAN_RULES:
        bridges = " or ".join(str(one.bridge) for one in SPAN_RULES)
        raise TreatmentUnsupported(
            f"the plan's image spans bridge holes of up to {rule.bridge} tokens (image_spans.bridge)",
            expected=f"{bridges} tokens, which this release serves",
            fix="make the plan again with `vhserve plan`",
        )


def check_flags(plan: PruningPlan, arguments: Any) -> None:
    """Check the parsed command line for a plan with partial heads; passes for other plans.

    Raises
    ------
    FlagRefused
    """
    if not plan.has_partial_heads:
        return
    check_arguments(arguments, UNSUPPORTED_OPTIONS)
    if getattr(arguments, "scheduler_cls", None) not in (None, SCHEDULER):
        raise _other_scheduler(arguments.scheduler_cls)
    _check_layout()


def check_engine(plan: PruningPlan, vllm_config: Any) -> None:
    """Check vLLM's configuration for a plan with partial heads; passes for other plans.

    Raises
    ------
    FlagRefused, TreatmentUnsupported
    """
    if not overrides(plan):
        return
    check_config(vllm_config, UNSUPPORTED_OPTIONS)
    if vllm_config.scheduler_config.scheduler_cls != SCHEDULER:
        raise _other_scheduler(vllm_config.scheduler_config.scheduler_cls)
    _check_layout()


def _check_layout() -> None:
    from vllm import envs

    if envs.VLLM_KV_CACHE_LAYOUT not in (None, *LAYOUTS):
        raise FlagRefused(
            f"VLLM_KV_CACHE_LAYOUT={envs.VLLM_KV_CACHE_LAYOUT} cannot hold heads that drop image blocks",
            expected=f"one of {', '.join(LAYOUTS)}, whose blocks groups of unlike layers can share",
            fix="unset VLLM_KV_CACHE_LAYOUT",
        )


def _other_scheduler(name: Any) -> FlagRefused:
    return FlagRefused(
        f"--scheduler-cls ({name}) does not know heads that drop image blocks",
        expected=SCHEDULER,
        fix="leave --scheduler-cls out, or serve a plan without such heads",
    )
