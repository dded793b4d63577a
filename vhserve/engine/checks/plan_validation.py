"""Validates a plan inside the engine, against vLLM's configuration and the model's: the last check before it is served.

For users who start vLLM without `vhserve serve`, which checks the same and the checkpoint's revision before it starts
vLLM. Does not know weights.
"""

from vllm.config import VllmConfig
from vllm.platforms import current_platform

from profiles.geometry import ModelRef
from profiles.planning.fit import check_fit
from profiles.pruning_plan import PruningPlan
from profiles.transformers_config import decoder_geometry
from vhserve.engine.checks import kv_offloading, partial_options
from vhserve.engine.checks.architectures import stock_architecture
from vhserve.engine.checks.kv_cache_type import check_on_cpus
from vhserve.engine.checks.plan_transport import require_plan
from vhserve.engine.checks.unsupported_options import check_config


def validate_plan(vllm_config: VllmConfig) -> PruningPlan:
    """The plan in `additional_config`, checked against vLLM's and the model's configuration.

    Raises
    ------
    PlanMissing, PlanAltered, FlagRefused, ModelMismatch, TreatmentUnsupported
    """
    plan = require_plan(vllm_config.additional_config)
    check_config(vllm_config)
    if current_platform.is_cpu():
        check_on_cpus(vllm_config.cache_config.cache_dtype)
    kv_offloading.check_engine(vllm_config)
    partial_options.check_engine(plan, vllm_config)
    config = vllm_config.model_config.hf_config
    model = ModelRef(
        name=vllm_config.model_config.model,
        revision=plan.model.revision,
        architecture=stock_architecture(config.architectures or ()),
    )
    check_fit(plan, model, decoder_geometry(config, plan.geometry.image_tokens))
    return plan
