"""The plan's series: their values, their names, and what a server with several processes shows."""

import os
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from profiles.geometry import ModelGeometry, ModelRef
from profiles.measurement import Measurement
from profiles.pruning_plan import PruningPlan
from profiles.treatments import TREATMENTS
from vhserve.engine.kv_cache.capacity import Capacity, capacity, groups_of
from vhserve.server.metric_definitions import DEFINITIONS, MetricDefinition
from vhserve.server.plan_metrics import PlanMetrics, expose
from vhserve.server.settings import ServerSettings, attach

GEOMETRY = ModelGeometry(layers=7, query_heads=4, kv_heads=2, head_size=32, hidden_size=100, image_tokens=9)
MEASURED = [
    Measurement(
        dataset="d", arm=arm, family=family, samples=8, correct=correct, accuracy=correct / 8, low=0.1, high=0.95
    )
    for arm, correct in (("baseline", 7), ("pruned", 6))
    for family in ("all", "object")
]
PLAN = PruningPlan.manual(
    ModelRef(name='the "model"', revision="sha256:12", architecture="LlavaForConditionalGeneration"),
    GEOMETRY,
    removed=[(0, 0), (0, 1), (2, 1), (2, 3), (4, 0), (4, 1)],
    text_only=[(5, 2), (5, 3)],
).model_copy(update={"measured": MEASURED})


def read(text: str) -> dict[tuple[str, ...], float]:
    """Value of each series, by name and the values of its labels in order of their names."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("vhserve_")
    }


def shown(
    plan: PruningPlan, cell_bytes: int = 128, kv_capacity: Capacity | None = None, block_size: int = 4
) -> dict[tuple[str, ...], float]:
    registry = CollectorRegistry()
    expose(plan, cell_bytes, block_size, kv_capacity, registry)
    return read(generate_latest(registry).decode())


def test_heads_are_counted_by_stage_and_treatment():
    heads = {labels[1:]: value for labels, value in shown(PLAN).items() if labels[0] == "vhserve_heads"}
    # Layers 0 and 1 are early, 2 and 3 middle, 4 to 6 late.
    assert set(heads) == {(stage, name) for stage in ("early", "middle", "late") for name in TREATMENTS}
    assert {labels: value for labels, value in heads.items() if value} == {
        ("early", "removed"): 2,
        ("early", "full"): 6,
        ("middle", "removed"): 2,
        ("middle", "full"): 6,
        ("late", "removed"): 2,
        ("late", "text_only"): 2,
        ("late", "full"): 8,
    }
    assert sum(heads.values()) == GEOMETRY.heads


@pytest.mark.parametrize("cell_bytes", [40, 72, 128])
def test_bytes_per_token_follow_the_cache_s_data_type(cell_bytes: int):
    series = shown(PLAN, cell_bytes)
    assert series["vhserve_kv_cache_bytes_per_token", "baseline"] == 7 * 2 * cell_bytes
    # Layers 0 and 4 lose a KV head each; elsewhere every group keeps a head.
    assert series["vhserve_kv_cache_bytes_per_token", "pruned"] == (7 * 2 - 2) * cell_bytes


def test_the_info_names_plan_and_model():
    registry = CollectorRegistry()
    expose(PLAN, 128, 4, registry=registry)
    labels = next(
        sample.labels
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if sample.name == "vhserve_plan_info"
    )
    assert labels["digest"] == PLAN.digest
    assert (labels["model"], labels["revision"]) == ('the "model"', "sha256:12")
    assert set(labels) == set(DEFINITIONS["vhserve_plan_info"].labels)


def test_accuracy_comes_with_samples_and_interval():
    series = shown(PLAN)
    assert series["vhserve_plan_accuracy_ratio", "baseline", "d", "all"] == 7 / 8
    assert series["vhserve_plan_accuracy_ratio", "pruned", "d", "object"] == 6 / 8
    assert series["vhserve_plan_accuracy_samples", "pruned", "d", "all"] == 8
    assert series["vhserve_plan_accuracy_interval_ratio", "pruned", "low", "d", "all"] == 0.1
    assert series["vhserve_plan_accuracy_interval_ratio", "pruned", "high", "d", "all"] == 0.95


def test_an_empty_plan_shows_full_heads_and_no_saving():
    series = shown(PruningPlan.unpruned(PLAN.model, GEOMETRY))
    assert (
        series["vhserve_kv_cache_bytes_per_token", "pruned"] == series["vhserve_kv_cache_bytes_per_token", "baseline"]
    )
    assert {labels[2] for labels, value in series.items() if labels[0] == "vhserve_heads" and value} == {"full"}
    assert not [labels for labels in series if labels[0].startswith("vhserve_plan_accuracy")]


def test_capacity_is_stated_for_image_and_text_prompts():
    plan = PruningPlan.manual(PLAN.model, GEOMETRY, text_only=[(layer, head) for layer in range(7) for head in (2, 3)])
    kv_capacity = capacity(groups_of(plan, 4), 600, 30, 4)
    series = shown(plan, kv_capacity=kv_capacity)
    # 100 tokens are 25 blocks; full and text-only heads are equally many, so each have one group.
    assert series["vhserve_kv_cache_capacity_requests", "text"] == 600 / 50
    assert series["vhserve_kv_cache_capacity_requests", "image"] == 600 / (25 + 25 - 7)
    assert series["vhserve_kv_cache_capacity_requests", "image_answered"] == 600 / (25 + 25 - 7)
    evicted = PruningPlan.manual(PLAN.model, GEOMETRY, evict=plan.heads("text_only"))
    series = shown(evicted, kv_capacity=capacity(groups_of(evicted, 4), 600, 30, 4))
    assert series["vhserve_kv_cache_capacity_requests", "image"] == 600 / 50
    assert series["vhserve_kv_cache_capacity_requests", "image_answered"] == 600 / (25 + 25 - 7)
    assert not [labels for labels in shown(plan) if labels[0] == "vhserve_kv_cache_capacity_requests"]


UNITS = r"bytes_per_token|tokens|ratio|samples|requests|info|heads|seconds|up"


@pytest.mark.parametrize(("name", "series"), DEFINITIONS.items(), ids=DEFINITIONS)
def test_names_follow_the_conventions(name: str, series: MetricDefinition):
    counted = series.kind == "counter"
    assert re.fullmatch(rf"vhserve_([a-z_]+_)?({'total' if counted else UNITS})", name)
    assert series.text.endswith(".")
    assert all(re.fullmatch(r"[a-z_]+", label) for label in series.labels)
    # Nothing that grows with users, requests or heads.
    assert not {"le", "quantile", "job", "instance", "request", "head", "layer"}.intersection(series.labels)
    assert (series.kind == "histogram") == bool(series.buckets)


def test_several_processes_show_one_series_each(tmp_path: Path):
    """As with --api-server-count: each process exposes the plan, any of them answers for all."""
    serve = (
        "import sys; from pathlib import Path\n"
        "from profiles.store import load_plan; from vhserve.server.plan_metrics import expose\n"
        "expose(load_plan(Path(sys.argv[1])), 128, 4)\n"
    )
    answer = (
        "from prometheus_client import CollectorRegistry, generate_latest, multiprocess\n"
        "registry = CollectorRegistry(); multiprocess.MultiProcessCollector(registry)\n"
        "print(generate_latest(registry).decode())"
    )
    from profiles.store import save

    save(PLAN, tmp_path / "plan.json")
    files = tmp_path / "prometheus"
    files.mkdir()
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(files)}

    def run(code: str) -> str:
        command = [sys.executable, "-c", code, str(tmp_path / "plan.json")]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout

    run(serve)
    assert read(run(serve + answer)) == shown(PLAN)


@pytest.mark.parametrize("kind", ["http", "lifespan"])
def test_the_middleware_passes_everything_on_and_is_silent_without_a_plan(kind: str):
    import asyncio
    from types import SimpleNamespace

    passed = []

    async def app(scope: object, receive: object, send: object) -> None:
        passed.append((scope, receive, send))

    arguments = Namespace()
    attach(arguments, ServerSettings(max_request_bytes=1, max_sequences=1))
    state = SimpleNamespace(args=arguments, vllm_config=None)
    scope = {"type": kind, "app": SimpleNamespace(state=state)}
    middleware = PlanMetrics(app)
    for _ in range(2):
        asyncio.run(middleware(scope, "receive", "send"))
    assert passed == [(scope, "receive", "send")] * 2
