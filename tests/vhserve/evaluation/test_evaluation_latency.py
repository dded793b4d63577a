"""The latency load against an endpoint whose timing is known."""

import base64

import pytest
from scripted_endpoint import endpoint

from vhserve.evaluation.latency import LatencyLoad, measure
from vhserve.evaluation.results import Server


def picture(request) -> bytes:
    url = request["messages"][0]["content"][0]["image_url"]["url"]
    return base64.b64decode(url.split(",", 1)[1])


def test_figures_follow_the_endpoints_timing() -> None:
    with endpoint(token_seconds=0.02) as here:
        load = LatencyLoad(concurrency=3, requests=9, warm_up=3, output_tokens=6)
        found = measure(Server(base_url=here.base_url, model="m"), load)
        again = measure(Server(base_url=here.base_url, model="m"), load)
    assert (found.concurrency, found.requests, found.failed, found.output_tokens) == (3, 9, 0, 54)
    # Sleeps are never shorter than asked for; how much longer depends on the machine.
    assert 20 <= found.ttft_ms.p50 <= found.ttft_ms.p90 < 1000
    assert 20 <= found.tpot_ms.p50 <= found.tpot_ms.p90 < 1000
    assert found.seconds >= 3 * 6 * 0.02
    assert found.output_tokens_per_second == pytest.approx(54 / found.seconds)
    assert here.most_in_flight == 3

    first, second = here.seen[:12], here.seen[12:]
    assert len({picture(request) for request in first}) == 12
    assert {picture(request) for request in first} == {picture(request) for request in second}
    assert all(request["ignore_eos"] and request["min_tokens"] == 6 == request["max_tokens"] for request in first)
    assert again.requests == 9


def test_failures_are_counted_not_timed() -> None:
    with endpoint(lambda request: 500) as here:
        found = measure(Server(base_url=here.base_url, model="m"), LatencyLoad(concurrency=2, requests=4, warm_up=0))
    assert (found.requests, found.failed, found.output_tokens) == (0, 4, 0)
    assert found.ttft_ms is None
    assert "500" in found.first_error


def test_time_limit_stops_sending() -> None:
    with endpoint(token_seconds=0.05) as here:
        load = LatencyLoad(concurrency=1, requests=100, warm_up=0, output_tokens=2, time_limit=0.4)
        found = measure(Server(base_url=here.base_url, model="m"), load)
    assert 1 <= found.requests < 10
