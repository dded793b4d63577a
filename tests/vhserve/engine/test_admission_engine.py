"""Admission that reckons with replies in real engines with little KV cache, beside stock admission."""

from dataclasses import replace
from typing import Any

import pytest
from engine_cases import Case
from engine_host import EngineHost
from oracle import TinyModel

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

SMALL: dict[str, Any] = {"max_model_len": 256, "max_num_seqs": 16}
ASYNC: dict[str, Any] = {"async_scheduling": True}

CASES = {
    "removed": Case("mha", {1: (0, 2), 3: (1,)}, settings={**SMALL, "num_gpu_blocks_override": 40}),
    "text_only": Case(
        "mha", text_only=dict.fromkeys(range(6), (0, 2, 3, 4)), settings={**SMALL, "num_gpu_blocks_override": 130}
    ),
    "evicted_in_chunks": Case(
        "mha",
        other={"evict": dict.fromkeys(range(6), (0, 1))},
        settings={
            **SMALL,
            "num_gpu_blocks_override": 75,
            "max_num_batched_tokens": 64,
            "enable_prefix_caching": False,
        },
    ),
    "priorities": Case(
        "mha",
        text_only=dict.fromkeys(range(6), (0, 2, 3, 4)),
        settings={**SMALL, "num_gpu_blocks_override": 130, "scheduling_policy": "priority"},
    ),
    "async_scheduling": Case(
        "mha",
        text_only=dict.fromkeys(range(6), (0, 2, 3, 4)),
        settings={**SMALL, **ASYNC, "num_gpu_blocks_override": 130},
        patches=("async_scheduling",),
    ),
}


def test_what_requests_hold_is_what_the_pool_has_given(engine_host: EngineHost, models: dict[str, TinyModel]) -> None:
    """To a block of each group; without a prefix cache, which lets requests share blocks."""
    case = CASES["evicted_in_chunks"]
    probed = asked(engine_host, models[case.model], case)
    held, groups = probed["held"], probed["groups"]
    print(groups, held[:200])
    assert max(running for _, _, running in held) > 2
    off = [abs(reckoned - used) for reckoned, used, _ in held]
    # A block of each group that is filled in this step, and image blocks that are evicted in the next.
    assert all(one <= 2 * groups * max(1, running) for one, (_, _, running) in zip(off, held, strict=True))
    assert sum(off) < 0.05 * sum(used for _, used, _ in held)


def asked(host: EngineHost, model: TinyModel, case: Case) -> dict[str, Any]:
    outcome = host.run(replace(case, rounds=(), probe="admission_probes:crowd").job(model))
    assert outcome.failure is None, outcome.failure
    return dict(outcome.probed)


SLOW = {"evicted_in_chunks", "async_scheduling", "removed", "priorities"}
NAMES = [pytest.param(name, marks=pytest.mark.long) if name in SLOW else name for name in CASES]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_preempted_and_every_reply_is_the_same(
    name: str, engine_host: EngineHost, models: dict[str, TinyModel]
) -> None:
    case = CASES[name]
    stock = asked(engine_host, models[case.model], replace(case, admission="stock"))
    reckoned = asked(engine_host, models[case.model], case)
    print(name, {key: (stock[key], reckoned[key]) for key in ("preempted", "after")})
    assert len(reckoned["replies"]) == len(stock["replies"]) == 60
    assert reckoned["replies"] == stock["replies"]
    assert {end for replies in stock["replies"].values() for end, _ in replies} == {"stop", "length"}
    assert stock["preempted"] > 5
    assert reckoned["preempted"] / 60 < 0.05
    urgent = [number for number in range(60) if number % 3 == 0] if name == "priorities" else []
    assert reckoned["begun"] == urgent + [number for number in range(60) if number not in urgent]
    for probed in (stock, reckoned):
        assert probed["after"] == probed["before"]
    assert 0 < sum(reckoned["counts"]["admission_waits"]) <= 60
    usual = reckoned["counts"]["admission_reply_tokens"]
    assert usual[0] == case.settings["max_model_len"]  # before the first reply has ended
    assert 1 < usual[-1] <= case.settings["max_model_len"]
    assert stock["counts"] == {}
