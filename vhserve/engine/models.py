"""vLLM's vision-language models with the heads of a plan.

Owns the classes that vLLM imports when a configuration names one of them: each is made of vLLM's own class of an
architecture when it is asked for. Does not know files or command-line flags.
"""

import functools
from typing import Any

from torch import nn
from vllm import ModelRegistry
from vllm.config import VllmConfig

from vhserve.compat.model_state import model_state_class
from vhserve.engine.attention.known_queries import request_blocks
from vhserve.engine.attention.partial_builder import PartialBuilder
from vhserve.engine.checks import engine_reports
from vhserve.engine.checks.architectures import served_by, stock_architecture
from vhserve.engine.checks.error_relay import relay_user_errors
from vhserve.engine.checks.plan_validation import validate_plan
from vhserve.engine.checks.stock_model import check_adapters, naming_missing_kernels
from vhserve.engine.image_exit.stage import leave_images
from vhserve.engine.kv_cache.worker_tables import evict
from vhserve.engine.weights.surgery import prune


def __getattr__(name: str) -> type[nn.Module]:
    """The class of a name that `served_by` gives: the way in which vLLM asks for a class that a plugin registered."""
    stock = stock_architecture([name])
    if stock == name or stock not in ModelRegistry.models:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return with_plan(stock)


@functools.cache
def with_plan(architecture: str) -> type[nn.Module]:
    """vLLM's class of an architecture, with the plan that comes in `additional_config`.

    Parameters
    ----------
    architecture
        As in a checkpoint's `config.json`.
    """
    stock: Any = ModelRegistry.models[architecture].load_model_cls()

    class WithPlan(stock):  # type: ignore[misc]
        def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
            with relay_user_errors():
                plan = validate_plan(vllm_config)
                check_adapters(stock, vllm_config)
                with naming_missing_kernels(vllm_config):
                    super().__init__(vllm_config=vllm_config, prefix=prefix)
                engine_reports.put("surgery", prune(self.get_language_model(), plan, vllm_config))
                engine_reports.put("image_exit", leave_images(self.get_language_model(), plan, vllm_config))
                evict(plan, vllm_config)
                self.request_blocks = functools.partial(request_blocks, plan, vllm_config.cache_config.block_size)

        def get_model_state_cls(self) -> type:
            """What Model Runner V2 asks for; runner V1 does not."""
            stock_state = getattr(super(), "get_model_state_cls", None)
            return model_state_class(
                None if stock_state is None else stock_state(),
                self.request_blocks,
                lambda builder: isinstance(builder, PartialBuilder),
            )

    WithPlan.__name__ = WithPlan.__qualname__ = served_by(architecture)
    WithPlan.__doc__ = f"{architecture} with a plan."
    return WithPlan
