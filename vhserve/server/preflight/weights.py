"""Can this machine's vLLM quantise weights as the command line says?

Owns what is known to end a start after minutes of loading. Does not read checkpoints (`model_files`).
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from vhserve.devices import serving_device
from vhserve.errors import FlagRefused
from vhserve.server.preflight.flags import GivenFlags

WITHOUT_KERNEL: Final[Mapping[str, str]] = {
    "fp8": "",
    "fp8_per_tensor": "",
    "fp8_per_block": "amx_tile",
    "mxfp8": "",
    "mxfp4": "",
}
"""Methods of `--quantization` that vLLM 0.32's build for CPUs has no kernel for, unless the CPU has a feature.

The first two need `static_scaled_fp8_quant`, which is declared there without a body; the others ask
`model_executor/kernels/linear` for a kernel that the platform has. `fp8_per_channel` runs, and what quantises nothing
but experts leaves other layers as they are.
"""

_CPU: Final = Path("/proc/cpuinfo")


def check_quantisation(flags: GivenFlags) -> None:
    """Refuse, on CPUs, methods of `--quantization` that quantise what is loaded and have no kernel there.

    Raises
    ------
    FlagRefused
        Also where `online` has no `--quantization-config`, on any device: vLLM ends in a traceback.
    """
    method, config = flags.get("--quantization") or flags.get("-q"), flags.get("--quantization-config")
    if method == "online" and config is None and "--config" not in flags:
        raise FlagRefused(
            "--quantization online names no method",
            expected="one for each kind of layer in --quantization-config",
            fix="""give --quantization-config '{"linear": "fp8_per_channel"}'""",
        )
    if method is None or serving_device() != "cpu":
        return
    for name in (method, *(_methods(config) if config else ())):
        feature = WITHOUT_KERNEL.get(name)
        if feature is not None and not (feature and _has(feature)):
            within = "" if name == method else f" with {name} in --quantization-config"
            raise FlagRefused(
                f"--quantization {method}{within}: vLLM's build for CPUs has no kernel for it"
                f"{' without AMX' if feature else ''}",
                expected="fp8_per_channel, or weights as the checkpoint has them, also of 8 or 4 bits "
                "(compressed-tensors, GPTQ, AWQ)",
                fix="leave --quantization out, or serve on a GPU",
            )


def _methods(config: str) -> Iterator[str]:
    """Methods that a `--quantization-config` asks for linear layers, as JSON or as the value of a field (`.linear`)."""
    try:
        asked: Any = json.loads(config)
    except ValueError:
        asked = {"linear": config}
    if not isinstance(asked, dict):
        return
    linear, targets = asked.get("linear"), asked.get("targets")
    names = [linear.get("weight") if isinstance(linear, dict) else linear]
    names += targets.values() if isinstance(targets, dict) else ()
    yield from (name.removesuffix("_static") for name in names if isinstance(name, str))


def _has(feature: str) -> bool:
    return _CPU.exists() and f" {feature} " in f"{_CPU.read_text()} ".replace("\n", " ")
