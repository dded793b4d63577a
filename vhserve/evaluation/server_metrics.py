"""What a server reports in `/metrics`: the page's text, the plan, and the size of the KV cache.

Owns how the page is read, and the names and labels of vLLM's and vhserve's metrics that evaluation needs. Does not know
what is made of them.
"""

from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import httpx
from prometheus_client.parser import text_string_to_metric_families

from profiles.treatments import TREATMENTS
from vhserve.evaluation.address import trusts_environment

_TIMEOUT = 20.0
"""Seconds for each of connecting, sending and every read."""


@dataclass(frozen=True)
class KVCapacity:
    """What a server reports of its KV cache, over all its engines.

    Attributes
    ----------
    tokens
        Text tokens that it holds in requests of the greatest length, as vLLM says it; `None`: not reported.
    bytes_per_token
        Bytes of KV cache that one token takes, of the arms `baseline` and `pruned`; empty without a plan.
    prompts
        Prompts of the model's usual length that it holds, of kind `image` and `text`; empty without a plan.
    block_size, blocks, engines
        Tokens of a block and number of blocks (0: not reported), and how many engines there are.
    """

    tokens: int | None
    bytes_per_token: dict[str, float]
    prompts: dict[str, float]
    block_size: int
    blocks: int
    engines: int

    def prompts_of(self, tokens: int) -> float | None:
        """Prompts of this many tokens that it holds without text-only heads; `None` where its size is not reported.

        Counts blocks: `tokens` is less where the greatest length is no multiple of a block.
        """
        if not self.blocks or not self.block_size:
            return None
        usable = self.blocks - self.engines  # each engine keeps one block as the null block
        return usable / -(-tokens // self.block_size)


class MetricsPage:
    """The `/metrics` page beside an endpoint, to be read any number of times; a context, which closes the client.

    Parameters
    ----------
    base_url
        Address of the OpenAI endpoint, with its `/v1`.
    """

    def __init__(self, base_url: str) -> None:
        parts = urlsplit(base_url)
        self._url = f"{parts.scheme}://{parts.netloc}/metrics"
        # A connection of its own for each reading: a server closes kept ones when they have been idle for some seconds.
        self._client = httpx.Client(
            timeout=_TIMEOUT,
            trust_env=trusts_environment(base_url),
            follow_redirects=True,
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    def text(self) -> str:
        """Read the page; empty where a server has none, or does not answer."""
        try:
            answer = self._client.get(self._url).raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL):
            return ""
        return answer.content.decode("utf-8", errors="replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the client."""
        self._client.close()


def metrics_text(base_url: str) -> str:
    """Read `/metrics` beside an endpoint once; empty where a server has none, or does not answer."""
    with MetricsPage(base_url) as page:
        return page.text()


def plan_labels(text: str) -> dict[str, str]:
    """Labels of `vhserve_plan_info`: `digest`, `model` and `revision` of the plan; empty where none is served."""
    return next((labels for labels, _ in _samples(text, "vhserve_plan_info")), {})


def evicted_heads(text: str) -> int:
    """Query heads of the served plan that lose image blocks when the prompt is computed, by `vhserve_heads`."""
    evicting = {name for name, one in TREATMENTS.items() if one.evicts}
    return round(sum(value for labels, value in _samples(text, "vhserve_heads") if labels.get("treatment") in evicting))


def served_with(text: str) -> tuple[int | None, str | None]:
    """Tokens of a KV block, and dtype of the weights, of the server; None where it does not report them.

    vLLM reports the first in `vllm:cache_config_info`, `vhserve serve` both, with a plan and without.
    """
    own = next((labels for labels, _ in _samples(text, "vhserve_server_info")), {})
    block_size = own.get("block_size", "")
    return (int(block_size) if block_size.isdigit() else kv_capacity(text).block_size or None), own.get("dtype")


def _samples(text: str, name: str) -> list[tuple[dict[str, str], float]]:
    try:
        return [
            (sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name
        ]
    except (ValueError, KeyError, IndexError):  # a page that is no metrics page
        return []


def kv_capacity(text: str) -> KVCapacity:
    """Read the KV cache's size from the text of `/metrics`.

    vLLM reports it in the labels of `vllm:cache_config_info`, per engine; they are added up. Bytes per token and
    prompts are vhserve's own series.
    """
    tokens = all_blocks = engines = block_size = 0
    for labels, _ in _samples(text, "vllm:cache_config_info"):
        reported = labels.get("kv_cache_size_tokens", "")
        blocks, size = labels.get("num_gpu_blocks", ""), labels.get("block_size", "")
        engines, block_size = engines + 1, int(size) if size.isdigit() else block_size
        if reported.isdigit():
            tokens += int(reported)
        elif blocks.isdigit() and size.isdigit():
            tokens += int(blocks) * int(size)
        all_blocks += int(blocks) if blocks.isdigit() else 0
    per_token = {labels.get("arm", ""): value for labels, value in _samples(text, "vhserve_kv_cache_bytes_per_token")}
    prompts = {
        labels.get("prompt", ""): value for labels, value in _samples(text, "vhserve_kv_cache_capacity_requests")
    }
    return KVCapacity(tokens or None, per_token, prompts, block_size, all_blocks, engines)
