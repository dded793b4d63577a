"""Asking: a dataset's samples through the OpenAI endpoint, a bounded number at a time.

Owns requests, their limits, and what becomes of a failed one. Knows no second arm and no file.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Any

import openai

from calibrate.datasets.sample import Sample
from vhserve.evaluation.address import trusts_environment
from vhserve.evaluation.chat import greedy_request, reply_tokens, sample_message, to_answer
from vhserve.evaluation.errors import ServerLost
from vhserve.evaluation.results import Answer, Server

_LOST_AFTER = 20
"""Failures in a row after which the server is given up; at least this many, and two rounds of every worker."""


@dataclass(frozen=True)
class RequestLimits:
    """Limits of asking: requests at a time, seconds until one fails, tokens of each reply (`None`: as options take)."""

    concurrency: int = 8
    timeout: float = 120.0
    max_tokens: int | None = None


def open_client(server: Server, api_key: str, timeout: float) -> openai.AsyncOpenAI:
    """Open a client without retries: a retry would hide a failure, and stretch a latency."""
    http = openai.DefaultAsyncHttpxClient(trust_env=trusts_environment(server.base_url))
    return openai.AsyncOpenAI(
        base_url=server.base_url, api_key=api_key, timeout=timeout, max_retries=0, http_client=http
    )


def ask_all(
    server: Server,
    samples: Iterable[Sample],
    *,
    limits: RequestLimits,
    api_key: str,
    advance: Callable[[Answer], None] = lambda answer: None,
) -> list[Answer]:
    """Ask for every sample, greedily decoded, and score the replies.

    Parameters
    ----------
    server
        The server to ask.
    samples
        Read one by one as workers come free; never all in memory.
    limits
        Concurrency, timeout and length of a reply.
    api_key
        Sent as bearer token.
    advance
        Called with each answer as it arrives.

    Returns
    -------
    Answers in the order of the samples.

    Raises
    ------
    ServerLost
        When so many requests fail in a row that the server must be gone.
    """
    return asyncio.run(_ask_all(server, iter(samples), limits, api_key, advance))


async def _ask_all(
    server: Server, samples: Iterator[Sample], limits: RequestLimits, api_key: str, advance: Callable[[Answer], None]
) -> list[Answer]:
    numbered = _Numbered(samples)
    answers: dict[int, Answer] = {}
    failed_in_a_row = 0
    enough = max(_LOST_AFTER, 2 * limits.concurrency)

    async with open_client(server, api_key, limits.timeout) as client:

        async def work() -> None:
            nonlocal failed_in_a_row
            # Reading a sample may decode a large picture: in a thread, or the other requests would wait for it.
            while (item := await asyncio.to_thread(numbered.take)) is not None:
                number, sample, message = item
                answer = answers[number] = await _ask(client, server.model, sample, message, limits)
                failed_in_a_row = failed_in_a_row + 1 if answer.outcome == "error" else 0
                advance(answer)
                if failed_in_a_row >= enough:
                    raise ServerLost(
                        f"{failed_in_a_row} requests in a row failed at {server.base_url}, at last with {answer.error}",
                        expected="a server that answers",
                        fix="look at its log, or lower --concurrency",
                    )

        workers = [asyncio.create_task(work()) for _ in range(limits.concurrency)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
    return [answers[number] for number in sorted(answers)]


class _Numbered:
    """Iterates over samples for several threads: each sample once, with its number and its message."""

    def __init__(self, samples: Iterator[Sample]) -> None:
        self._samples = enumerate(samples)
        self._lock = Lock()

    def take(self) -> tuple[int, Sample, dict[str, Any]] | None:
        with self._lock:
            item = next(self._samples, None)
        if item is None:
            return None
        number, sample = item
        return number, sample, sample_message(sample)


async def _ask(
    client: openai.AsyncOpenAI, model: str, sample: Sample, message: dict[str, Any], limits: RequestLimits
) -> Answer:
    started = time.perf_counter()
    reply, error, tokens = None, None, None
    try:
        request: Any = greedy_request(
            model, message, limits.max_tokens or reply_tokens(sample)
        )  # the client's types take no plain dictionary
        completion = await client.chat.completions.create(**request)
        reply = completion.choices[0].message.content or ""
        if completion.usage is not None:  # vLLM counts the token that ends a reply
            tokens = completion.usage.completion_tokens - (completion.choices[0].finish_reason == "stop")
    except openai.APIStatusError as failure:
        error = f"status {failure.status_code}: {failure.message}"
    except (openai.APIError, IndexError, AttributeError, TypeError) as failure:  # the rest: what is no chat completion
        error = f"{type(failure).__name__}: {failure.__cause__ or failure}"
    return to_answer(sample, reply=reply, error=error, seconds=time.perf_counter() - started, tokens=tokens)
