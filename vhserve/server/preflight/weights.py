"""Can this machine's vLLM quantise weights as the command line says?

Owns what is known to end a start after minutes of loading. Does not read checkpoints (`model_files`).
"""

from vhserve.devices import serving_device
from vhserve.errors import FlagRefused
from vhserve.server.preflight.flags import GivenFlags


def check_quantisation(flags: GivenFlags) -> None:
    """Refuse `--quantization fp8` on CPUs, where vLLM 0.32 has no kernel that quantises (`static_scaled_fp8_quant`).

    Raises
    ------
    FlagRefused
    """
    if (flags.get("--quantization") or flags.get("-q")) == "fp8" and serving_device() == "cpu":
        raise FlagRefused(
            "--quantization fp8: vLLM's build for CPUs has no kernel that quantises weights to FP8",
            expected="weights as the checkpoint has them, also of 8 or 4 bits (compressed-tensors, GPTQ, AWQ)",
            fix="leave --quantization out, or serve on a GPU",
        )
