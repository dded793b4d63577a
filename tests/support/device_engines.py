"""A host whose engines run what a GPU runs: Model Runner V2, and vLLM's Triton kernels in Triton's interpreter.

Attention is vLLM's for CPUs; with the patch `triton_attention` it is the Triton backend's, as it is on a GPU without
FlashAttention. What is slow is interpreted attention: prompts stay short. Knows nothing of oracles.
"""

from types import SimpleNamespace
from typing import Final

import engine_host

ENVIRONMENT: Final = {
    "TRITON_INTERPRET": "1",
    "VLLM_USE_V2_MODEL_RUNNER": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}
"""Of the host's process; Triton and vLLM read it when they are imported."""


class InterpreterDriver:
    """What vLLM asks of Triton's driver before it uses kernels."""

    @staticmethod
    def is_active() -> bool:
        return True


def main(number: int) -> None:
    """The host's side: as `engine_host.main`, with a Triton in which vLLM finds a backend for CPUs."""
    give_triton_a_backend()
    engine_host.main(number)


def give_triton_a_backend() -> None:
    """In a process with `ENVIRONMENT`, before vLLM is imported."""
    import torch.utils._triton
    from triton.backends import backends

    # Inductor asks it of a compiler, also where it makes no kernel of Triton's.
    torch.utils._triton.triton_hash_with_backend = lambda: "interpreter"
    backends["cpu"] = SimpleNamespace(driver=InterpreterDriver, compiler=None)
