"""`--kv-offloading-size` with a plan: what it sets of vLLM's configuration, and what it cannot be combined with.

Checked on the parsed command line and on vLLM's configuration inside the engine. Does not know how blocks are offloaded
(`engine.kv_offload`).
"""

import os
from typing import Any, Final

from vhserve.errors import FlagRefused

FLAG: Final = "--kv-offloading-size"

_CONNECTOR: Final = "OffloadingConnector"
_SIZE: Final = "cpu_bytes_to_use"
_SIMPLE: Final = "VLLM_USE_SIMPLE_KV_OFFLOAD"


def transfer() -> dict[str, Any]:
    """Fields of vLLM's `KVTransferConfig`, which takes the connector's name and role from the flag."""
    return {
        "kv_connector_module_path": "vhserve.engine.kv_offload.connector",
        "kv_connector_extra_config": {
            "spec_name": "HostOffloadingSpec",
            "spec_module_path": "vhserve.engine.kv_offload.host_memory",
        },
    }


def overrides() -> dict[str, Any]:
    """Arguments that, beside the flag, make vLLM offload the KV cache of an engine with a plan."""
    from vllm.config import KVTransferConfig

    return {"kv_transfer_config": KVTransferConfig(**transfer())}


def check_flags(arguments: Any) -> None:
    """Check the parsed command line; passes without the flag.

    Raises
    ------
    FlagRefused
    """
    _check(getattr(arguments, "kv_offloading_size", None), getattr(arguments, "kv_offloading_backend", "native"))


def check_engine(vllm_config: Any) -> None:
    """Check vLLM's configuration, in which the flag has become a connector.

    Raises
    ------
    FlagRefused
    """
    cache = vllm_config.cache_config
    _check(cache.kv_offloading_size, cache.kv_offloading_backend)


def is_other_transfer(config: Any) -> bool:
    """Whether a `KVTransferConfig` is of another connector than the plan's, or of this one with other options.

    One that the user has written, which no `KVTransferConfig` was made of yet, is of another.
    """
    if config is None or isinstance(config, str):
        return config is not None
    extra = {name: value for name, value in config.kv_connector_extra_config.items() if name != _SIZE}
    given = {"kv_connector_module_path": config.kv_connector_module_path, "kv_connector_extra_config": extra}
    return config.kv_connector not in (None, _CONNECTOR) or given != transfer()


def check_size(size: float) -> None:
    """Refuse a size in GiB that no block fits in.

    Raises
    ------
    FlagRefused
    """
    if not size > 0:
        raise FlagRefused(
            f"{FLAG} ({size:g}) leaves no memory for KV blocks",
            expected="GiB of the host's memory, above 0",
            fix=f"leave {FLAG} out, or give it more",
        )


def _check(size: float | None, backend: str) -> None:
    if size is None:
        return
    check_size(size)
    if backend != "native":
        raise FlagRefused(
            f"--kv-offloading-backend ({backend}) does not go together with a plan: a shared KV store would mix caches "
            "of different plans",
            expected="native",
            fix="leave --kv-offloading-backend out, or serve without --plan",
        )
    if os.environ.get(_SIMPLE, "0") not in ("", "0"):
        raise FlagRefused(
            f"{_SIMPLE} does not go together with a plan: it takes another connector, which mixes caches of different "
            "plans",
            expected=f"{_SIMPLE}=0",
            fix=f"unset {_SIMPLE}, or serve without --plan",
        )
