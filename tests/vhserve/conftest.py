"""Tiny models, the engine host and what it was asked, shared by the tests of the engine and of the server."""

import hashlib
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import device_engines
import pytest
import torch
from engine_host import EngineHost
from engine_prompts import image
from live_server import FLAGS, KEY, QUESTION, Server, serving
from oracle import TinyModel
from safetensors.torch import load_file, save_file
from scripted_endpoint import Endpoint, endpoint
from tiny_models import make_tiny_llava, make_tiny_llava_next

from profiles.chat_template import TemplateRef
from profiles.geometry import ModelGeometry
from profiles.measurement import Measurement
from profiles.pruning_plan import PruningPlan
from profiles.store import save

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TinyModel]:
    """`mha`: every query head has a KV head of its own; `gqa`: two query heads share one; `next`: LLaVA-1.6; `biased`:
    `gqa` with biases in its attention, in two files.
    """
    folder = tmp_path_factory.mktemp("models")
    sizes = {"head_size": 32, "hidden_size": 120}
    return {
        "mha": TinyModel(
            make_tiny_llava(folder / "mha", layers=6, query_heads=5),
            ModelGeometry(layers=6, query_heads=5, kv_heads=5, image_tokens=81, **sizes),
        ),
        "gqa": TinyModel(
            make_tiny_llava(folder / "gqa", layers=4, query_heads=6, kv_heads=3),
            ModelGeometry(layers=4, query_heads=6, kv_heads=3, image_tokens=81, **sizes),
        ),
        "next": TinyModel(
            make_tiny_llava_next(folder / "next", layers=3, query_heads=6, kv_heads=3),
            ModelGeometry(layers=3, query_heads=6, kv_heads=3, image_tokens=135, **sizes),
            "LlavaNextForConditionalGeneration",
        ),
        "biased": TinyModel(
            give_biases(make_tiny_llava(folder / "biased", layers=4, query_heads=6, kv_heads=3)),
            ModelGeometry(layers=4, query_heads=6, kv_heads=3, image_tokens=81, **sizes),
        ),
    }


def give_biases(path: Path) -> Path:
    """Add biases to the attention of a checkpoint, and spread its tensors over two files, every second one in each."""
    config = json.loads((path / "config.json").read_text())
    config["text_config"]["attention_bias"] = True
    (path / "config.json").write_text(json.dumps(config))
    tensors = load_file(path / "model.safetensors")
    generator = torch.Generator().manual_seed(3)
    for name, weight in list(tensors.items()):
        if "language_model" in name and ".self_attn." in name:
            tensors[name.replace(".weight", ".bias")] = 0.3 * torch.randn(len(weight), generator=generator)
    (path / "model.safetensors").unlink()
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for index, file in enumerate(files):
        save_file({name: tensors[name] for name in sorted(tensors)[index::2]}, path / file, metadata={"format": "pt"})
    weight_map = {name: files[index % 2] for index, name in enumerate(sorted(tensors))}
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return path


@pytest.fixture(scope="session")
def vllm_environment() -> dict[str, str]:
    """Environment of every process that starts vLLM: little memory, caches inside the checkout, and one thread.

    The kernels of tiny models are short: with two threads each waits for one that a busy machine has put off. Bound to
    cores, as vLLM's workers are unless told otherwise, two servers would have one core.
    """
    return {
        **os.environ,
        "VLLM_CACHE_ROOT": str(ROOT / ".cache" / "vllm"),
        "TORCHINDUCTOR_CACHE_DIR": str(ROOT / ".cache" / "inductor"),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }


@pytest.fixture(scope="session")
def engine_host(tmp_path_factory: pytest.TempPathFactory, vllm_environment: dict[str, str]) -> Iterator[EngineHost]:
    # oneDNN keeps what it made for the last 1,024 shapes, tens of MiB that would pass for a leak.
    settings = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "1"}
    host = EngineHost(tmp_path_factory.mktemp("engines"), {**vllm_environment, **settings})
    yield host
    host.close()


@pytest.fixture(scope="session")
def device_host(tmp_path_factory: pytest.TempPathFactory, vllm_environment: dict[str, str]) -> Iterator[EngineHost]:
    """For engines that run what a GPU runs, as far as a CPU can."""
    environment = {**vllm_environment, **device_engines.ENVIRONMENT}
    host = EngineHost(tmp_path_factory.mktemp("device-engines"), environment, "device_engines")
    yield host
    host.close()


# --- the server that tests share ---

REMOVED = [(0, 0), (0, 1), (1, 2), (1, 3), (1, 4), (1, 5), *((3, head) for head in range(6))]
TEXT_ONLY = [(2, head) for head in range(6)]
CANARY = "labelled.jsonl"


@dataclass
class Reference:
    """The endpoint that the shared server's shadow asks, and what it is to say."""

    endpoint: Endpoint
    says: str | int = "nothing yet"


@pytest.fixture(scope="session")
def plan(models: dict[str, TinyModel]) -> PruningPlan:
    measured = [
        Measurement(dataset=dataset, arm=arm, family="all", samples=8, correct=6, accuracy=0.75, low=0.4, high=0.93)
        for arm in ("baseline", "pruned")
        for dataset in ("d", CANARY)
    ]
    bare = PruningPlan.manual(models["gqa"].ref, models["gqa"].geometry, removed=REMOVED, text_only=TEXT_ONLY)
    # Not the model's own template, nor the server's image backend, so that it has something to say about them.
    template = TemplateRef(digest="sha256:another", source="tokenizer", content_format="string")
    return bare.model_copy(update={"measured": measured, "chat_template": template, "image_backend": "pil"})


@pytest.fixture(scope="session")
def plan_file(plan: PruningPlan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plans") / "plan.json"
    save(plan, path)
    return path


@pytest.fixture(scope="session")
def canary_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures with one question; which answers are right is chosen so that some are."""
    folder = tmp_path_factory.mktemp("canary")
    lines = []
    for seed in range(6):
        image(seed, (72, 72)).save(folder / f"{seed}.png")
        lines.append({"image": f"{seed}.png", "question": QUESTION, "answer": "triangles" if seed % 2 else "none"})
    (folder / CANARY).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / CANARY


@pytest.fixture(scope="session")
def canary_seeds(canary_file: Path) -> list[int]:
    """The canary's pictures that are in the half to measure on."""
    digests = {seed: hashlib.sha256(canary_file.with_name(f"{seed}.png").read_bytes()).digest() for seed in range(6)}
    seeds = [seed for seed, digest in digests.items() if digest[0] >= 128]
    assert 0 < len(seeds) < 6
    return seeds


@pytest.fixture(scope="session")
def reference() -> Iterator[Reference]:
    with endpoint(lambda request: reference.says) as here:
        reference = Reference(here)
        yield reference


@pytest.fixture(scope="session")
def server(
    models: dict[str, TinyModel],
    plan_file: Path,
    canary_file: Path,
    reference: Reference,
    vllm_environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """With a plan of removed and text-only heads, a key, a canary that runs once, and a shadow of every request."""
    args = (str(models["gqa"].path), "--plan", str(plan_file), *FLAGS, "--api-key", KEY)
    watch = ("--canary", str(canary_file), "--canary-interval", "3600", "--shadow-fraction", "1")
    folder = tmp_path_factory.mktemp("server")
    with serving(folder, vllm_environment, *args, *watch, "--shadow-url", reference.endpoint.base_url) as server:
        yield server
        # Every test run ends it as an operator does; under load, test_faults.py does.
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0, server.log.read_text(errors="replace")[-6000:]
