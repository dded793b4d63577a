"""vLLM's LLaVA models with the heads of a plan cut out.

Owns the classes that vLLM imports when a configuration names one of them. Does not know files or command-line flags.
"""

from vllm.config import VllmConfig
from vllm.model_executor.models.llava import LlavaForConditionalGeneration
from vllm.model_executor.models.llava_next import LlavaNextForConditionalGeneration

from vhserve.engine.checks.error_relay import relay_user_errors
from vhserve.engine.checks.plan_validation import validate_plan
from vhserve.engine.kv_cache.worker_tables import evict
from vhserve.engine.weights.surgery import prune


class VhserveLlavaForConditionalGeneration(LlavaForConditionalGeneration):
    """LLaVA-1.5 with a plan."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        with relay_user_errors():
            plan = validate_plan(vllm_config)
            super().__init__(vllm_config=vllm_config, prefix=prefix)
            prune(self.language_model, plan, vllm_config)
            evict(plan, vllm_config)


class VhserveLlavaNextForConditionalGeneration(LlavaNextForConditionalGeneration):
    """LLaVA-1.6 with a plan."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        with relay_user_errors():
            plan = validate_plan(vllm_config)
            super().__init__(vllm_config=vllm_config, prefix=prefix)
            prune(self.language_model, plan, vllm_config)
            evict(plan, vllm_config)
