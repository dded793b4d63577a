"""What `benchmarks.dropped_tokens` concludes from its rows, and one run of it."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks import dropped_tokens

ROOT = Path(__file__).parents[2]
SET = "set LAUNCH_WORTH in vhserve/engine/weights/weight_views.py to"


def row(saved: float = 0.0, ratio: float = 1.0, **more: Any) -> dict[str, Any]:
    made = {"way": "views", "projection": "o_proj", "lasts": 0.5, "tokens": 8, "dropped": 0.5, "chosen": False}
    made["launches"] = 3
    return {**made, "saved": saved, "ratio": [ratio, ratio, ratio], "stock": [1.0], "ours": [ratio], **more}


def test_views_pay_from_where_no_larger_saving_is_slower() -> None:
    rows = [row(1e9, 0.9), row(2e9, 1.1), row(4e9, 0.8), row(3e9, 0.99), row(-1e9, 1.5)]
    assert dropped_tokens.crossing(rows) == 3e9
    assert dropped_tokens.crossing([*rows, row(5e9, 1.01)]) is None


def test_the_threshold_is_judged_by_the_rows() -> None:
    rows = [row(1e9, 1.2, chosen=True), row(2e9, 0.9), row(3e9, 0.8, chosen=True), row(0.5e9, 1.3)]
    line, advice = dropped_tokens.summary(rows)
    assert line.startswith("o_proj: views pay from 2.000 G saved multiply-adds on;")
    assert "in 1 of 2 rows where they are faster" in line
    assert line.endswith("in 1 of 2 where they are not")
    assert advice.startswith(f"{SET} 666_666_666: rows are 0.00% above")
    assert (ROOT / advice.split()[3]).exists()


def test_the_advised_threshold_is_the_one_that_loses_least() -> None:
    """A row that says the opposite, of noise or of one size, does not decide."""
    rows = [row(3e9, 1.1), row(6e9, 0.9), row(9e9, 1.01), row(12e9, 0.5), row(-3e9, 1.5)]
    assert dropped_tokens.loss(rows, 1e9) == pytest.approx((0.1 + 0.01) / 5)
    assert dropped_tokens.loss(rows, 2e9) == pytest.approx(0.01 / 5)
    assert dropped_tokens.loss(rows, 4e9) == pytest.approx((1 / 0.9 - 1) / 5)
    assert dropped_tokens.loss(rows, math.inf) == pytest.approx((1 / 0.9 - 1 + 1) / 5)
    assert dropped_tokens.advice(rows).startswith(f"{SET} 2_000_000_000:")
    assert "views nowhere 22.22%" in dropped_tokens.advice(rows)
    never = [row(3e9, 1.1), row(6e9, 1.2)]
    assert " to a number above all savings here: rows are 0.00% above" in dropped_tokens.advice(never)
    everywhere = [row(-3e9, 0.9), row(0.0, 0.8), row(3e9, 0.7)]
    assert " to 0: " in dropped_tokens.advice(everywhere)


SECONDS = ((1, 0.0, 1.5, 1.0), (1, 1.0, 0.5, 1.0), (100, 0.0, 60.0, 50.0), (100, 0.9, 30.0, 50.0))
"""Tokens, share of dropped ones, seconds in parts and of stock."""


def test_packed_parts_are_judged_by_what_a_prompt_gains_and_a_step_loses() -> None:
    packed = [
        row(way="packed", projection=kind, tokens=tokens, dropped=dropped, ours=[ours], stock=[stock])
        for kind in ("qkv_proj", "o_proj")
        for tokens, dropped, ours, stock in (
            (1, 0.0, 1.5, 1.0),
            (1, 1.0, 0.5, 1.0),
            (100, 0.0, 60.0, 50.0),
            (100, 0.9, 30.0, 50.0),
        )
    ]
    (line,) = dropped_tokens.summary(packed)
    assert line == (
        "50% text-only: 100 tokens, 90% dropped: 0.60 of stock; "
        "1 without: 1.50, 40 of which lose what one prompt gains; vhserve: whole"
    )


def test_on_devices_a_batch_that_keeps_all_tokens_is_not_measured() -> None:
    assert dropped_tokens.kept_tokens(16, [0, 0.5, 0.97, 1], with_all=True) == [16, 8, 0]
    assert dropped_tokens.kept_tokens(1, [0, 0.2, 0.9], with_all=False) == [0]


def test_arms_take_turns_and_the_first_one_alternates() -> None:
    order: list[str] = []
    now = iter(range(1000))
    stock, ours = dropped_tokens.alternate(
        lambda: order.append("stock"), lambda: order.append("ours"), 2, lambda: float(next(now))
    )
    assert order == ["stock", "ours", "stock", "stock", "ours", "ours", "stock"]
    assert (len(stock), len(ours)) == (2, 2)


@pytest.mark.vllm
def test_a_small_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = "--model scaled-down --hidden-size 64 --heads 4 --head-size 32 --dtype float32 --turns 2 --lasts 0.25,0.75"
    assert (
        dropped_tokens.main([*flags.split(), "--tokens", "1,40", "--dropped", "0,0.9", "--out", str(tmp_path / "out")])
        == 0
    )
    report = json.loads((tmp_path / "out.json").read_text())
    rows = report["rows"]
    assert [(one["projection"], one["lasts"], one["tokens"]) for one in rows[:4]] == [
        *[("qkv_proj", 0.25, 1)] * 2,
        *[("qkv_proj", 0.25, 40)] * 2,
    ]
    assert rows[3]["saved"] == 36 * 64 * 96
    printed = capsys.readouterr().out.splitlines()
    assert len([line for line in printed if "ratio" in line]) == len(rows) == 16
    assert report["summary"] == printed[-2:]
    assert printed[-2].endswith("vhserve: whole")
    assert printed[-1].endswith("vhserve: in parts")


@pytest.mark.vllm
def test_views_are_timed_whatever_would_be_chosen() -> None:
    import torch

    from benchmarks.dummy_model import SCALED_DOWN
    from benchmarks.projections import Arms, chosen, projections, saved

    qkv, output = projections(SCALED_DOWN, 0.75, views=True)
    for one in (qkv, output):
        layer: Any = torch.nn.Module()
        layer.weight = torch.nn.Parameter(torch.zeros(one.outputs, one.inputs), requires_grad=False)
        layer._cpu_skip_gemm_dispatch = True
        method = one.method()
        method.process_weights_after_loading(layer)
        assert saved(one, 100, 10, views=True) == method.saved(100, 10)
        assert not chosen(one, method.least_saved - 1)
        assert chosen(one, method.least_saved)
        seen: list[int] = []
        method.by_others = lambda x, weight, bias, seen=seen: (seen.append(len(x)), x.new_empty(len(x), len(weight)))[1]
        Arms([], [(method, layer)]).run_ours(torch.zeros(4, one.inputs), torch.arange(4))
        assert seen == [4]
