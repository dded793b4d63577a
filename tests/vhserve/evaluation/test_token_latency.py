"""TTFT, TPOT, ITL and end to end: by hand, and alike for both clients that measure them."""

import contextlib
import time

import pytest
from scripted_endpoint import endpoint

from vhserve.evaluation.latency import LatencyLoad, measure
from vhserve.evaluation.results import Server
from vhserve.evaluation.token_latency import elapsed, has_text, per_second, quantiles, token_count
from vhserve.loadtest.figures import figures
from vhserve.loadtest.payloads import Payloads
from vhserve.loadtest.records import RequestRecord
from vhserve.loadtest.stream import StreamClient
from vhserve.loadtest.workload import Workload

TOKENS, TOKEN_SECONDS, REQUESTS = 4, 0.1, 3


def record(due: float, arrivals: list[float], tokens: int) -> RequestRecord:
    return RequestRecord(0, "image", False, due, due, arrivals, tokens)


def test_the_formulas_by_hand() -> None:
    one = record(10.0, [0.5, 0.75, 1.5], 5)  # the server sent some tokens together
    assert (one.ttft, one.e2e, one.tpot, one.itl, one.end) == (0.5, 1.5, 0.25, [0.25, 0.75], 11.5)
    assert record(10.0, [0.5], 1).tpot is None
    assert record(10.0, [0.5], 1).itl == []
    late = record(20.0, [], 0)  # failed before its first token
    assert elapsed([late, one]) == 10.0
    assert elapsed([]) == 0.0
    assert (per_second(5, 2.0), per_second(5, 0.0)) == (2.5, 0.0)
    assert quantiles([4.0, 1.0, 2.0], (0.5, 0.75, 1.0)) == [2.0, 3.0, 4.0]
    assert (token_count(7, 3), token_count(0, 3)) == (7, 3)


@pytest.mark.parametrize(
    ("delta", "holds"),
    [
        ({"role": "assistant", "content": ""}, False),
        ({"content": None}, False),
        ({}, False),
        ({"content": " "}, True),
        ({"reasoning": "x"}, True),
        ({"reasoning_content": "x"}, True),
    ],
)
def test_a_chunk_without_text_is_no_token(delta: dict[str, str | None], holds: bool) -> None:
    assert has_text(delta) == holds


def by_loadtest(base_url: str) -> list[RequestRecord]:
    payloads = Payloads(Workload(model="m", seed=1, image_size=32, output_tokens=TOKENS))
    seen = [RequestRecord(number, "image", False, 0.0) for number in range(REQUESTS)]
    with contextlib.closing(StreamClient(base_url, None, 1, 30.0)) as client:
        for number, one in enumerate(seen):
            payload = payloads.make(number)
            one.due = time.monotonic()
            client.ask(payload, one, TOKENS)
    return seen


@pytest.mark.parametrize(
    ("text_field", "usage"), [("content", True), ("content", False), ("reasoning", True), ("reasoning_content", False)]
)
def test_both_clients_find_the_same_in_one_endpoint(text_field: str, usage: bool) -> None:
    with endpoint(token_seconds=TOKEN_SECONDS, text_field=text_field, usage=usage) as here:
        load = LatencyLoad(concurrency=1, requests=REQUESTS, warm_up=1, output_tokens=TOKENS, image_size=32)
        asked = measure(Server(base_url=here.base_url, model="m"), load)
        loaded = figures([by_loadtest(here.base_url)], {})
    assert (asked.requests, asked.output_tokens) == (loaded.succeeded, loaded.output_tokens) == (3, 12)
    # Counting from the empty first chunk or over all tokens would be off by a quarter at least.
    assert asked.ttft_ms.p50 == pytest.approx(1000 * loaded.ttft.p50, rel=0.2)
    assert asked.tpot_ms.p50 == pytest.approx(1000 * loaded.tpot.p50, rel=0.2)
    assert asked.tpot_ms.p90 == pytest.approx(1000 * loaded.tpot.p90, rel=0.2)
    assert asked.output_tokens_per_second == pytest.approx(loaded.output_tokens_per_second, rel=0.2)
    assert asked.ttft_ms.p50 >= 1000 * TOKEN_SECONDS
