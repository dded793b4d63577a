"""What vLLM's own model of an architecture does not do, said in one line before its weights are loaded.

Owns adapters that it takes none of, and quantised weights that vLLM has no kernel for. Does not know plans.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from vllm.config import VllmConfig
from vllm.model_executor.models import supports_lora
from vllm.platforms import current_platform
from vllm.triton_utils import HAS_TRITON

from vhserve.engine.checks.architectures import stock_architecture
from vhserve.errors import FlagRefused, ModelNotServable


def check_adapters(stock: type, vllm_config: VllmConfig) -> None:
    """Refuse adapters for a class of vLLM's that takes none, and, where there is no Triton, for experts.

    vLLM refuses the first after the weights are loaded. For the second it chooses Triton kernels on any platform, with
    adapters of the attention alone, too, and ends in a traceback.

    Raises
    ------
    FlagRefused
    """
    if not vllm_config.lora_config:
        return
    model = vllm_config.model_config
    architecture = stock_architecture(model.architectures)
    if not supports_lora(stock):
        raise FlagRefused(
            f"--enable-lora: vLLM's {architecture} takes no adapters",
            expected="a model that takes them",
            fix="leave --enable-lora out, or merge the adapter into the checkpoint",
        )
    if model.is_moe and current_platform.is_cpu() and not HAS_TRITON:
        raise FlagRefused(
            f"--enable-lora: with adapters, the experts of vLLM's {architecture} are Triton kernels, which CPUs do not "
            "have",
            expected="a model without experts, or a GPU",
            fix="leave --enable-lora out, or merge the adapter into the checkpoint",
        )


@contextmanager
def naming_missing_kernels(vllm_config: VllmConfig) -> Iterator[None]:
    """Raise `ModelNotServable` where vLLM finds, as it builds a quantised model, that it has no kernel for the weights.

    Raises
    ------
    ModelNotServable
    """
    try:
        yield
    except (NotImplementedError, ValueError) as error:
        if vllm_config.quant_config is None:
            raise
        model = vllm_config.model_config
        raise ModelNotServable(
            f"vLLM builds no {stock_architecture(model.architectures)} from weights of {model.quantization} here: "
            f"{str(error).partition('. ')[0]}",
            expected="weights that it has kernels for on this machine",
            fix="serve the checkpoint that is not quantised, or another quantisation",
        ) from error
