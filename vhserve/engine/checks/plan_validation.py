"""Decides inside the engine whether a plan may be served: the last check, whoever started vLLM.

`vhserve serve` has checked the same and more (the checkpoint's revision) before it started anything.
"""

from vllm.config import VllmConfig

from profiles.geometry import ModelRef
from profiles.planning.fit import check_fit
from profiles.pruning_plan import PruningPlan
from vhserve.engine.checks import text_only_options
from vhserve.engine.checks.architectures import stock_architecture
from vhserve.engine.checks.geometry import geometry_of
from vhserve.engine.checks.plan_transport import require
from vhserve.engine.checks.unsupported_options import check_config


def admit(vllm_config: VllmConfig) -> PruningPlan:
    """The plan to serve.

    Raises
    ------
    PlanMissing, PlanAltered, FlagRefused, ModelMismatch, TreatmentUnsupported
    """
    plan = require(vllm_config.additional_config)
    check_config(vllm_config)
    text_only_options.check_engine(plan, vllm_config)
    config = vllm_config.model_config.hf_config
    model = ModelRef(
        name=vllm_config.model_config.model,
        revision=plan.model.revision,
        architecture=stock_architecture(config.architectures or ()),
    )
    check_fit(plan, model, geometry_of(config, plan.geometry.image_tokens))
    return plan
