"""What a plan with text-only heads refuses beyond what every plan does: typed, with the reason, before it loads."""

import os
from typing import Any

import pytest
from engine_host import EngineHost, call
from host_calls import put, settings_of_stock
from oracle import TinyModel

from profiles.image_spans import RULE, SpanRule
from profiles.pruning_plan import PruningPlan
from vhserve.engine.checks.partial_options import UNSUPPORTED_OPTIONS

pytestmark = pytest.mark.vllm

REFUSED = {
    "--disable-hybrid-kv-cache-manager": None,
    "--enable-prompt-embeds": None,
    "--kv-cache-dtype-skip-layers": "0",
    "--kv-sharing-fast-prefill": None,
    "--enable-dbo": None,
}
"""For each row of the table, a value of its flag that is refused; a new row without one fails a test."""


@pytest.fixture(scope="module")
def plan(models: dict[str, TinyModel]) -> PruningPlan:
    model = models["gqa"]
    return PruningPlan.manual(model.ref, model.geometry, text_only=[(1, 2), (1, 3)], granularity="kv_group")


def put_with_layout(layout: str, plan: dict[str, Any], model: str) -> dict[str, Any]:
    """Runs in the host: as `put`, with a KV cache layout set for vLLM."""
    os.environ["VLLM_KV_CACHE_LAYOUT"] = layout
    try:
        return put(plan, model)
    finally:
        del os.environ["VLLM_KV_CACHE_LAYOUT"]


def refusal(engine_host: EngineHost, model: TinyModel, plan: PruningPlan, *flags: str) -> tuple[str, str]:
    outcome = engine_host.do(call(put, plan.model_dump(mode="json"), str(model.path), *flags))
    assert outcome.failure is not None
    return outcome.failure


@pytest.mark.parametrize("flag", [row.flag for row in UNSUPPORTED_OPTIONS])
def test_each_refused_flag_is_named_with_a_reason(
    flag: str, engine_host: EngineHost, models: dict[str, TinyModel], plan: PruningPlan
) -> None:
    value = REFUSED[flag]
    kind, text = refusal(engine_host, models["gqa"], plan, *([flag] if value is None else [flag, value]))
    row = next(row for row in UNSUPPORTED_OPTIONS if row.flag == flag)
    assert kind == "FlagRefused"
    assert text.startswith(flag)
    assert row.reason in text
    # A plan without text-only heads takes it.
    removed = PruningPlan.manual(plan.model, plan.geometry, removed=[(1, 2), (1, 3)], granularity="kv_group")
    given = [flag] if value is None else [flag, value]
    assert engine_host.do(call(put, removed.model_dump(mode="json"), str(models["gqa"].path), *given)).failure is None


def test_the_table_names_settings_that_vllm_has(engine_host: EngineHost, models: dict[str, TinyModel]) -> None:
    outcome = engine_host.do(call(settings_of_stock, str(models["gqa"].path), "vhserve.engine.checks.partial_options"))
    assert outcome.failure is None
    assert outcome.probed == len(UNSUPPORTED_OPTIONS)


def test_another_scheduler_is_refused(engine_host: EngineHost, models: dict[str, TinyModel], plan: PruningPlan) -> None:
    kind, text = refusal(engine_host, models["gqa"], plan, "--scheduler-cls", "somebody.elses.Scheduler")
    assert kind == "FlagRefused"
    assert "somebody.elses.Scheduler" in text


@pytest.mark.parametrize("layout", ["LBHNC", "LBNHC"])
def test_a_layout_with_layers_outermost_is_refused(
    layout: str, engine_host: EngineHost, models: dict[str, TinyModel], plan: PruningPlan
) -> None:
    outcome = engine_host.do(call(put_with_layout, layout, plan.model_dump(mode="json"), str(models["gqa"].path)))
    assert outcome.failure is not None
    kind, text = outcome.failure
    assert kind == "FlagRefused"
    assert f"VLLM_KV_CACHE_LAYOUT={layout}" in text


def test_a_model_without_image_tokens_has_no_text_only_heads(
    engine_host: EngineHost, models: dict[str, TinyModel], plan: PruningPlan
) -> None:
    blind = plan.geometry.model_copy(update={"image_tokens": 0})
    kind, text = refusal(engine_host, models["gqa"], PruningPlan.manual(plan.model, blind, text_only=[(1, 2), (1, 3)]))
    assert kind == "TreatmentUnsupported"
    assert "no image tokens" in text


def test_image_spans_of_another_rule_are_refused(
    engine_host: EngineHost, models: dict[str, TinyModel], plan: PruningPlan
) -> None:
    assert plan.image_spans == RULE
    other = plan.model_copy(update={"image_spans": SpanRule(bridge=3)})
    kind, text = refusal(engine_host, models["gqa"], other)
    assert kind == "TreatmentUnsupported"
    assert "holes of up to 3 tokens" in text
    assert "expected 8 or 0 tokens" in text
    old = plan.model_copy(update={"image_spans": None})
    for served in (plan, old):
        assert engine_host.do(call(put, served.model_dump(mode="json"), str(models["gqa"].path))).failure is None


def test_half_a_group_of_query_heads_cannot_be_laid_out(
    engine_host: EngineHost, models: dict[str, TinyModel], plan: PruningPlan
) -> None:
    kind, text = refusal(engine_host, models["gqa"], PruningPlan.manual(plan.model, plan.geometry, text_only=[(1, 2)]))
    assert kind == "LayoutRefused"
    assert "layer 1" in text
