"""The arithmetic of savings, against known models and against counting token by token."""

from typing import get_args

import numpy as np
import pytest
from documents import MODEL, brief, plans, profile_of
from hypothesis import given
from hypothesis import strategies as st

from profiles.errors import LayoutRefused
from profiles.geometry import ModelGeometry
from profiles.planning.planner import make_plan
from profiles.planning.savings import (
    ideal_concurrency,
    kv_bytes_baseline,
    kv_bytes_of_request,
    kv_bytes_per_image_token,
    kv_bytes_per_token,
    weight_bytes_saved,
)
from profiles.planning.summary import heads_by_stage, summarise
from profiles.pruning_plan import PruningPlan
from profiles.treatments import TREATMENTS, Phase

LLAVA_7B = ModelGeometry(layers=32, query_heads=32, kv_heads=32, head_size=128, hidden_size=4096, image_tokens=576)
MISTRAL_7B = ModelGeometry(layers=32, query_heads=32, kv_heads=8, head_size=128, hidden_size=4096, image_tokens=2304)


def test_a_7b_model_without_100_late_heads() -> None:
    late = [(layer, head) for layer in range(21, 32) for head in range(32)]
    plan = PruningPlan.manual(MODEL, LLAVA_7B, removed=late[:100])
    assert kv_bytes_baseline(LLAVA_7B, 2) == 512 * 1024
    assert kv_bytes_per_token(plan, 2) == 512 * 1024 - 100 * 2 * 128 * 2
    assert weight_bytes_saved(plan, 2) == 100 * 4 * 128 * 4096 * 2
    assert ideal_concurrency(plan, 70, 576) == pytest.approx(1024 / 924)


def test_grouped_query_attention_saves_kv_by_groups_only() -> None:
    group = PruningPlan.manual(MODEL, MISTRAL_7B, removed=[(31, head) for head in range(4)], granularity="kv_group")
    assert kv_bytes_baseline(MISTRAL_7B, 2) - kv_bytes_per_token(group, 2) == 2 * 128 * 2
    assert weight_bytes_saved(group, 2) == (4 + 4 + 1 + 1) * 128 * 4096 * 2
    single = PruningPlan.manual(MODEL, MISTRAL_7B, removed=[(31, 4 * kv_head) for kv_head in range(8)])
    assert kv_bytes_per_token(single, 2) == kv_bytes_baseline(MISTRAL_7B, 2)
    assert weight_bytes_saved(single, 2) == (8 + 8) * 128 * 4096 * 2


def test_an_empty_plan_saves_nothing() -> None:
    plan = PruningPlan.unpruned(MODEL, MISTRAL_7B)
    assert len(plan.heads("full")) == plan.geometry.heads
    assert kv_bytes_per_token(plan, 2) == kv_bytes_baseline(MISTRAL_7B, 2)
    assert weight_bytes_saved(plan, 2) == 0
    assert ideal_concurrency(plan, 70, 2304) == 1


def test_text_only_heads_skip_the_image() -> None:
    half = [(layer, head) for layer in range(32) for head in range(16)]
    plan = PruningPlan.manual(MODEL, LLAVA_7B, text_only=half)
    assert kv_bytes_per_token(plan, 2) == kv_bytes_baseline(LLAVA_7B, 2)
    assert kv_bytes_per_image_token(plan, 2) == kv_bytes_baseline(LLAVA_7B, 2) / 2
    assert kv_bytes_of_request(plan, 70, 576, 2) == (70 + 576 / 2) * 512 * 1024
    assert ideal_concurrency(plan, 70, 576) == pytest.approx(646 / 358)
    assert weight_bytes_saved(plan, 2) == 0


@given(
    text=st.integers(0, 40),
    image=st.integers(0, 60),
    size=st.integers(1, 17),
    share=st.floats(0, 1),
)
@brief
def test_blocks_against_counting(text: int, image: int, size: int, share: float) -> None:
    geometry = ModelGeometry(layers=2, query_heads=3, kv_heads=3, head_size=5, hidden_size=7, image_tokens=0)
    plan = PruningPlan.manual(MODEL, geometry, removed=[(0, 0)], text_only=[(0, 1), (1, 2)])

    def counted(start: int) -> int:
        is_image = [start <= position < start + image for position in range(text + image)]
        blocks = [is_image[first : first + size] for first in range(0, len(is_image), size)]
        # The last block is allocated whole, so positions after the prompt make it no image block.
        text_blocks = sum(not (all(block) and len(block) == size) for block in blocks)
        return (3 * len(blocks) + 2 * text_blocks) * size * 2 * 5 * 4

    start = round(share * text)
    assert kv_bytes_of_request(plan, text, image, 4, size, image_start=start) == counted(start)
    worst = kv_bytes_of_request(plan, text, image, 4, size)
    assert all(counted(start) <= worst for start in range(text + 1))
    if text >= size - 1:
        assert worst == max(counted(start) for start in range(text + 1))


@given(plan=plans())
@brief
def test_savings_against_counting_heads(plan: PruningPlan) -> None:
    geometry = plan.geometry
    try:
        kv = kv_bytes_per_token(plan, 2)
    except LayoutRefused:
        return
    gone = 0
    for row in plan.treatments:
        for kv_head in range(geometry.kv_heads):
            gone += all(row[head] == "removed" for head in geometry.group(kv_head))
    for phase in get_args(Phase):
        # Of sixteen blocks every treatment keeps a whole number; a byte of each is rounded up.
        rounded = 16 * len(TREATMENTS)
        per_token = kv_bytes_per_image_token(plan, 2, phase)
        request = kv_bytes_of_request(plan, 5, 16, 2, phase=phase)
        assert request <= 5 * kv + 16 * per_token <= request + rounded
    width = 2 * geometry.head_size * 2
    assert kv == kv_bytes_baseline(geometry, 2) - gone * width
    assert weight_bytes_saved(plan, 2) == (len(plan.heads("removed")) + gone) * width * geometry.hidden_size
    counts = heads_by_stage(plan)
    for treatment in TREATMENTS:
        assert sum(stage[treatment] for stage in counts.values()) == len(plan.heads(treatment))


def test_summary() -> None:
    profile = profile_of(np.arange(24, dtype=float).reshape(6, 4))
    plan = make_plan(
        profile, budgets={"removed": 2, "text_only": 3}, stage="early", select="bottom", protect_top=0, seed=0,
        granularity="query_head", compensation="none",
    )  # fmt: skip
    summary = summarise(plan, "float16", 2, block_size=1)
    none = dict.fromkeys(TREATMENTS, 0)
    assert summary["heads"]["early"] == none | {"full": 3, "text_only": 3, "removed": 2}
    assert summary["heads"]["late"] == none | {"full": 8}
    assert summary["kv_bytes_per_token"] == {"baseline": 24 * 12, "pruned": 22 * 12}
    assert summary["kv_bytes_per_image_token"] == {"baseline": 24 * 12, "pruned": 19 * 12}
    assert summary["weight_bytes_saved"] == 2 * 4 * 3 * 13 * 2
    assert summary["usual_prompt"] == {"text_tokens": 70, "image_tokens": 144}
    assert summary["ideal_concurrency"] == pytest.approx(24 * 214 / (19 * 214 + 3 * 70))
    assert summary["plan_digest"] == plan.digest
    # Positions 35 to 178 of the prompt fill the three blocks from 64 to 159.
    of_blocks = summarise(plan, "float16", 2, block_size=32)
    assert of_blocks["kv_bytes_per_token"] == summary["kv_bytes_per_token"]
    assert of_blocks["kv_bytes_per_image_token"]["pruned"] == 19 * 12 + 3 * 12 * 48 / 144
    assert of_blocks["ideal_concurrency"] == pytest.approx(24 * 7 / (19 * 7 + 3 * 4))
    assert summarise(plan, "float16", 2, block_size=128)["kv_bytes_per_image_token"]["pruned"] == 22 * 12
