"""SLOs and --fail-if conditions: what is read, what is refused, and that a run without figures does not pass."""

import re
from pathlib import Path

import pytest

from vhserve.loadtest.conditions import LATENCIES, NAMES, STATISTICS, check, parse_conditions, value_of
from vhserve.loadtest.errors import BadExpression
from vhserve.loadtest.figures import figures
from vhserve.loadtest.records import RequestRecord
from vhserve.loadtest.results import ClientLoad, EndpointResult, Ratio, Server, ServerLoad
from vhserve.loadtest.slo import parse_slo


def measured(
    name: str = "endpoint", *, ttft: float = 0.2, outcome: str = "ok", preemptions: float | None = 3
) -> EndpointResult:
    seen = [
        RequestRecord(n, "image", False, float(n), float(n), [ttft, ttft + 0.1], tokens=2, outcome=outcome)
        for n in range(5)
    ]
    return EndpointResult(
        name=name,
        server=Server(base_url="http://x/v1", model="m"),
        figures=figures([seen], {}),
        kinds={},
        turns=[],
        errors=[],
        server_load=ServerLoad(
            scrapes=1,
            preemptions=preemptions,
            kv_use_mean=0.5,
            kv_use_max=0.75,
            running_max=2,
            waiting_max=0,
            prefix_hit_share=None,
        ),
        client=ClientLoad(processes=1, cpu_mean=0.25, cpu_max=0.5, late_p99=0.001, saturated=""),
        timeline=[],
    )


@pytest.mark.parametrize(
    ("text", "violated"),
    [
        ("p99_ttft>0.5", False),
        ("p99_ttft > .1", True),
        ("p50_e2e>=0.31", False),
        ("p50_tpot<=0.2", True),
        ("output_tokens_per_second<1000", True),
        ("requests<5", False),
        ("error_share>0", False),
        ("preemptions>2", True),
        ("kv_use_max>0.8", False),
        ("client_cpu_mean>0.2", True),
        ("prefix_hit_share<0.1", True),  # not told: fails
        ("good_share<0.9", True),  # no SLO: fails
    ],
)
def test_conditions_hold_as_written(text: str, violated: bool) -> None:
    (found,) = check(parse_conditions([text], False), [measured()], [])
    assert found.violated == violated


def test_a_run_without_figures_passes_no_condition() -> None:
    limits = parse_conditions(["p99_ttft>0.5", "p99_ttft<0.5"], False)
    assert [one.violated for one in check(limits, [measured(outcome="failed")], [])] == [True, True]


def test_with_two_endpoints_both_are_judged_and_ratios_exist() -> None:
    limits = parse_conditions(["p99_ttft>0.5", "ratio_p50_ttft>1.5", "ratio_p50_tpot>9"], True)
    ratio = Ratio(figure="p50_ttft", pooled=3.5, median=3.5, low=3, high=4, rounds=[3, 4])
    found = check(limits, [measured("A"), measured("B", ttft=0.7)], [ratio])
    assert [one.violated for one in found] == [True, True, True]  # the last ratio does not exist
    assert found[0].found == pytest.approx({"A": 0.2, "B": 0.7})
    assert found[1].found == {"ratio": 3.5}


def test_every_name_has_a_value() -> None:
    parse_conditions([f"{name}>1" for name in NAMES], False)
    assert value_of(measured().figures, "max_itl") == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("texts", "part"),
    [
        (["p99_ttft"], "p99_ttft"),
        (["p99_ttft>fast"], "fast"),
        (["p97_ttft>1"], "p97_ttft"),
        (["ttft>1"], "'ttft>1' names no figure"),
        (["p99_ttft=1"], "="),
        (["__class__>1"], "__class__"),
        (["ratio_p50_ttft>1"], "--compare"),
        ([""], "no condition"),
    ],
)
def test_bad_conditions_are_refused_with_what_would_do(texts: list[str], part: str) -> None:
    with pytest.raises(BadExpression, match="expected") as refused:
        parse_conditions(texts, False)
    assert part in str(refused.value)


@pytest.mark.parametrize("text", ["", "ttft", "ttft>0.5", "itl<1", "ttft<0.5,ttft<1", "ttft<0", "ttft<-1", "ttft<1,"])
def test_bad_slos_are_refused(text: str) -> None:
    with pytest.raises(BadExpression, match="expected one limit in seconds"):
        parse_slo(text)


def test_slos_are_read() -> None:
    assert parse_slo(" ttft < 0.5, tpot<.05") == {"ttft": 0.5, "tpot": 0.05}
    assert parse_slo(None) == {}


def test_the_docs_define_every_figure_and_no_other() -> None:
    page = (Path(__file__).parents[3] / "docs" / "loadtest.md").read_text()
    table = page.split("| figure | definition |")[1].split("\n\n")[0]
    told = {
        name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.removeprefix("| ").split(" | ")[0])
    }
    assert told == {*LATENCIES, *(name for name in NAMES if name.split("_", 1)[0] not in STATISTICS)}
