"""The serving benchmark's names, flags and arithmetic; engines are not started."""

import argparse
import re
import shlex
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks import arm_names, serving_options, serving_report, serving_tables
from benchmarks.machine import ArmUnsupported, Machine, refuse
from profiles.treatments import TREATMENTS, budgeted
from vhserve.engine.checks.unsupported_options import KV_CACHE_TYPES

PAGE = Path(__file__).parents[2] / "docs" / "serving-benchmarks.md"


def commands() -> list[str]:
    """Arguments of all of the page, abbreviations written out."""
    text = PAGE.read_text()
    short = []
    for letter in "BC":
        base = re.search(rf"`{letter}` is `python -m benchmarks\.serving ([^`]*)`", text)
        assert base is not None
        short += [f"{base[1]} {arguments}" for arguments in re.findall(rf"`{letter} (--[^`]*)`", text)]
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
    assert (name.shares, name.removed, name.cache) == ({"text_only": 0.25, "evict:4": 0.5}, 8, "fp8")
    assert not name.gather
    assert arm_names.parse("text-only:0.75/exit:4").exit_layer == 4
    assert not arm_names.parse("exit:0").is_text_only
    assert arm_names.parse("text-only:0.25+fp8+gather").gather
    assert arm_names.parse("text-only:0.75/exit:4+stock-admission").stock_admission
    assert arm_names.parse("stock").is_stock
    assert arm_names.parse("stock").cache == "auto"
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
        "evict:0.5+int2",
        "stock+fp8+int8",
        "evict:0.5+fp8+fp8",
        "removed:-1",
        "stock,stock",
        "stock+gather",
        "stock+stock-admission",
    ],
)
def test_a_mistake_in_a_name_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        arm_names.parse_list(text)


@pytest.mark.parametrize("added", arm_names.CACHES)
def test_every_kv_cache_type_of_an_arm_is_one_that_plans_are_served_with(added: str) -> None:
    stock, plan = arm_names.parse(f"stock+{added}"), arm_names.parse(f"text-only:0.75+{added}")
    assert stock.is_stock
    assert plan.is_text_only
    assert stock.cache == plan.cache
    assert stock.cache in KV_CACHE_TYPES


CPU, OLD_CPU = Machine(wide_vectors=True), Machine()
H100, A100, OTHER = Machine("H100", (9, 0)), Machine("A100", (8, 0)), Machine("MI300X")


@pytest.mark.parametrize(
    ("machine", "arm", "needed"),
    [
        (OLD_CPU, "stock", None),
        (CPU, "text-only:0.75", None),
        (CPU, "stock+fp8", None),
        (OLD_CPU, "stock+fp8", "AVX-512 or AMX, or a GPU of compute capability 8.9"),
        (CPU, "stock+int4", "a GPU on which vLLM runs Triton"),
        (CPU, "text-only:0.75+int8", "a GPU on which vLLM runs Triton"),
        (CPU, "text-only:0.75+fp8h", "a GPU on which vLLM runs Triton"),
        (A100, "text-only:0.75+int4", None),
        (A100, "stock+fp8", "a GPU of compute capability 8.9 or more"),
        (A100, "stock+fp8h", "a GPU of compute capability 8.9 or more"),
        (H100, "text-only:0.75+fp8h", None),
        (OTHER, "stock+fp8", None),
    ],
)
def test_arms_that_a_machine_cannot_run_are_refused(machine: Machine, arm: str, needed: str | None) -> None:
    arms = arm_names.parse_list(f"evict:1,{arm}")
    if needed is None:
        refuse(arms, machine, head_size=128, gpu_memory=0.4)
        return
    with pytest.raises(ArmUnsupported, match=re.escape(needed)) as refused:
        refuse(arms, machine, head_size=128, gpu_memory=0.4)
    assert str(refused.value).startswith(f"arm {arm} has a KV cache of ")
    assert "\n" not in str(refused.value)


def test_more_arms_than_a_gpu_has_room_for_are_refused() -> None:
    arms = arm_names.parse_list("stock,evict:1,text-only:0.5")
    with pytest.raises(ArmUnsupported, match="3 arms take 45%"):
        refuse(arms, H100, head_size=128, gpu_memory=0.45)
    refuse(arms[:2], H100, head_size=128, gpu_memory=0.45)
    refuse(arms, CPU, head_size=128, gpu_memory=0.45)


def test_this_machine_is_known() -> None:
    machine = Machine.here()
    assert machine.missing_for("auto", 128) is None
    assert ("compute capability" in str(machine)) == (machine.capability is not None)


def turn(arm: str, repeat: int, concurrency: int, seconds: float, per_token: float = 0.1) -> dict[str, Any]:
    asked = {"images": 1, "output": 10, "concurrency": concurrency, "requests": 4, "prompt_tokens": 9, "preemptions": 0}
    measured = {"output_tokens": 40, "seconds": seconds, "first_token": [1.0], "per_token": [per_token]}
    return {"arm": arm, "repeat": repeat, "most_held": 2, **asked, **measured}


def report_of(turns: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    arms = {one["arm"]: {} for one in turns}
    references = [name for name in arms if arm_names.parse(name).is_stock or arm_names.parse(name).is_text_only]
    report = {"arms": arms, "references": references, "capacity": [], "prefill": [], "turns": turns, **more}
    serving_report.update(report)
    return report


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


def test_bests_are_each_arm_s_own_and_have_the_spread_of_repeats() -> None:
    turns = [
        *(turn("stock", 0, 4, 4.0), turn("evict:1", 0, 4, 4.0)),
        *(turn("stock", 0, 8, 5.0), turn("evict:1", 0, 8, 2.0)),
        *(turn("stock", 1, 4, 2.0), turn("evict:1", 1, 4, 4.0)),
        *(turn("stock", 1, 8, 5.0), turn("evict:1", 1, 8, 2.0)),
    ]
    stock, evict = report_of(turns)["overview"]
    # stock: 10 and 20 at 4, 8 and 8 at 8; evict: 10 and 10 at 4, 20 and 20 at 8
    assert (stock["best"], stock["best_at"], stock["best_of"]) == (15.0, 4, {})
    assert (evict["best"], evict["best_at"]) == (20.0, 8)
    assert evict["best_of"]["stock"] == pytest.approx([20 / 15, 1.0, 2.0])


def test_the_overview_has_what_is_held_prefill_and_decode_in_columns_of_their_own() -> None:
    turns = [
        *(turn("stock", 0, 1, 4.0, 0.2), turn("text-only:0.5", 0, 1, 4.0, 0.21)),
        *(turn("stock", 0, 8, 5.0, 0.5), turn("text-only:0.5", 0, 8, 2.0, 0.4)),
    ]
    capacity = [{"arm": "stock", "images": 1, "requests": 8}, {"arm": "text-only:0.5", "images": 1, "requests": 20}]
    prefill = [
        {"arm": arm, "images": 1, "repeat": repeat, "prompt_tokens": 100, "seconds": seconds}
        for arm, repeat, seconds in (
            ("stock", 0, 2.0),
            ("stock", 1, 4.0),
            ("text-only:0.5", 0, 1.0),
            ("text-only:0.5", 1, 1.0),
        )
    ]
    report = report_of(turns, capacity=capacity, prefill=prefill)
    stock, plan = report["overview"]
    assert (stock["held"], stock["prefill"], stock["decode"]) == (8, 37.5, 0.2)
    assert (plan["held"], plan["prefill"], plan["decode"]) == (20, 100.0, 0.21)
    assert plan["held_of"] == {"stock": 2.5}
    assert plan["prefill_of"]["stock"] == pytest.approx([100 / 37.5, 2.0, 4.0])
    assert plan["decode_of"]["stock"] == pytest.approx([1.05, 1.05, 1.05])
    console = Console(width=200, record=True, file=StringIO())
    console.print(serving_tables.summary(report))
    (row,) = (line for line in console.export_text().splitlines() if "210.00 ms" in line)
    for figure in ("text-only:0.5", "20", "100", "2.667 (2.000 to 4.000)", "1.050 (1.050 to 1.050)", "20.00 at 8"):
        assert figure in row


def test_what_was_not_measured_is_a_dash() -> None:
    report = report_of([turn("stock", 0, 4, 4.0)])
    (stock,) = report["overview"]
    assert (stock["held"], stock["prefill"], stock["decode"]) == (None, None, None)
    console = Console(width=200, record=True, file=StringIO())
    console.print(serving_tables.summary(report))
    assert re.search(r"stock +│ +1 │ +10 │ +- │ +- │ - +│ +- │ - ", console.export_text())


def test_stock_is_compared_with_stock_alone() -> None:
    references = ["stock", "stock+fp8", "text-only:0.5"]
    assert serving_report.references_of("stock+fp8", references) == ["stock"]
    assert serving_report.references_of("text-only:0.5", references) == ["stock", "stock+fp8"]
    assert serving_report.references_of("evict:1", references) == references
