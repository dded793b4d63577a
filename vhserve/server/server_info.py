"""What a server computes with, on its `/metrics`: the metric that says which KV blocks and dtypes figures are for.

A server without a plan has it too, so that `vhserve evaluate` can record it for both arms. Knows of vLLM the
configuration that an API server has; does not know plans.
"""

from typing import Any, NamedTuple, Self

from prometheus_client import REGISTRY, CollectorRegistry

from vhserve.server.at_start import AtStart
from vhserve.server.metric_definitions import collector


class ServedWith(NamedTuple):
    """KV blocks and dtypes of a running server.

    Attributes
    ----------
    block_size
        Tokens of a KV block.
    dtype, kv_dtype
        Of the weights, and of the KV cache, such as ``bfloat16``.
    """

    block_size: int
    dtype: str
    kv_dtype: str

    @classmethod
    def of(cls, vllm_config: Any) -> Self:
        """Read vLLM's configuration, after its engines have answered what they use."""
        cache, dtype = vllm_config.cache_config, str(vllm_config.model_config.dtype).removeprefix("torch.")
        return cls(cache.block_size, dtype, dtype if cache.cache_dtype == "auto" else cache.cache_dtype)

    def expose(self, registry: CollectorRegistry = REGISTRY) -> None:
        """Put it into a registry; the default one is what vLLM's `/metrics` shows."""
        info = collector("vhserve_server_info", registry)
        info.labels(block_size=str(self.block_size), dtype=self.dtype, kv_cache_dtype=self.kv_dtype).set(1)


class ServerInfo(AtStart):
    """Exposes the metric."""

    def act(self, app: Any) -> None:
        ServedWith.of(app.state.vllm_config).expose()
