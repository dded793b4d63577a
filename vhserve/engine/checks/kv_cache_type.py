"""KV cache types that vLLM takes on CPUs, and has no attention for there.

Checked on the command line, with a plan and without, and inside the engine with one. Imports neither vLLM nor torch.
"""

from vhserve.errors import FlagRefused


def check_on_cpus(kind: str) -> None:
    """Refuse a value of --kv-cache-dtype with a scale for each token and head.

    vLLM 0.32 does not ask the CPU attention (`supported_kv_cache_dtypes` of `v1/attention/backends/cpu_attn.py`), which
    takes every quantised type for FP8: log-probabilities of a tiny model were off by 3.7.

    Raises
    ------
    FlagRefused
    """
    if kind.endswith("per_token_head"):
        raise FlagRefused(
            f"--kv-cache-dtype ({kind}) is of vLLM's Triton attention, which CPUs do not have: vLLM takes it there and "
            "answers nonsense",
            expected="auto, or fp8 on a CPU with AVX-512 or AMX",
            fix="change --kv-cache-dtype, or serve on a GPU",
        )
