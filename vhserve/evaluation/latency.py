"""Latency of a server under a fixed number of concurrent streams: first token, further tokens, throughput.

Owns the load and its clock. Does not know what the replies mean: their length is fixed, their content ignored.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import openai
from PIL import Image
from pydantic import Field

from profiles.error_text import one_line
from vhserve.evaluation.chat import greedy_request, user_message
from vhserve.evaluation.client import open_client
from vhserve.evaluation.results import ResultModel, Server
from vhserve.evaluation.token_latency import TokenTimes, elapsed, has_text, per_second, quantiles, token_count


@dataclass(frozen=True)
class LatencyLoad:
    """What to send: a closed loop of `concurrency` streams, `requests` in all, each with a picture of its own.

    Attributes
    ----------
    concurrency
        Streams open at any time.
    requests
        Requests that are measured.
    warm_up
        Requests before them that are not.
    output_tokens
        Length of every reply, enforced.
    image_size
        Side of the pictures, in pixels; they are noise, so that no cache knows them.
    question
        Text beside each picture.
    seed
        Seed of the pictures: every server gets the same ones.
    time_limit
        Seconds after which no further request is sent; those under way are finished.
    timeout
        Seconds until a request counts as failed.
    """

    concurrency: int
    requests: int
    warm_up: int = 2
    output_tokens: int = 32
    image_size: int = 96
    question: str = "How many red circles are there?"
    seed: int = 0
    time_limit: float = 60.0
    timeout: float = 60.0


class Quantiles(ResultModel):
    """Median and 90th percentile, in milliseconds."""

    p50: float = Field(ge=0)
    p90: float = Field(ge=0)


class LatencyFigures(ResultModel):
    """What a load found. Lower is better for the two latencies (milliseconds), higher for the throughput.

    TTFT, TPOT and throughput are defined in `vhserve.evaluation.token_latency`. `seconds` runs from the first request
    to the last piece of a reply; failed requests are in neither latency.
    """

    concurrency: int
    requests: int
    failed: int
    output_tokens: int
    seconds: float
    ttft_ms: Quantiles | None
    tpot_ms: Quantiles | None
    output_tokens_per_second: float
    first_error: str | None


@dataclass
class _Reply(TokenTimes):
    due: float
    arrivals: list[float] = field(default_factory=list)
    tokens: int = 0
    error: str | None = None


def measure(server: Server, load: LatencyLoad, api_key: str = "none") -> LatencyFigures:
    """Put a load on a server and time it.

    A failed request is counted and left out of the quantiles; with none left, they are `None`.
    """
    return asyncio.run(_measure(server, load, api_key))


async def _measure(server: Server, load: LatencyLoad, api_key: str) -> LatencyFigures:
    async with open_client(server, api_key, load.timeout) as client:
        if load.warm_up:
            await _run(client, server.model, load, range(-load.warm_up, 0))
        replies = await _run(client, server.model, load, range(load.requests))
    done = [one for one in replies if one.error is None]
    errors = [one.error for one in replies if one.error is not None]
    tokens, seconds = sum(one.tokens for one in done), elapsed(replies)
    return LatencyFigures(
        concurrency=load.concurrency,
        requests=len(done),
        failed=len(errors),
        output_tokens=tokens,
        seconds=seconds,
        ttft_ms=_quantiles([one.ttft for one in done]),
        tpot_ms=_quantiles([one.tpot for one in done if one.tpot is not None]),
        output_tokens_per_second=per_second(tokens, seconds),
        first_error=errors[0] if errors else None,
    )


def _quantiles(seconds: Sequence[float]) -> Quantiles | None:
    if not seconds:
        return None
    p50, p90 = (1000 * value for value in quantiles(seconds, (0.5, 0.9)))
    return Quantiles(p50=p50, p90=p90)


async def _run(client: openai.AsyncOpenAI, model: str, load: LatencyLoad, numbers: range) -> list[_Reply]:
    # Pictures are made beforehand: making them between requests would take time from the server on a small machine.
    waiting: Iterator[dict[str, Any]] = iter([_message(load, number) for number in numbers])
    deadline = time.monotonic() + load.time_limit
    replies: list[_Reply] = []

    async def work() -> None:
        for message in waiting:
            if time.monotonic() > deadline:
                return
            reply = _Reply(due=time.monotonic())  # a closed loop: a request is due when a stream is free
            replies.append(reply)
            try:
                await _stream(client, model, message, load.output_tokens, reply)
            except (openai.APIError, IndexError, AttributeError, TypeError, ValueError) as error:
                reply.error = one_line(f"{type(error).__name__}: {error}")

    await asyncio.gather(*(work() for _ in range(load.concurrency)))
    return replies


def _message(load: LatencyLoad, number: int) -> dict[str, Any]:
    # Warm-up has negative numbers, which a seed may not be.
    rng = np.random.default_rng([load.seed, load.concurrency, abs(number), int(number < 0)])
    noise = rng.integers(0, 256, (load.image_size, load.image_size, 3), dtype=np.uint8)
    return user_message(Image.fromarray(noise), load.question)


async def _stream(client: openai.AsyncOpenAI, model: str, message: dict[str, Any], tokens: int, reply: _Reply) -> None:
    request: Any = greedy_request(model, message, tokens)  # the client's types take no plain dictionary
    stream = await client.chat.completions.create(
        **request,
        stream=True,
        stream_options={"include_usage": True},
        # vLLM's own fields: a reply of exactly this length, every token of it visible in the stream.
        extra_body={"ignore_eos": True, "min_tokens": tokens, "skip_special_tokens": False},
    )
    async for chunk in stream:
        now = time.monotonic() - reply.due
        if chunk.usage is not None:
            reply.tokens = chunk.usage.completion_tokens
        if chunk.choices and has_text(chunk.choices[0].delta.to_dict()):
            reply.arrivals.append(now)
    if not reply.arrivals:
        raise ValueError("the reply has no tokens")
    reply.tokens = token_count(reply.tokens, len(reply.arrivals))
