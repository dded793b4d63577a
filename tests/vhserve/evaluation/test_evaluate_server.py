"""`vhserve evaluate` and the latency load against a real server of the demo model, with removed and text-only heads.

The masked transformers model answers the same samples: accuracy through the endpoint must be its accuracy, sample by
sample.
"""

import functools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from answering import answer_all
from workers import free_port

from calibrate.datasets.synthetic import samples
from calibrate.demo import MODEL_DIR
from calibrate.masking.treatments import plan_treated
from calibrate.models.loading import load_model
from profiles.planning.savings import kv_bytes_baseline, kv_bytes_per_token
from profiles.pruning_plan import PruningPlan
from profiles.store import load_plan, save
from vhserve.child_processes import VHSERVE, serving
from vhserve.cli import main
from vhserve.engine.kv_cache.capacity import groups_of
from vhserve.engine.kv_cache.lanes import PromptBlocks
from vhserve.engine.kv_cache.saving import prompt_saving
from vhserve.evaluation.latency import LatencyLoad, measure
from vhserve.evaluation.results import load
from vhserve.evaluation.server import identify
from vhserve.evaluation.server_metrics import kv_capacity, metrics_text
from vhserve.loadtest.results import LoadTest

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

N = 32
# Enough heads that some answers change, few enough that some don't.
REMOVED = [(0, 0), (4, 5), (8, 1), (9, 0)]
TEXT_ONLY = [(layer, head) for layer in (1, 5, 6, 9, 10) for head in (1, 2, 6)]
BLOCK = 32  # the plan's, which the server takes
FLAGS = ("--dtype", "float32", "--max-model-len", "512", "--max-num-seqs", "8", "--enforce-eager")


@pytest.fixture(scope="module")
def right() -> dict[str, bool]:
    """What the masked model gets right, by sample."""
    loaded = load_model("demo", "float32", "cpu")
    with plan_treated(loaded.model, _plan(), block_size=BLOCK):
        answered = answer_all(loaded, samples(N))
    return dict(zip(answered.ids, map(bool, answered.right), strict=True))


@functools.cache
def _plan() -> PruningPlan:
    loaded = load_model("demo", "float32", "cpu")
    return PruningPlan.manual(loaded.ref, loaded.geometry, removed=REMOVED, text_only=TEXT_ONLY, block_size=BLOCK)


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    save(_plan(), path)
    return path


@pytest.fixture(scope="module")
def base_url(
    plan_file: Path, vllm_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    port, log = free_port(), tmp_path_factory.mktemp("served") / "server.log"
    command = (*VHSERVE, "serve", str(MODEL_DIR), "--plan", str(plan_file), "--port", str(port), *FLAGS)
    with serving("demo", (*command, "--host", "127.0.0.1"), port, log, {**os.environ, **vllm_environment}, 400):
        told = log.read_text(errors="replace")
        assert f"{plan_file} was never measured" in told
        saving = prompt_saving(_plan(), BLOCK)
        assert f"in float32 and KV blocks of {BLOCK} tokens: {saving.concurrency:.3f} times as many prompts" in told
        yield f"http://127.0.0.1:{port}/v1"


def test_accuracy_is_that_of_the_masked_model(
    base_url: str, plan_file: Path, right: dict[str, bool], tmp_path: Path
) -> None:
    out = tmp_path / "results.json"
    flags = ["--samples", str(N), "--concurrency", "4", "--out", str(out), "--attach", str(plan_file)]
    assert main(["evaluate", "--base-url", base_url, *flags]) == 0
    (arm,) = load(out).arms
    assert {one.id: one.outcome == "correct" for one in arm.answers} == right
    assert 0 < sum(right.values()) < N  # neither a broken model nor an untouched one
    assert arm.name == "pruned"
    measured = {one.family: one for one in load_plan(plan_file).measured}
    assert (measured["all"].correct, measured["all"].samples) == (sum(right.values()), N)
    assert {(one.block_size, one.dtype) for one in measured.values()} == {(BLOCK, "float32")}


def test_latency_and_capacity_of_a_real_server(base_url: str) -> None:
    server = identify(base_url, None, "none")
    assert server.plan_digest == _plan().digest
    found = measure(server, LatencyLoad(concurrency=2, requests=4, warm_up=1, output_tokens=5))
    assert (found.requests, found.failed, found.output_tokens) == (4, 0, 20)
    assert found.ttft_ms.p50 > 0
    assert found.tpot_ms.p50 > 0
    capacity = kv_capacity(metrics_text(base_url))
    pruned = kv_bytes_per_token(_plan(), 4)
    assert capacity.bytes_per_token == {"baseline": kv_bytes_baseline(_plan().geometry, 4), "pruned": pruned}
    groups = groups_of(_plan(), BLOCK)
    assert groups.of["text_only"]
    held = groups.blocks(PromptBlocks.with_image(70, _plan().geometry.image_tokens, BLOCK))
    assert capacity.prompts["image"] > 1.05 * capacity.prompts["text"]
    assert capacity.prompts["image"] * held == pytest.approx(
        capacity.prompts["text"] * sum(groups.of.values()) * 7
    )  # 214 tokens


def test_load_test_of_a_real_server(base_url: str, tmp_path: Path) -> None:
    out, tokens = tmp_path / "load.json", 48  # long enough for scrapes to find a reply at work
    load = ["--rate", "3", "--warm-up", "2", "--duration", "10", "--output-tokens", str(tokens), "--image-size", "96"]
    mix = ["--image-share", "0.7", "--repeated-share", "0.4", "--abort-share", "0.1", "--slo", "ttft<30,tpot<5"]
    assert main(["loadtest", base_url, *load, *mix, "--out", str(out), "--fail-if", "error_share>0"]) == 0
    document = LoadTest.model_validate_json(out.read_text(), strict=True)
    (found,) = document.endpoints
    figures = found.figures
    assert found.server.plan_digest == _plan().digest
    assert figures.failed == 0
    assert figures.succeeded + figures.aborted == figures.requests > 10
    assert figures.output_tokens == tokens * figures.succeeded  # the server's own count: every reply had its length
    assert figures.good == figures.succeeded
    # A picture takes 144 tokens of the prompt, which the server counts.
    assert found.kinds["image"].prompt_tokens > 144 * found.kinds["image"].succeeded
    assert found.kinds["text"].prompt_tokens < 100 * found.kinds["text"].succeeded
    assert 0 < figures.ttft.p50 <= figures.ttft.p99 < figures.e2e.max
    assert 0 < figures.tpot.p50 < figures.e2e.p50
    told = found.server_load
    assert told.scrapes > 5
    assert told.preemptions == 0
    assert 0 < told.kv_use_max <= 1
    assert told.running_max >= 1
    assert told.prefix_hit_share > 0  # pictures of the pool come again
