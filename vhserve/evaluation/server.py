"""What a server says of itself: the models it serves, and from its metrics the plan and the size of its KV cache.

Owns addresses and what is read from `/v1/models` and `/metrics`. Asks no questions of the model.
"""

import urllib.request
from dataclasses import dataclass
from urllib.parse import urlsplit

import openai
from prometheus_client.parser import text_string_to_metric_families

from vhserve.evaluation.errors import BaseUrlInvalid, ModelNotServed, ServerRefused, ServerUnreachable
from vhserve.evaluation.results import Server

_SECONDS = 20.0


@dataclass(frozen=True)
class KVCapacity:
    """What a server tells of its KV cache, over all its engines.

    Attributes
    ----------
    tokens
        Text tokens that it holds; `None`: not told.
    bytes_per_token
        Of the arms `baseline` and `pruned`; empty without a plan.
    prompts
        Prompts of the model's usual length that it holds, of kind `image` and `text`; empty without a plan.
    block_size, engines
        Tokens of a block (0: not told), and how many engines there are.
    """

    tokens: int | None
    bytes_per_token: dict[str, float]
    prompts: dict[str, float]
    block_size: int
    engines: int

    def prompts_of(self, tokens: int) -> float | None:
        """Prompts of this many tokens that it holds without text-only heads; `None` where its size is not told."""
        if not self.tokens or not self.block_size:
            return None
        usable = self.tokens // self.block_size - self.engines  # each engine keeps one block as the null block
        return usable / -(-tokens // self.block_size)


def check_base_url(base_url: str) -> str:
    """Return a base URL without a trailing slash.

    Raises
    ------
    BaseUrlInvalid
        When it is not an http(s) address.
    """
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BaseUrlInvalid(
            f"base URL {base_url!r} is not an address",
            expected="an address such as http://127.0.0.1:8000/v1",
            fix="give the address of the server with its /v1",
        )
    return base_url.rstrip("/")


def trusts_environment(base_url: str) -> bool:
    """Whether proxies of the environment may be used: not for the machine itself, which no proxy can reach."""
    return urlsplit(base_url).hostname not in ("127.0.0.1", "localhost", "::1")


def identify(base_url: str, model: str | None, api_key: str) -> Server:
    """Find the model to ask, and which plan serves it.

    Parameters
    ----------
    base_url
        Address of the OpenAI endpoint, with its `/v1`.
    model
        Served model's name; `None` takes the only one.
    api_key
        Sent as bearer token.

    Raises
    ------
    BaseUrlInvalid, ServerUnreachable, ServerRefused, ModelNotServed
    """
    base_url = check_base_url(base_url)
    with openai.DefaultHttpxClient(trust_env=trusts_environment(base_url)) as http:
        client = openai.OpenAI(base_url=base_url, api_key=api_key, timeout=_SECONDS, max_retries=0, http_client=http)
        try:
            served = [entry.id for entry in client.models.list()]
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise ServerRefused(
                f"{base_url} refuses the API key (status {error.status_code})",
                expected="a key that the server accepts",
                fix="put it in the environment variable that --api-key-env names",
            ) from error
        except openai.APIStatusError as error:
            raise _unreachable(base_url, f"answers {error.status_code} to /models") from error
        except (openai.APIError, ValueError, AttributeError, TypeError) as error:  # the rest: what is no OpenAI list
            raise _unreachable(base_url, f"gives no list of models ({_reason(error)})") from error
    if model is None and len(served) != 1:
        raise _not_served(base_url, "no model is named", served)
    if model is not None and model not in served:
        raise _not_served(base_url, f"model {model!r} is not served", served)
    labels = _labels(metrics_text(base_url), "vhserve_plan_info")
    return Server(
        base_url=base_url,
        model=model or served[0],
        plan_digest=labels.get("digest"),
        plan_model=labels.get("model"),
        plan_revision=labels.get("revision"),
    )


def _reason(error: Exception) -> str:
    return str(error.__cause__ or error) or type(error).__name__


def _unreachable(base_url: str, how: str) -> ServerUnreachable:
    return ServerUnreachable(
        f"{base_url} {how}",
        expected="an OpenAI-compatible server, such as vhserve serve",
        fix="start it, or correct the address (it ends in /v1)",
    )


def _not_served(base_url: str, wrong: str, served: list[str]) -> ModelNotServed:
    return ModelNotServed(
        f"{wrong} at {base_url}",
        expected=f"one of {', '.join(served) or '(it serves none)'}",
        fix="name it with --model",
    )


def metrics_text(base_url: str) -> str:
    """Read `/metrics` beside the endpoint; empty where a server has none."""
    parts = urlsplit(base_url)
    root = f"{parts.scheme}://{parts.netloc}"
    handlers = [] if trusts_environment(base_url) else [urllib.request.ProxyHandler({})]
    try:
        with urllib.request.build_opener(*handlers).open(f"{root}/metrics", timeout=_SECONDS) as answer:
            text = answer.read().decode("utf-8", errors="replace")
    except (OSError, ValueError):  # ValueError covers http.client's malformed answers
        return ""
    return str(text)


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


def _labels(text: str, name: str) -> dict[str, str]:
    return next((labels for labels, _ in _samples(text, name)), {})


def kv_capacity(text: str) -> KVCapacity:
    """Read the KV cache's size from the text of `/metrics`.

    vLLM reports it in the labels of `vllm:cache_config_info`, per engine; they are added up. Bytes per token and
    prompts are vhserve's own series.
    """
    tokens = engines = block_size = 0
    for labels, _ in _samples(text, "vllm:cache_config_info"):
        told = labels.get("kv_cache_size_tokens", "")
        blocks, size = labels.get("num_gpu_blocks", ""), labels.get("block_size", "")
        engines, block_size = engines + 1, int(size) if size.isdigit() else block_size
        if told.isdigit():
            tokens += int(told)
        elif blocks.isdigit() and size.isdigit():
            tokens += int(blocks) * int(size)
    per_token = {labels.get("arm", ""): value for labels, value in _samples(text, "vhserve_kv_cache_bytes_per_token")}
    prompts = {
        labels.get("prompt", ""): value for labels, value in _samples(text, "vhserve_kv_cache_capacity_requests")
    }
    return KVCapacity(tokens or None, per_token, prompts, block_size, engines)
