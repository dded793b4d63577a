"""A real server, started as a user starts it: asked through the OpenAI client, scraped, and ended by SIGTERM."""

import base64
import io
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest
from engine_host import Answer, Prompt, image
from oracle import TinyModel
from prometheus_client.parser import text_string_to_metric_families
from test_engine_exact import EXACT

from profiles.pruning_plan import Measurement, PruningPlan
from profiles.savings import ideal_concurrency, kv_bytes_baseline, kv_bytes_per_token
from profiles.store import save

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

REMOVED = [(0, 0), (0, 1), (1, 2), (1, 3), (1, 4), (1, 5), *((3, head) for head in range(6))]
FLAGS = ["--dtype", "float32", "--block-size", "32", "--max-model-len", "512", "--max-num-seqs", "8", "--enforce-eager"]
QUESTION = "how many red circles are there ?"
READY_WITHIN = 400


@dataclass
class Server:
    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            text: str = answer.read().decode()
        return text

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=120)

    def series(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.get("/metrics"))
            for sample in family.samples
        }

    def is_ready(self) -> bool:
        try:
            self.get("/health")
        except (urllib.error.URLError, OSError):
            return False
        return True


@contextmanager
def serving(folder: Path, environment: dict[str, str], *args: str) -> Iterator[Server]:
    """A server on a free port, ended when the block ends if it still runs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "vhserve.cli", "serve", *args, "--host", "127.0.0.1", "--port", str(port)]
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    server = Server(process, f"http://127.0.0.1:{port}", log)
    try:
        deadline = time.monotonic() + READY_WITHIN
        while not server.is_ready():
            assert process.poll() is None, log.read_text(errors="replace")[-6000:]
            assert time.monotonic() < deadline, log.read_text(errors="replace")[-6000:]
            time.sleep(0.5)
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def plan(models: dict[str, TinyModel]) -> PruningPlan:
    measured = [
        Measurement(dataset="d", arm=arm, family="all", samples=8, correct=6, accuracy=0.75, low=0.4, high=0.93)
        for arm in ("baseline", "pruned")
    ]
    bare = PruningPlan.manual(models["gqa"].ref, models["gqa"].geometry, removed=REMOVED)
    return bare.model_copy(update={"measured": measured})


@pytest.fixture(scope="module")
def plan_file(plan: PruningPlan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plans") / "plan.json"
    save(plan, path)
    return path


@pytest.fixture(scope="module")
def server(
    models: dict[str, TinyModel],
    plan_file: Path,
    vllm_environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with serving(folder, vllm_environment, str(models["gqa"].path), "--plan", str(plan_file), *FLAGS) as server:
        yield server


def ask(server: Server, model: str, seed: int) -> openai.types.chat.ChatCompletion:
    file = io.BytesIO()
    image(seed, (72, 72)).save(file, "PNG")
    picture = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    content = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": QUESTION}]
    return server.client().chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": content}],  # type: ignore[list-item, misc]
        max_tokens=1,
        temperature=0,
        logprobs=True,
        top_logprobs=8,
        extra_body={"return_token_ids": True},
    )


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
    prompt = Prompt(f"<s>USER: <image>\n{QUESTION} ASSISTANT:", (1,))
    assert model.oracle.difference(prompt, answer, plan) < EXACT


def test_it_is_called_what_the_user_called_it(server: Server, models: dict[str, TinyModel]) -> None:
    assert [one.id for one in server.client().models.list()] == [str(models["gqa"].path)]


def test_its_metrics_tell_of_the_plan(server: Server, plan: PruningPlan) -> None:
    series = server.series()

    def value(name: str, **labels: str) -> float:
        return series[name, frozenset(labels.items())]

    assert value("vhserve_kv_cache_bytes_per_token", arm="baseline") == kv_bytes_baseline(plan.geometry, 4)
    assert value("vhserve_kv_cache_bytes_per_token", arm="pruned") == kv_bytes_per_token(plan, 4)
    assert value("vhserve_heads", stage="early", treatment="removed") == 2
    assert value("vhserve_plan_accuracy_ratio", dataset="d", family="all", arm="pruned") == 0.75
    infos = [dict(labels) for name, labels in series if name == "vhserve_plan_info"]
    assert [info["digest"] for info in infos] == [plan.digest]
    capacities = [dict(labels) for name, labels in series if name == "vllm:cache_config_info"]
    tokens = int(capacities[0]["kv_cache_size_tokens"])
    blocks = int(capacities[0]["num_gpu_blocks"])
    # 70 text tokens and 81 of the image are 5 blocks of 32; without text-only heads all prompts are alike.
    assert value("vhserve_kv_cache_capacity_requests", prompt="image") == (blocks - 1) / 5
    assert value("vhserve_kv_cache_capacity_requests", prompt="text") == (blocks - 1) / 5
    stock = 2**30 / kv_bytes_baseline(plan.geometry, 4)
    assert tokens / stock == pytest.approx(ideal_concurrency(plan, 10, 81), rel=0.01)


def test_a_request_it_cannot_serve_gets_an_error_and_the_server_lives_on(
    server: Server, models: dict[str, TinyModel]
) -> None:
    with pytest.raises(openai.BadRequestError):
        server.client().completions.create(model=str(models["gqa"].path), prompt="red " * 600, max_tokens=1)
    assert server.is_ready()


def test_sigterm_ends_it(server: Server) -> None:  # the last test that uses it
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0
    assert "Traceback" not in server.log.read_text(errors="replace")


@pytest.mark.long
def test_several_api_servers_show_the_plan_once(
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


@pytest.mark.long
def test_two_data_parallel_engines_answer_alike_and_add_their_capacity_up(
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
    assert capacities[2] == pytest.approx(capacities[1], rel=1e-6)


@pytest.mark.long
def test_without_a_plan_it_is_stock(
    models: dict[str, TinyModel], vllm_environment: dict[str, str], tmp_path: Path
) -> None:
    with serving(tmp_path, vllm_environment, str(models["gqa"].path), *FLAGS) as server:
        assert ask(server, str(models["gqa"].path), 1).choices[0].message.content
        assert [name for name, _ in server.series() if name.startswith("vhserve_")] == []
        log = server.log.read_text(errors="replace")
    assert "Resolved architecture: LlavaForConditionalGeneration" in log
