"""What the server and the client say of themselves during a load test, and the records in between."""

import random
from pathlib import Path

import pytest
from load_factories import load_test, turn
from scripted_endpoint import endpoint

from vhserve.loadtest.client_load import client_load
from vhserve.loadtest.records import ClientSample, RecordReader, RequestRecord
from vhserve.loadtest.scrape import Scrape, Scraper, read_series, server_load
from vhserve.loadtest.tables import warnings
from vhserve.loadtest.timeline import timeline
from vhserve.loadtest.turn import Turn

METRICS = """\
# HELP vllm:num_preemptions_total Preemptions.
# TYPE vllm:num_preemptions_total counter
vllm:num_preemptions_total{engine="0",model_name="m"} 3.0
vllm:num_preemptions_total{engine="1",model_name="m"} 4.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.5
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 2.0
vllm:num_requests_running{engine="1",model_name="m"} 3.0
# TYPE vllm:num_requests_running_elsewhere gauge
vllm:num_requests_running_elsewhere 77.0
"""


def test_engines_are_added_up_but_the_fullest_cache_counts() -> None:
    assert read_series(METRICS) == {"preemptions": 7.0, "kv_use": 0.5, "running": 5.0}
    assert read_series("<html>404</html>") == {}
    assert read_series("vllm:num_requests_running{engine=0 what\n") == {}


def test_metrics_are_read_over_and_over() -> None:
    with endpoint(metrics=METRICS) as here:
        scrapes = Scraper(here.base_url).stop()
    assert [one.values["preemptions"] for one in scrapes] == [7.0] * len(scrapes)
    assert len(scrapes) >= 2  # one at once, one at the end
    with endpoint() as here:
        assert Scraper(here.base_url).stop() == []


def test_counters_rise_from_the_last_reading_before_measuring() -> None:
    def scrape(at: float, count: float, kv_use: float) -> Scrape:
        return Scrape(at, {"preemptions": count, "kv_use": kv_use, "queried": 10 * count, "hit": 5 * count})

    first = [scrape(0, 1, 0.9), scrape(1, 4, 0.9), scrape(2, 6, 0.2), scrape(3, 7, 0.4)]
    second = [scrape(10, 50, 0.1), scrape(11, 52, 0.3), scrape(12, 1, 0.3), scrape(13, 2, 0.3)]  # started again at 12
    found = server_load([first, second], [1.5, 10.5])
    assert found.preemptions == (7 - 4) + (52 - 50) + (2 - 1)
    assert found.kv_use_max == 0.4  # not the warm-up's 0.9
    assert found.kv_use_mean == pytest.approx((0.2 + 0.4 + 0.3 + 0.3 + 0.3) / 5)
    assert found.prefix_hit_share == pytest.approx(0.5)
    assert found.waiting_max is None
    nothing = server_load([[]], [0.0])
    assert (nothing.scrapes, nothing.preemptions, nothing.kv_use_max) == (0, None, None)


def client(cpu: float, late: float, lag: float = 0.0) -> str:
    seen = [RequestRecord(n, "image", False, float(n), n + lag, [0.1], 1, 1, "ok") for n in range(10)]
    samples = [ClientSample(-5.0, 1.0, 9.0, 0), *(ClientSample(n / 4, cpu, late, 1) for n in range(40))]
    return client_load([Turn(seen, 0, [samples], [], 0.0)]).saturated


def test_a_busy_client_is_called_the_bottleneck() -> None:
    assert client(0.3, 0.001) == ""  # the warm-up's sample does not count
    assert "95% of a core" in client(0.95, 0.001)
    assert "100 ms late" in client(0.3, 0.1)
    assert "sent 50 ms late" in client(0.3, 0.001, lag=0.05)
    unsent = RequestRecord(0, "image", False, 0.0, outcome="failed", error="not sent")
    assert "--max-in-flight" in client_load([Turn([unsent], 0, [[]], [], 0.0)]).saturated
    assert any("the client is the bottleneck: a client process used 90%" in line for line in warnings(load_test(2)[0]))
    assert not any("bottleneck" in line for line in warnings(load_test(1)[0]))


def test_seconds_add_up_to_the_turn() -> None:
    made = turn(random.Random(2), 50.0, 1.0, True)
    seconds = timeline(made, 0)
    assert [one.second for one in seconds] == list(range(len(seconds)))
    assert sum(one.succeeded for one in seconds) == sum(one.outcome == "ok" for one in made.observed)
    assert sum(one.failed for one in seconds) == sum(one.outcome == "failed" for one in made.observed)
    assert sum(one.output_tokens for one in seconds) == sum(one.tokens for one in made.observed)
    # Little's law: requests under way on average are the rate times the time each takes.
    inside = [one.in_flight for one in seconds[2:18]]
    mean = sum(one.e2e for one in made.observed if one.arrivals) / len(made.observed)
    assert sum(inside) / len(inside) == pytest.approx(4 * mean, rel=0.15)
    assert timeline(Turn(), 0) == []


def test_records_are_read_in_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    reader = RecordReader(path)
    assert reader.read() == ([], [])
    one = RequestRecord(0, "image", True, 1.5, 1.5, [0.1, 0.2], 2, 9, "ok")
    other = RequestRecord(1, "text", False, 2.0, outcome="failed", error="http 503", detail='"quoted"\nwords')
    sample = ClientSample(3.0, 0.5, 0.001, 4)
    text = one.line() + sample.line() + other.line()
    path.write_text(text[:-20])
    assert reader.read() == ([one], [sample])
    assert reader.read() == ([], [])
    path.write_text(text)
    assert reader.read() == ([other], [])
