"""A real server, started as a user starts it: asked through the OpenAI client, and scraped."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import openai
import psutil
import pytest
from engine_host import Answer
from engine_prompts import EnginePrompt
from exactness import EXACT
from live_server import FLAGS, QUESTION, Server, ask, serving
from oracle import TinyModel

from profiles.planning.savings import kv_bytes_baseline, kv_bytes_per_token
from profiles.pruning_plan import PruningPlan
from profiles.store import save
from vhserve.engine.kv_cache.capacity import capacity, groups_of
from vhserve.engine.kv_cache.saving import saving_ratio

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


def test_it_answers_what_the_masked_model_answers(
    server: Server, models: dict[str, TinyModel], plan: PruningPlan
) -> None:
    model = models["gqa"]
    said = ask(server, str(model.path), seed=1)
    tokenizer = model.oracle.processor.tokenizer
    top = said.choices[0].logprobs.content[0].top_logprobs
    answer = Answer(
        prompt_ids=said.prompt_token_ids,
        cached=0,
        reply_ids=said.choices[0].token_ids,
        log_probs=[{tokenizer.convert_tokens_to_ids(one.token): one.logprob for one in top}],
    )
    assert len(answer.log_probs[0]) == 8
    prompt = EnginePrompt(f"<s>USER: <image>\n{QUESTION} ASSISTANT:", (1,))
    assert model.oracle.difference(prompt, answer, plan) < EXACT


def test_it_is_called_what_the_user_called_it(server: Server, models: dict[str, TinyModel]) -> None:
    assert [one.id for one in server.client().models.list()] == [str(models["gqa"].path)]


def test_it_says_once_how_long_its_start_took(server: Server) -> None:
    (said,) = re.findall(
        r"^vhserve: note: the server took (.*) s to start$", server.log.read_text(errors="replace"), re.MULTILINE
    )
    assert 2 < float(said) < time.time() - psutil.Process(server.process.pid).create_time()


def test_its_metrics_tell_of_the_plan(server: Server, plan: PruningPlan) -> None:
    series = server.series()

    def value(name: str, **labels: str) -> float:
        return series[name, frozenset(labels.items())]

    assert value("vhserve_kv_cache_bytes_per_token", arm="baseline") == kv_bytes_baseline(plan.geometry, 4)
    assert value("vhserve_kv_cache_bytes_per_token", arm="pruned") == kv_bytes_per_token(plan, 4)
    assert value("vhserve_heads", stage="early", treatment="removed") == 2
    assert value("vhserve_heads", stage="late", treatment="text_only") == 6
    assert value("vhserve_plan_accuracy_ratio", dataset="d", family="all", arm="pruned") == 0.75
    infos = [dict(labels) for name, labels in series if name == "vhserve_plan_info"]
    assert [(info["digest"], info["surgery"]) for info in infos] == [(plan.digest, "slice")]
    assert value("vhserve_server_info", block_size="32", dtype="float32", kv_cache_dtype="float32") == 1
    assert value("vhserve_plan_saving_ratio") == saving_ratio(plan, 32)
    capacities = [dict(labels) for name, labels in series if name == "vllm:cache_config_info"]
    tokens = int(capacities[0]["kv_cache_size_tokens"])
    blocks = int(capacities[0]["num_gpu_blocks"])
    holds = capacity(groups_of(plan, 32), blocks - 1, plan.geometry.image_tokens, 32)
    assert holds.image_requests > holds.text_requests
    assert value("vhserve_kv_cache_capacity_requests", prompt="image") == holds.image_requests
    assert value("vhserve_kv_cache_capacity_requests", prompt="text") == holds.text_requests
    stock = 2**30 / kv_bytes_baseline(plan.geometry, 4)
    saved = kv_bytes_baseline(plan.geometry, 4) / kv_bytes_per_token(plan, 4)
    assert tokens / stock == pytest.approx(saved, rel=0.01)


def test_a_dry_run_says_what_it_would_allocate(
    server: Server, models: dict[str, TinyModel], plan_file: Path, plan: PruningPlan, vllm_environment: dict[str, str]
) -> None:
    command = [sys.executable, "-m", "vhserve.cli", "serve", str(models["gqa"].path), "--plan", str(plan_file), *FLAGS]
    done = subprocess.run(
        [*command, "--port", "0", "--dry-run", "--json"],
        env=vllm_environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    series = server.series()
    (info,) = [dict(labels) for name, labels in series if name == "vllm:cache_config_info"]
    assert said["blocks"] == int(info["num_gpu_blocks"])
    assert (said["kv_cache_bytes"], said["block_size"], said["cell_bytes"]) == (2**30, 32, 2 * 32 * 4)
    assert said["plan"] == plan.digest
    for prompt in ("image", "text"):
        fits = series["vhserve_kv_cache_capacity_requests", frozenset({"prompt": prompt}.items())]
        assert said[f"{prompt}_requests"] == fits


def test_a_dry_run_knows_the_cache_that_nobody_gave(
    models: dict[str, TinyModel], plan_file: Path, vllm_environment: dict[str, str]
) -> None:
    command = [sys.executable, "-m", "vhserve.cli", "serve", str(models["gqa"].path), "--plan", str(plan_file), *FLAGS]
    environment = {name: value for name, value in vllm_environment.items() if name != "VLLM_CPU_KVCACHE_SPACE"}
    done = subprocess.run(
        [*command, "--port", "0", "--dry-run", "--json"],
        env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert 2**30 <= said["kv_cache_bytes"] <= 4 * 2**30
    assert said["blocks"] == said["kv_cache_bytes"] // said["block_bytes"]
    assert said["request_blocks"] == said["groups"] * 512 // 32
    assert said["image_requests"] > said["text_requests"] > 1


def test_a_request_it_cannot_serve_gets_an_error_and_the_server_lives_on(
    server: Server, models: dict[str, TinyModel]
) -> None:
    with pytest.raises(openai.BadRequestError):
        server.client().completions.create(model=str(models["gqa"].path), prompt="red " * 600, max_tokens=1)
    assert server.is_ready()


@pytest.mark.long
def test_several_api_servers_show_the_plan_once_and_end_with_their_parent(
    models: dict[str, TinyModel], plan_file: Path, plan: PruningPlan, vllm_environment: dict[str, str], tmp_path: Path
) -> None:
    """Of a folder without weights, too: with random ones there is no revision to compare."""
    weightless = tmp_path / "weightless"
    shutil.copytree(models["gqa"].path, weightless, ignore=shutil.ignore_patterns("*.safetensors"))
    args = (str(weightless), "--plan", str(plan_file), *FLAGS, "--load-format", "dummy", "--api-server-count", "2")
    with serving(tmp_path, vllm_environment, *args, "--served-model-name", "other") as server:
        for seed in range(6):  # whichever process answers
            assert ask(server, "other", seed).choices[0].message.content
            infos = [dict(labels) for name, labels in server.series() if name == "vhserve_plan_info"]
            assert [info["digest"] for info in infos] == [plan.digest]
            assert [info for info in infos if "pid" in info] == []
        assert server.value("vhserve_image_tokens_total") == 6 * 81
        assert server.value("vhserve_requests_total", outcome="length") == 6
        assert server.log.read_text(errors="replace").count(" s to start\n") == 1
        assert server.kill() == []


@pytest.mark.long
def test_two_data_parallel_engines_answer_alike_add_their_capacity_up_and_end_with_their_parent(
    models: dict[str, TinyModel], vllm_environment: dict[str, str], tmp_path: Path
) -> None:
    model = models["gqa"]
    plan = PruningPlan.manual(
        model.ref, model.geometry, text_only=[(layer, head) for layer in range(4) for head in (2, 3, 4, 5)]
    )
    save(plan, tmp_path / "plan.json")
    args = (str(model.path), "--plan", str(tmp_path / "plan.json"), *FLAGS)
    capacities = {}
    for engines in (1, 2):
        with serving(tmp_path, vllm_environment, *args, "--data-parallel-size", str(engines)) as server:
            said = [ask(server, str(model.path), seed=1).choices[0].logprobs for _ in range(4)]
            assert all(one == said[0] for one in said)
            series = server.series()
            # vLLM puts the blocks of all engines into every engine's label.
            (blocks,) = {
                int(dict(labels)["num_gpu_blocks"]) for name, labels in series if name == "vllm:cache_config_info"
            }
            requests = {
                dict(labels).get("engine"): value
                for (name, labels), value in series.items()
                if name == "vllm:request_success_total" and dict(labels)["finished_reason"] == "length"
            }
            assert len(requests) == engines
            assert sum(requests.values()) == 4
            capacities[engines] = series[
                "vhserve_kv_cache_capacity_requests", frozenset({"prompt": "image"}.items())
            ] / (blocks - engines)
            assert server.kill() == []
    assert capacities[2] == pytest.approx(capacities[1], rel=1e-6)


@pytest.mark.long
def test_without_a_plan_it_is_stock_and_its_engine_ends_with_it(
    models: dict[str, TinyModel], vllm_environment: dict[str, str], tmp_path: Path
) -> None:
    with serving(tmp_path, vllm_environment, str(models["gqa"].path), *FLAGS) as server:
        assert ask(server, str(models["gqa"].path), 1).choices[0].message.content
        assert [name for name, _ in server.series() if name.startswith("vhserve_")] == ["vhserve_server_info"]
        assert server.kill() == []
        log = server.log.read_text(errors="replace")
    assert "Resolved architecture: LlavaForConditionalGeneration" in log
