"""Figures of a load test against a slow reference that counts with sorted lists and plain sums."""

import math
import random

import pytest

from vhserve.loadtest.comparison import order, ratios
from vhserve.loadtest.figures import distribution, errors, figures
from vhserve.loadtest.records import RequestRecord
from vhserve.loadtest.slo import meets, parse_slo

SEED = 20260701


def quantile(values: list[float], share: float) -> float:
    """Type 7 of Hyndman and Fan (1996), written down slowly."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def random_record(rng: random.Random, number: int, due: float) -> RequestRecord:
    outcome = rng.choices(["ok", "failed", "aborted"], [8, 1, 1])[0]
    pieces = rng.randint(1, 9)
    now, arrivals = rng.uniform(0.01, 2), []
    for _ in range(pieces):
        arrivals.append(now)
        now += rng.expovariate(20)
    return RequestRecord(
        number=number,
        kind=rng.choice(["image", "text"]),
        warm_up=False,
        due=due,
        sent=due + rng.uniform(0, 0.01),
        arrivals=arrivals if outcome != "failed" else arrivals[: rng.randint(0, pieces)],
        tokens=pieces + rng.randint(0, 3) if outcome == "ok" else 0,  # some pieces hold several tokens
        prompt_tokens=rng.randint(1, 99) if outcome == "ok" else 0,
        outcome=outcome,
        error=rng.choice(["http 503", "timeout"]) if outcome == "failed" else None,
        detail=f"words {number}" if outcome == "failed" else None,
    )


@pytest.mark.parametrize("case", range(20))
def test_figures_are_those_of_a_slow_reference(case: int) -> None:
    print("seed", SEED + case)
    rng = random.Random(SEED + case)
    turns = []
    for start in (100.0, 5000.0):
        dues = sorted(start + rng.uniform(0, 30) for _ in range(rng.randint(1, 60)))
        turns.append([random_record(rng, number, due) for number, due in enumerate(dues)])
    slo = {"ttft": 1.0, "tpot": 0.06}
    found = figures(turns, slo)

    seen = turns[0] + turns[1]
    done = [one for one in seen if one.outcome == "ok"]
    seconds = 0.0
    for turn in turns:
        last = max(one.due + one.arrivals[-1] if one.arrivals else one.due for one in turn)
        seconds += last - min(one.due for one in turn)
    assert (found.requests, found.succeeded) == (len(seen), len(done))
    assert found.failed == len([one for one in seen if one.outcome == "failed"])
    assert found.requests == found.succeeded + found.failed + found.aborted
    assert found.seconds == pytest.approx(seconds)
    assert found.output_tokens_per_second == pytest.approx(sum(one.tokens for one in done) / seconds)
    assert found.requests_per_second == pytest.approx(len(done) / seconds)
    tpots = [(o.arrivals[-1] - o.arrivals[0]) / (o.tokens - 1) for o in done if o.tokens > 1]
    good = 0
    for one in done:
        fast = one.tokens == 1 or (one.arrivals[-1] - one.arrivals[0]) / (one.tokens - 1) < 0.06
        good += one.arrivals[0] < 1.0 and fast
    assert found.good == good
    assert found.goodput_per_second == pytest.approx(good / seconds)
    assert found.good_share == pytest.approx(good / (len(done) + found.failed)) if done else True
    for name, values in {
        "ttft": [one.arrivals[0] for one in done],
        "e2e": [one.arrivals[-1] for one in done],
        "tpot": tpots,
        "itl": [b - a for one in done for a, b in zip(one.arrivals, one.arrivals[1:], strict=False)],
        "lag": [one.sent - one.due for one in seen],
    }.items():
        told = getattr(found, name)
        if not values:
            assert told is None
            continue
        assert told.count == len(values)
        assert (told.mean, told.max) == (pytest.approx(sum(values) / len(values)), max(values))
        for share, value in ((0.5, told.p50), (0.9, told.p90), (0.95, told.p95), (0.99, told.p99)):
            assert value == pytest.approx(quantile(values, share))


def test_quantiles_are_not_rounded() -> None:
    # locust's own statistics round to two digits: 123.4 ms and 119 ms are both its 120.
    found = distribution([0.1234, 0.1191])
    assert found is not None
    assert found.p50 == pytest.approx(0.12125, abs=1e-9)


def test_nothing_is_not_zero() -> None:
    found = figures([[]], {"ttft": 1.0})
    assert found.ttft is None
    assert found.good_share is None
    assert found.error_share is None
    assert distribution([]) is None


def test_errors_are_counted_by_kind_with_the_first_words() -> None:
    rng = random.Random(SEED)
    seen = [random_record(rng, number, float(number)) for number in range(200)]
    failed = [one for one in seen if one.outcome == "failed"]
    found = errors(seen)
    assert {one.kind: one.count for one in found} == {
        kind: len([one for one in failed if one.error == kind]) for kind in ("http 503", "timeout")
    }
    assert found[0].count >= found[1].count
    for one in found:
        assert one.first == next(failure.detail for failure in failed if failure.error == one.kind)


def test_a_request_is_good_only_below_every_limit() -> None:
    one = RequestRecord(0, "image", False, 0.0, 0.0, [0.4, 0.5], tokens=2, outcome="ok")
    assert meets(one, parse_slo("ttft<0.41, tpot<0.11"))
    assert not meets(one, parse_slo("ttft<0.4"))
    assert not meets(one, parse_slo("ttft<0.41,e2e<.5"))
    one.outcome = "failed"
    assert not meets(one, {"ttft": 9.0})


def test_ratios_are_second_over_first_with_the_rounds_ends() -> None:
    def turn(ttft: float, start: float) -> list[RequestRecord]:
        return [
            RequestRecord(n, "image", False, start + n, start + n, [ttft, ttft + 0.1], tokens=2, outcome="ok")
            for n in range(4)
        ]

    first = [turn(0.1, 0.0), turn(0.2, 300.0)]
    second = [turn(0.2, 100.0), turn(0.3, 200.0)]
    rounds = [(figures([a], {}), figures([b], {})) for a, b in zip(first, second, strict=True)]
    found = {one.figure: one for one in ratios(figures(first, {}), figures(second, {}), rounds)}
    assert found["p50_ttft"].rounds == pytest.approx([2.0, 1.5])
    assert (found["p50_ttft"].low, found["p50_ttft"].high) == pytest.approx((1.5, 2.0))
    assert found["p50_ttft"].median == pytest.approx(1.75)
    assert found["p50_ttft"].pooled == pytest.approx(0.25 / 0.15)
    assert found["p50_tpot"].pooled == pytest.approx(1.0)
    assert "goodput_per_second" not in found  # there was no SLO


def test_turns_alternate_in_pairs() -> None:
    assert order(2, 4) == [0, 1, 1, 0, 0, 1, 1, 0]
    assert order(1, 4) == [0]
