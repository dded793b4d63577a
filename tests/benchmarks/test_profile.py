"""The profile's rows and tables; `tests/vhserve/engine/test_step_profile.py` looks at real steps."""

import json
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from benchmarks import profile
from benchmarks.step_profile import Kernel, Profiled, ProfileDecode

KERNELS = [
    Kernel("aten::mm", 8, 0.4),
    Kernel("aten::addmm", 8, 0.2),
    Kernel("_C::cpu_attention_with_kv_cache", 8, 0.1),
    Kernel("aten::index_select", 4, 0.02),
    Kernel("mine::unheard_of", 4, 0.08),
]


def report_of(*turns: dict[str, Any]) -> dict[str, Any]:
    return {"turns": list(turns)}


def printed(report: dict[str, Any]) -> str:
    console = Console(width=240, record=True, file=StringIO())
    console.print(profile.table(report))
    return console.export_text()


def test_a_decode_step_is_a_share_of_its_steps_and_a_prefill_is_all_of_them() -> None:
    got = Profiled(steps=4, wall=1.0, tokens=0, device=False, kernels=KERNELS)
    step = profile.row("decode step of 3", "stock", 0, got)
    assert step["kinds"]["GEMM"] == pytest.approx(0.15)
    assert step["kinds"]["other"] == pytest.approx(0.02)
    assert (step["all"], step["wall"]) == pytest.approx((0.2, 0.25))
    whole = profile.row("prefill of 3", "stock", 0, got)
    assert (whole["all"], whole["wall"]) == pytest.approx((0.8, 1.0))
    assert [kernel["name"] for kernel in whole["kernels"]][:2] == ["aten::mm", "aten::addmm"]
    json.dumps(whole)


def test_medians_are_over_turns_beside_stock_and_other_is_shown_with_its_share() -> None:
    slow = [Kernel(kernel.name, kernel.calls, 2 * kernel.seconds) for kernel in KERNELS]
    turns = [
        profile.row("prefill of 3", arm, repeat, Profiled(1, 2.0, 800, False, kernels))
        for repeat in range(3)
        for arm, kernels in (("stock", KERNELS), ("text-only:0.5", slow))
    ]
    text = printed(report_of(*turns))
    (stock,) = (line for line in text.splitlines() if " stock " in line and "prefill" in line)
    (plan,) = (line for line in text.splitlines() if "text-only:0.5" in line)
    assert [cell.strip() for cell in stock.strip("│ ").split("│")] == [
        *(
            "prefill of 3",
            "stock",
            "800.00",
            "1.000 (1.000 to 1.000)",
            "600.00",
            "100.00",
            "0.00",
            "0.00",
            "20.00",
            "0.00",
            "80.00",
        ),
        *("10.0%", "2000.00", "1000"),
    ]
    assert "2.000 (2.000 to 2.000)" in plan
    assert profile.unknown(report_of(*turns)) == ["of no known kind: 10.0% mine::unheard_of"]


def test_what_does_not_fit_is_said_and_is_no_row_of_the_table() -> None:
    turn = profile.row("decode step of 60", "stock", 0, Profiled(0, 0.0, 0, False, []))
    assert "do not fit" in profile.describe(turn)
    assert "decode step of 60" not in printed(report_of(turn))
    assert profile.unknown(report_of(turn)) == []


def test_a_profiler_that_sees_nothing_is_said_and_its_turn_is_no_row() -> None:
    turn = profile.row("decode step of 1", "stock", 0, Profiled(20, 1.0, 0, True, []))
    assert "no kernel" in profile.describe(turn)
    assert "decode step of 1" not in printed(report_of(turn))
    assert profile.unknown(report_of(turn)) == []


def test_replies_are_long_enough_for_the_steps_that_are_measured() -> None:
    one, many = ProfileDecode(1, 20, 1, 62), ProfileDecode(48, 20, 1, 62)
    assert 2 * 20 < one.reply_tokens < many.reply_tokens
    assert profile.parser().parse_args(["--decode", "1,48"]).decode == [1, 48]
