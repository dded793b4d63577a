"""May the KV cache be of the type, and be offloaded as the command line says, before vLLM is asked?

Owns what vLLM would take in silence on CPUs, or refuse in its own words. Does not know sizes of KV caches (`memory`).
"""

from vhserve.devices import serving_device
from vhserve.engine.checks.kv_cache_type import check_on_cpus
from vhserve.engine.checks.kv_offloading import FLAG, check_size
from vhserve.errors import FlagRefused
from vhserve.server.preflight.flags import GivenFlags


def check_kv_cache(flags: GivenFlags, has_plan: bool) -> None:
    """Refuse a KV cache type that CPUs have no attention for, and a KV cache that cannot be offloaded.

    Raises
    ------
    FlagRefused
    """
    on_cpus = serving_device() == "cpu"
    if on_cpus:
        check_on_cpus(flags.get("--kv-cache-dtype") or "auto")
    size = flags.get(FLAG)
    if size is None:
        return
    try:
        check_size(float(size))
    except ValueError:
        raise FlagRefused(f"{FLAG} {size}", expected="GiB, a number above 0", fix=f"correct {FLAG}") from None
    if on_cpus and not has_plan:
        raise FlagRefused(
            f"{FLAG} needs a plan on CPUs: vLLM offloads from GPUs only, and vhserve's copies are of a plan's blocks",
            expected=f"{FLAG} with --plan, or on a GPU",
            fix=f"leave {FLAG} out, and give the memory to the KV cache with --kv-cache-memory-bytes",
        )
