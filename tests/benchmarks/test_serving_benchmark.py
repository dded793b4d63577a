"""The serving benchmark's names, flags and arithmetic; engines are not started."""

import argparse
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from benchmarks import arm_names, serving_options, serving_report
from benchmarks.arm import Result
from profiles.treatments import TREATMENTS, budgeted

PAGE = Path(__file__).parents[2] / "docs" / "serving-benchmarks.md"


def commands() -> list[str]:
    """Arguments of all of the page, the abbreviation B written out."""
    text = PAGE.read_text()
    base = re.search(r"`B` is `python -m benchmarks\.serving ([^`]*)`", text)
    assert base is not None
    short = [f"{base[1]} {arguments}" for arguments in re.findall(r"`B (--[^`]*)`", text)]
    unbroken = text.replace(" \\\n", " ")
    return [*short, *re.findall(r"^ {4}python -m benchmarks\.serving (.*)$", unbroken, re.MULTILINE)]


@pytest.mark.parametrize("line", commands())
def test_commands_of_the_page_parse(line: str) -> None:
    serving_options.parser().parse_args(shlex.split(line))


@pytest.mark.parametrize("treatment", [one for one in budgeted() if one.computed], ids=lambda one: one.name)
def test_every_treatment_can_be_an_arm(treatment: Any) -> None:
    name = arm_names.parse(f"{treatment.flag}:0.75")
    assert name.shares == {treatment.name: 0.75}
    assert not name.is_stock
    assert name.is_text_only == (treatment is TREATMENTS["text_only"])


def test_names_join_kinds() -> None:
    name = arm_names.parse("text-only:0.25/evict-4:0.5/removed:8+fp8")
    assert (name.shares, name.removed, name.fp8) == ({"text_only": 0.25, "evict:4": 0.5}, 8, True)
    assert not name.gather
    assert arm_names.parse("text-only:0.75/exit:4").exit_layer == 4
    assert not arm_names.parse("exit:0").is_text_only
    assert arm_names.parse("text-only:0.25+fp8+gather").gather
    assert arm_names.parse("stock").is_stock
    assert [one.text for one in arm_names.parse_list("stock,evict:1")] == ["stock", "evict:1"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plan:0.5",
        "evict",
        "evict:x",
        "evict:0",
        "evict:0.75/text-only:0.5",
        "evict:0.5+int8",
        "removed:-1",
        "stock,stock",
        "stock+gather",
    ],
)
def test_a_mistake_in_a_name_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        arm_names.parse_list(text)


def turn(arm: str, repeat: int, concurrency: int, seconds: float, per_token: float = 0.1) -> dict[str, Any]:
    asked = {"images": 1, "output": 10, "concurrency": concurrency, "requests": 4, "prompt_tokens": 9, "preemptions": 0}
    measured = {"output_tokens": 40, "seconds": seconds, "first_token": [1.0], "per_token": [per_token]}
    return {"arm": arm, "repeat": repeat, "most_answering": 2, **asked, **measured}


def test_ratios_are_of_turns_that_both_arms_have_had() -> None:
    turns = [
        *(turn("stock", 0, 4, 4.0), turn("evict:1", 0, 4, 2.0, 0.05)),
        *(turn("stock", 1, 4, 8.0), turn("evict:1", 1, 4, 2.0, 0.05)),
        turn("evict:1", 2, 4, 1.0, 0.05),
    ]
    stock, evict = serving_report.summaries(turns, ["stock"])
    assert (stock["ratios"], stock["each"], stock["tokens_per_second"]) == ({}, [10.0, 5.0], 7.5)
    assert evict["ratios"]["stock"]["throughput"] == pytest.approx([20 / 7.5, 2.0, 4.0])
    assert evict["ratios"]["stock"]["per_token"] == pytest.approx([0.5, 0.5, 0.5])


def test_bests_are_each_arm_s_own() -> None:
    turns = [
        *(turn("stock", 0, 4, 4.0), turn("evict:1", 0, 4, 4.0)),
        *(turn("stock", 0, 8, 5.0), turn("evict:1", 0, 8, 2.0)),
    ]
    runs = serving_report.summaries(turns, ["stock"])
    bests = {best["arm"]: best for best in serving_report.bests(runs, ["stock"])}
    assert {name: best["concurrency"] for name, best in bests.items()} == {"stock": 4, "evict:1": 8}
    assert bests["evict:1"]["of_bests"] == {"stock": 2.0}


class Request:
    def __init__(self, computed: int, replied: int) -> None:
        self.num_prompt_tokens, self.num_computed_tokens, self.num_output_tokens = 10, computed, replied


def test_requests_are_counted_by_phase() -> None:
    result = Result(0.0, 0)
    result.count([Request(9, 0), Request(10, 0), Request(12, 3)])
    result.count([Request(12, 3)])
    assert (result.most_computed, result.most_answering) == (2, 1)
